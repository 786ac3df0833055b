"""Apply Dockerfile instructions to an image's config: ``commit --change`` and ``import --change``.

Source: the Dockerfile reference (docs.docker.com/reference/dockerfile), and the instructions that ``docker commit``
allows: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR. Like Podman,
we also accept ``CMD=/bin/sh``.
"""

from __future__ import annotations

import json
import posixpath
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from minibox.base.values import parse_duration_ns
from minibox.errors import UsageError

Config = dict[str, Any]

SHELL = ["/bin/sh", "-c"]
NOT_IN_ONBUILD = ("ONBUILD", "FROM", "MAINTAINER")
HEALTH_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}
PORT_MAX = 65535


def apply_changes(config: Config, instructions: Iterable[str]) -> Config:
    """Apply ``instructions`` in order to the execution part of an image config (OCI image-spec, config.md).

    As in a Dockerfile, ENTRYPOINT removes an inherited CMD, but not one set by an earlier instruction.

    Raises:
        UsageError: an instruction is unknown or malformed.
    """
    changed = dict(config)
    cmd_is_new = False
    for instruction in instructions:
        name, rest = _split(instruction)
        try:
            INSTRUCTIONS[name](changed, rest)
        except ValueError as error:
            raise UsageError(f"change {instruction!r}: {error}") from error
        cmd_is_new = cmd_is_new or name == "CMD"
        if name == "ENTRYPOINT" and not cmd_is_new:
            changed.pop("Cmd", None)
    return changed


def _split(instruction: str) -> tuple[str, str]:
    found = re.match(r"\s*([A-Za-z]+)(?:\s+|=|$)(.*)", instruction, re.DOTALL)
    name = found[1].upper() if found else ""
    if found is None or name not in INSTRUCTIONS:
        raise UsageError(f"change {instruction!r}: no such instruction", f"one of {', '.join(sorted(INSTRUCTIONS))}")
    rest = found[2].strip()
    if not rest:
        raise UsageError(f"change {instruction!r}: {name} needs a value")
    return name, rest


# ---- instructions: each changes the config in place, or raises ValueError ----------------------------


def _cmd(config: Config, rest: str) -> None:
    _put(config, "Cmd", _command(rest))


def _entrypoint(config: Config, rest: str) -> None:
    _put(config, "Entrypoint", _command(rest))


def _env(config: Config, rest: str) -> None:
    values = dict(entry.partition("=")[::2] for entry in config.get("Env") or [])
    # All values of one instruction use the variables from before it.
    values.update(_pairs(rest, _lookup(config)))
    config["Env"] = [f"{name}={value}" for name, value in values.items()]


def _label(config: Config, rest: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **_pairs(rest, _lookup(config))}


def _expose(config: Config, rest: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in _words(rest, _lookup(config)):
        ports.update({port: {} for port in _ports(word)})
    config["ExposedPorts"] = ports


def _user(config: Config, rest: str) -> None:
    config["User"] = _one_word(rest, config)


def _workdir(config: Config, rest: str) -> None:
    directory = "".join(_expand(rest, _lookup(config)))
    joined = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "", directory))
    config["WorkingDir"] = "/" + joined.lstrip("/")


def _volume(config: Config, rest: str) -> None:
    paths = _json_words(rest)
    if paths is None:
        paths = list(_words(rest, _lookup(config)))
    if not all(path.strip() for path in paths):
        raise ValueError("a volume has no path")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _stopsignal(config: Config, rest: str) -> None:
    word = _one_word(rest, config)
    known = {name for item in signal.Signals for name in (item.name, item.name[3:])}
    # Most real-time signals have no name, only an offset: SIGRTMIN+3 (signal(7)).
    if not (
        word.upper() in known
        or re.fullmatch(r"(SIG)?RTM(IN\+|AX-)\d{1,2}", word.upper())
        or (word.isdecimal() and 0 < int(word) < signal.NSIG)
    ):
        raise ValueError(f"no such signal: {word}")
    config["StopSignal"] = word


def _onbuild(config: Config, rest: str) -> None:
    trigger = rest.split()[0].upper()
    if trigger in NOT_IN_ONBUILD:
        raise ValueError(f"{trigger} isn't allowed as a trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or []), rest]


def _healthcheck(config: Config, rest: str) -> None:
    check: dict[str, Any] = {}
    while flag := re.match(r"--([a-z-]+)=(\S+)\s*", rest):
        rest = rest[flag.end() :]
        name, value = flag.groups()
        if name == "retries":
            if not value.isdecimal() or not int(value):
                raise ValueError(f"--retries={value} is not a number above 0")
            check["Retries"] = int(value)
        elif name in HEALTH_TIMES:
            check[HEALTH_TIMES[name]] = _duration_ns(value)
        else:
            raise ValueError(f"unknown option --{name}")
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE" and not command.strip() and not check:
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD" or not command.strip():
        raise ValueError("write HEALTHCHECK NONE, or HEALTHCHECK [--interval=30s ...] CMD and a command")
    words = _json_words(command.strip())
    config["Healthcheck"] = {"Test": ["CMD-SHELL", command.strip()] if words is None else ["CMD", *words], **check}


INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}

