"""``--device`` in Docker's syntax: ``HOST[:CONTAINER[:rwm]]``."""

from __future__ import annotations

from minibox.docker_words.mounts import destination_path
from minibox.errors import UsageError
from minibox.record import record


@record
class Device:
    """A device of the host, or a directory for all devices in it.

    Attributes:
        path: where the container sees it.
        access: what the container may do, letters of ``rwm``: read, write, mknod.
        word: what the user wrote.
    """

    source: str
    path: str
    access: str
    word: str

    def __str__(self) -> str:
        return self.word


def parse_device(word: str) -> Device:
    """Parse one ``--device``.

    Raises:
        UsageError: the word is invalid.
    """
    parts = word.split(":")
    source = parts[0]
    path, access = source, "rwm"
    if len(parts) == 2 and not parts[1].startswith("/"):
        access = parts[1]
    elif len(parts) >= 2:
        path = parts[1]
        access = parts[2] if len(parts) == 3 else access
    if len(parts) > 3 or not source.startswith("/") or not access or set(access) - set("rwm"):
        raise UsageError(f"invalid device {word!r}", hint="write /dev/NAME[:/dev/NAME-INSIDE[:rwm]]")
    if len(set(access)) != len(access):
        raise UsageError(f"invalid device {word!r}: {access!r} repeats a letter")
    return Device(source, destination_path(path, word), access, word)
