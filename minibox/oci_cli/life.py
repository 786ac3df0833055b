"""The commands create, run, start, state, kill, delete, pause and resume."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.oci_cli.commands import Settings


def create(settings: Settings, values: dict[str, Any], words: list[str]) -> int:
    """Create a container."""
    from minibox.engine.oci import create as engine

    engine.create(words[0], _options(settings, values, detach=True))
    return 0


def run(settings: Settings, values: dict[str, Any], words: list[str]) -> int:
    """Create and start a container. Returns its exit status, or 0 for a detached one."""
    from minibox.engine.oci import run as engine

    options = _options(settings, values, detach=bool(values["detach"]))
    return engine.run(words[0], options, keep=bool(values["keep"]), subreaper=not values["no-subreaper"])


def _options(settings: Settings, values: dict[str, Any], *, detach: bool) -> Any:
    from minibox.engine.oci.create import CreateOptions

    return CreateOptions(
        root=settings.root,
        bundle=values["bundle"],
        config=values["config"],
        cgroups=settings.cgroups,
        detach=detach,
        note=lambda text: settings.log.write("warning", text),
        systemd_cgroup=settings.systemd_cgroup,
        rootless=settings.rootless,
        console_socket=values["console-socket"],
        pidfd_socket=values["pidfd-socket"],
        pid_file=values["pid-file"],
        pivot=not values["no-pivot"],
        keyring=not values["no-new-keyring"],
        preserve_fds=values["preserve-fds"],
    )


def start(settings: Settings, _: dict[str, Any], words: list[str]) -> int:
    """Start the process of a created container."""
    from minibox.engine.oci import life

    life.start(settings.root, words[0])
    return 0


def state(settings: Settings, _: dict[str, Any], words: list[str]) -> int:
    """Print a container's state as JSON."""
    from minibox.engine.oci.state import Container, summary
    from minibox.oci_cli.output import write

    write(summary(Container.find(settings.root, words[0])), "  ", end="")
    return 0


def kill(settings: Settings, values: dict[str, Any], words: list[str]) -> int:
    """Send a signal to a container."""
    from minibox.engine.oci import life
    from minibox.linux.signals import signal_number

    word = words[1] if len(words) > 1 else "TERM"
    for container_id in _named(settings, values, words):
        life.kill(settings.root, container_id, 0 if word == "0" else signal_number(word), every=bool(values["all"]))
    return 0


def delete(settings: Settings, values: dict[str, Any], words: list[str]) -> int:
    """Remove a stopped container."""
    from minibox.engine.oci import life

    for container_id in _named(settings, values, words):
        life.delete(
            settings.root,
            container_id,
            force=bool(values["force"]),
            note=lambda text: settings.log.write("warning", text),
        )
    return 0


def _named(settings: Settings, values: dict[str, Any], words: list[str]) -> list[str]:
    """Return the ids on the command line: one, or with crun's --regex any number."""
    if not values["regex"]:
        return words[:1]
    from minibox.engine.oci.list import matching

    return matching(settings.root, words[0])


def pause(settings: Settings, _: dict[str, Any], words: list[str]) -> int:
    """Pause a container's processes."""
    from minibox.engine.oci import life

    life.pause(settings.root, words[0])
    return 0


def resume(settings: Settings, _: dict[str, Any], words: list[str]) -> int:
    """Resume a container's processes."""
    from minibox.engine.oci import life

    life.resume(settings.root, words[0])
    return 0
