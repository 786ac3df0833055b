"""Devices in Docker's syntax: ``--device HOST[:CONTAINER[:rwm]]``, their limits ``PATH:NUMBER``, and rules of the cgroup."""

from __future__ import annotations

from minibox.base.sizes import parse_size
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


@record
class DeviceLimit:
    """A limit of what a container reads from a disk or writes to it, or its weight there.

    Attributes:
        path: the disk, on the host.
        number: bytes or operations a second, or a weight.
        word: what the user wrote.
    """

    path: str
    number: int
    word: str

    def __str__(self) -> str:
        return self.word


def parse_device_bps(word: str) -> DeviceLimit:
    """Parse ``PATH:SIZE``, bytes a second.

    Raises:
        UsageError: the word is invalid.
    """
    path, text = _path_and_number(word, "/dev/sda:1mb")
    try:
        return DeviceLimit(path, parse_size(text), word)
    except UsageError:
        raise UsageError(f"invalid rate {word!r}: {text!r} is not a size", "write bytes a second as 1mb") from None


def parse_device_iops(word: str) -> DeviceLimit:
    """Parse ``PATH:NUMBER``, operations a second.

    Raises:
        UsageError: the word is invalid.
    """
    path, text = _path_and_number(word, "/dev/sda:1000")
    if not (text.isascii() and text.isdecimal()) or len(text) > 19:
        raise UsageError(f"invalid rate {word!r}: {text!r} is not a number", "write operations a second as 1000")
    return DeviceLimit(path, int(text), word)


def parse_device_weight(word: str) -> DeviceLimit:
    """Parse ``PATH:WEIGHT``.

    Raises:
        UsageError: the word is invalid.
    """
    path, text = _path_and_number(word, "/dev/sda:500")
    if not (text.isascii() and text.isdecimal()) or not (text == "0" or 10 <= int(text[:9]) <= 1000):
        raise UsageError(f"invalid weight {word!r}: {text!r} is not a weight", "from 10 to 1000")
    return DeviceLimit(path, int(text), word)


def _path_and_number(word: str, example: str) -> tuple[str, str]:
    path, _, text = word.rpartition(":")
    if not path.startswith("/dev/"):
        raise UsageError(f"invalid device limit {word!r}", f"write {example}")
    return path, text


@record
class DeviceRule:
    """What a container may do with devices, beside those that it is given; an entry of devices.allow.

    Attributes:
        type: ``c``, ``b``, or ``a`` for both.
        major, minor: -1 for all.
        access: letters of ``rwm``: read, write, mknod.
        word: what the user wrote.
    """

    type: str
    major: int
    minor: int
    access: str
    word: str

    def __str__(self) -> str:
        return self.word


def parse_device_rule(word: str) -> DeviceRule:
    """Parse one ``--device-cgroup-rule``: ``c 1:3 mr``.

    Raises:
        UsageError: the word is invalid.
    """
    parts = word.split(" ")
    kind, numbers, access = parts if len(parts) == 3 else ("", "", "")
    major, colon, minor = numbers.partition(":")
    known = all(each == "*" or (each.isascii() and each.isdecimal() and len(each) < 11) for each in (major, minor))
    if kind not in ("a", "b", "c") or not colon or not known or not access or set(access) - set("rwm"):
        raise UsageError(f"invalid device cgroup rule {word!r}", "write it as 'c 1:3 rwm', with * for all numbers")
    return DeviceRule(kind, -1 if major == "*" else int(major), -1 if minor == "*" else int(minor), access, word)
