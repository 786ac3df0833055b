"""The lines that change only the image's config."""

from __future__ import annotations

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.lines import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from minibox.build.image.draft import Draft

PORT_MAX = 65535
PROTOCOLS = ("tcp", "udp", "sctp")


def _env(draft: Draft, line: Any) -> None:
    draft.set_env(line.pairs)


def _label(draft: Draft, line: Any) -> None:
    draft.set_labels(line.pairs)


def _arg(draft: Draft, line: Any) -> None:
    words = " ".join(name if value is None else f"{name}={value}" for name, value in line.pairs)
    draft.note(f"ARG {words}")


def _cmd(draft: Draft, line: Any) -> None:
    draft.set_command(line.command.words, is_shell=line.command.shell)


def _entrypoint(draft: Draft, line: Any) -> None:
    draft.set_entrypoint(line.command.words, is_shell=line.command.shell)


def _shell(draft: Draft, line: Any) -> None:
    draft.set_shell(line.words)


def _user(draft: Draft, line: Any) -> None:
    draft.set_user(line.user)


def _volume(draft: Draft, line: Any) -> None:
    draft.set_volumes(line.paths)


def _expose(draft: Draft, line: Any) -> None:
    draft.set_ports([port for word in line.ports for port in _ports(word)])


def _ports(word: str) -> Iterator[str]:
    numbers, slash, protocol = word.partition("/")
    first, _, last = numbers.partition("-")
    last, protocol = last or first, protocol.lower() if slash else "tcp"
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) <= PORT_MAX):
        raise Problem(f"{word!r} is not a port or a range of ports", "write EXPOSE 80 or EXPOSE 8000-8010/udp", at=word)
    if protocol not in PROTOCOLS:
        raise Problem(f"unknown protocol {protocol!r}", f"one of {', '.join(PROTOCOLS)}", at=word)
    return (f"{port}/{protocol}" for port in range(int(first), int(last) + 1))


def _stopsignal(draft: Draft, line: Any) -> None:
    draft.set_stop_signal(line.signal)


def _maintainer(draft: Draft, line: Any) -> None:
    draft.set_maintainer(line.author)


def _onbuild(draft: Draft, line: Any) -> None:
    draft.add_trigger(line.trigger)


def _healthcheck(draft: Draft, line: Any) -> None:
    if line.command is None:
        draft.set_healthcheck({"Test": ["NONE"]})
        return
    test = ["CMD-SHELL" if line.command.shell else "CMD", *line.command.words]
    times = {
        "Interval": line.interval_ns,
        "Timeout": line.timeout_ns,
        "StartPeriod": line.start_period_ns,
        "StartInterval": line.start_interval_ns,
        "Retries": line.retries,
    }
    draft.set_healthcheck({"Test": test, **{key: value for key, value in times.items() if value}})


CONFIG_LINES: dict[type[kinds.Instruction], Callable[[Draft, Any], None]] = {
    kinds.Arg: _arg,
    kinds.Cmd: _cmd,
    kinds.Entrypoint: _entrypoint,
    kinds.Env: _env,
    kinds.Expose: _expose,
    kinds.Healthcheck: _healthcheck,
    kinds.Label: _label,
    kinds.Maintainer: _maintainer,
    kinds.Onbuild: _onbuild,
    kinds.Shell: _shell,
    kinds.Stopsignal: _stopsignal,
    kinds.User: _user,
    kinds.Volume: _volume,
}