# ---- values ------------------------------------------------------------------------------------------


def _put(config: Config, key: str, value: list[str]) -> None:
    if value:
        config[key] = value
    else:
        config.pop(key, None)


def _command(rest: str) -> list[str]:
    """Read a command in exec form if it is JSON, otherwise in shell form."""
    words = _json_words(rest)
    return [*SHELL, rest] if words is None else words


def _json_words(rest: str) -> list[str] | None:
    if not rest.startswith("["):
        return None
    try:
        words = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _ports(word: str) -> Iterator[str]:
    numbers, _, protocol = word.partition("/")
    first, _, last = numbers.partition("-")
    last = last or first
    protocol = protocol.lower() or "tcp"
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) <= PORT_MAX):
        raise ValueError(f"{word} is not a port or a range of ports")
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"{word}: unknown protocol; use tcp, udp or sctp")
    return (f"{port}/{protocol}" for port in range(int(first), int(last) + 1))


def _duration_ns(text: str) -> int:
    try:
        return parse_duration_ns(text)
    except ValueError:
        raise ValueError(f"{text} is not a time such as 30s or 1m30s") from None


def _one_word(rest: str, config: Config) -> str:
    words = list(_words(rest, _lookup(config)))
    if len(words) != 1 or not words[0]:
        raise ValueError("it needs exactly one word")
    return words[0]


def _pairs(rest: str, lookup: dict[str, str]) -> dict[str, str]:
    """Parse ``a=b c="d e"``, or a single pair in the old form ``a b c``."""
    words = list(_words(rest, lookup))
    if "=" not in words[0]:
        old_name, _, old_value = rest.partition(" ")
        if not old_value.strip():
            raise ValueError(f"{old_name} has no value: write {old_name}=VALUE")
        return {old_name: "".join(_expand(old_value.strip(), lookup))}
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word} has no value: write {word}=VALUE")
        if not name:
            raise ValueError("a name is empty")
        pairs[name] = value
    return pairs


# ---- words: quotes, escapes and variables, as in a Dockerfile -----------------------------------------


def _lookup(config: Config) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in config.get("Env") or [])


def _words(text: str, lookup: dict[str, str]) -> Iterator[str]:
    """Split ``text`` into words, without their quotes. Blanks in a variable's value don't split."""
    word: list[str] | None = None
    for part in _expand(text, lookup, divide=True):
        if part is not None:
            word = [*(word or []), part]
        elif word is not None:
            yield "".join(word)
            word = None
    if word is not None:
        yield "".join(word)


def _expand(text: str, lookup: dict[str, str], *, divide: bool = False) -> Iterator[Any]:
    """Yield the expanded pieces of ``text``; with ``divide``, None for each blank outside quotes."""
    position, quote = 0, ""
    while position < len(text):
        char = text[position]
        if char == quote or (not quote and char in "'\""):
            quote = "" if quote else char
            yield ""
            position += 1
        elif char == "\\" and quote != "'" and position + 1 < len(text):
            escaped = text[position + 1]
            yield escaped if not quote or escaped in '"$\\' else char + escaped
            position += 2
        elif char == "$" and quote != "'" and (found := re.compile(r"\$(\w+|\{[^}]*\})").match(text, position)):
            yield _variable(found[1].strip("{}"), lookup)
            position = found.end()
        else:
            yield None if divide and not quote and char.isspace() else char
            position += 1
    if quote:
        raise ValueError(f"a quote isn't closed: {quote}")


def _variable(text: str, lookup: dict[str, str]) -> str:
    found = re.fullmatch(r"(\w+)(?:(:?[-+?])(.*))?", text, re.DOTALL)
    if found is None:
        raise ValueError(f"${{{text}}} is not a valid variable")
    name, operation, word = found[1], found[2] or "", found[3] or ""
    value = lookup.get(name, "")
    there = bool(value) if operation.startswith(":") else name in lookup
    match operation[-1:]:
        case "-":
            return value if there else word
        case "+":
            return word if there else ""
        case "?" if not there:
            raise ValueError(f"${name}: {word or 'is not set'}")
    return value
