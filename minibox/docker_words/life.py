"""``--restart`` and ``--log-opt``, in Docker's syntax."""

from __future__ import annotations

from minibox.base.sizes import parse_size
from minibox.errors import UsageError
from minibox.record import record


@record
class RestartPolicy:
    """When a container is started again.

    Attributes:
        name: no, always, unless-stopped or on-failure.
        attempts: the limit of on-failure; None: no limit.
        word: what the user wrote.
    """

    name: str
    attempts: int | None
    word: str

    def __str__(self) -> str:
        return self.word


def parse_restart(word: str) -> RestartPolicy:
    """Parse ``--restart``; "" is no.

    Raises:
        UsageError: the word is invalid.
    """
    policy, colon, attempts = word.partition(":")
    if policy not in ("", "no", "always", "unless-stopped", "on-failure") or (colon and policy != "on-failure"):
        raise UsageError(f"invalid restart policy {word!r}", "use no, always, unless-stopped or on-failure[:N]")
    if colon and not (attempts.isascii() and attempts.isdigit()):
        raise UsageError(f"invalid restart policy {word!r}: the limit must be a number", "write it like on-failure:5")
    return RestartPolicy(policy or "no", int(attempts) if colon else None, word)


@record
class LogOption:
    """One option of the log.

    Attributes:
        name: max-size or max-file.
        value: bytes, 0 for no limit; or a number of files.
        word: what the user wrote.
    """

    name: str
    value: int
    word: str

    def __str__(self) -> str:
        return self.word


def parse_log_option(word: str) -> LogOption:
    """Parse one ``--log-opt``.

    Raises:
        UsageError: the option is unknown or its value is invalid.
    """
    name, _, value = word.partition("=")
    if name == "max-size":
        return LogOption(name, 0 if value == "-1" else parse_size(value), word)
    if name == "max-file" and value.isascii() and value.isdigit() and int(value) > 0:
        return LogOption(name, int(value), word)
    raise UsageError(f"invalid log option {word!r}", "use max-size=10m or max-file=3")
