"""The values of build options as users write them: Docker's words."""

from __future__ import annotations

import os

from minibox.errors import UsageError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EPOCH = "SOURCE_DATE_EPOCH"
NETWORKS = ("default", "none", "host")


def pair_of(text: str, option: str) -> tuple[str, str]:
    """Parse ``NAME=VALUE``.

    Raises:
        UsageError: it has no name or no value.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"invalid {option} {text!r}", f"write {option} NAME=VALUE")
    return name, value


def label_of(text: str) -> tuple[str, str]:
    """Parse a value of --label: ``NAME=VALUE``, or ``NAME`` with an empty value.

    Raises:
        UsageError: it has no name.
    """
    name, _, value = text.partition("=")
    if not name:
        raise UsageError(f"invalid --label {text!r}", "write --label NAME=VALUE")
    return name, value


def annotation_of(text: str) -> tuple[str, str]:
    """Parse a value of --annotation: ``[manifest:]NAME=VALUE``.

    Raises:
        UsageError: it has no name or no value, or is for something else than the image's manifest.
    """
    name, value = pair_of(text, "--annotation")
    kind, colon, rest = name.partition(":")
    if not colon:
        return name, value
    if kind != "manifest" or not rest:
        raise UsageError(
            f"--annotation {text!r}: {kind!r} is not supported", "write manifest:NAME=VALUE, or NAME=VALUE"
        )
    return rest, value


def argument_of(text: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Parse a value of --build-arg; ``NAME`` alone is the caller's variable, None if there is none."""
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"invalid --build-arg {text!r}", "write --build-arg NAME=VALUE")
    if equals:
        return name, value
    return (name, environ[name]) if name in environ else None


def secret_of(text: str, environ: Mapping[str, str]) -> tuple[str, str, str]:
    """Parse a value of --secret: ``id=NAME[,src=FILE|,env=VARIABLE]``; return its id, ``src`` or ``env``, and which."""
    fields = _fields(text, "--secret")
    kind = fields.pop("type", "")
    name = fields.pop("id", "")
    path = fields.pop("src", "") or fields.pop("source", "")
    variable = fields.pop("env", "")
    if fields or not name or (path and variable) or kind not in ("", "file", "env"):
        raise UsageError(f"invalid --secret {text!r}", "write --secret id=NAME,src=FILE or id=NAME,env=VARIABLE")
    if kind == "env" and path:
        path, variable = "", path
    if variable or (not path and kind != "file" and name in environ):
        return name, "env", variable or name
    try:
        os.stat(path or name)
    except OSError as error:
        raise UsageError(f"--secret {text}: {path or name}: {kernel_says(error)}") from error
    return name, "src", path or name


def agent_of(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Parse a value of --ssh: ``default``, or ``NAME=SOCKET``; return the id and the socket's path."""
    name, _, path = text.partition("=")
    path = path or environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise UsageError(f"--ssh {text}: SSH_AUTH_SOCK is not set", "start an agent, or write --ssh NAME=SOCKET")
    import stat

    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        is_socket = False
    if not is_socket:
        raise UsageError(f"--ssh {text}: {path} is not the socket of an agent", "add the key to an agent: ssh-add FILE")
    return name or "default", path


def source_date_epoch(arguments: Mapping[str, str], environ: Mapping[str, str]) -> int | None:
    """Return SOURCE_DATE_EPOCH of the build's arguments, else of the caller; None if it is not set.

    Raises:
        UsageError: it isn't a number of seconds.
    """
    text = arguments.get(EPOCH, environ.get(EPOCH, ""))
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) >= 1 << 36:
        raise UsageError(f"invalid {EPOCH} {text!r}", "write seconds since 1970")
    return int(text)


def check_network(name: str) -> str:
    """Check a value of --network.

    Raises:
        UsageError: it is none of Docker's.
    """
    if name not in NETWORKS:
        raise UsageError(f"unknown --network {name!r}", f"one of {', '.join(NETWORKS)}")
    return name


def _fields(text: str, option: str) -> dict[str, str]:
    import csv

    try:
        words = next(csv.reader([text], strict=True), [])
    except csv.Error:
        raise UsageError(f"invalid {option} {text!r}: a quote has no end") from None
    return dict(word.partition("=")[::2] for word in words)
