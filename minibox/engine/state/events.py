"""Events of containers, images, networks and volumes: ``runroot/events``, one line of JSON each, with Docker's names.

Source: https://docs.docker.com/reference/cli/docker/system/events/. Since every start writes events, writing one takes
only an open, a write and a close, with no lock and no import: a write to a file opened with O_APPEND is appended in one
piece. As with Docker, events are lost at a reboot and old ones are dropped.
"""

from __future__ import annotations

import os
from time import time_ns

from minibox.base.directories import claim_directory
from minibox.base.files import close_descriptors, closing, open_to_append, open_to_read
from minibox.base.json_text import dumps
from minibox.base.values import has_label
from minibox.errors import UnsafeDirectory, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from minibox.docker_words.filters import Filter

    Event = dict[str, Any]

FILE = "events"
BYTES_MAX = 4 << 20  # then the file is rotated; one old file is kept
CONTAINER, IMAGE, NETWORK, VOLUME = "container", "image", "network", "volume"
KEYS = ("container", "daemon", "event", "image", "label", "network", "scope", "type", "volume")
POLL_S = 0.1
LOCK_EX = 2
_READ_BYTES = 1 << 18


def note(runroot: str, kind: str, actor: str, attributes: Mapping[str, str], *actions: str) -> None:
    """Write one event for each of ``actions``, in this order. An event that can't be written is lost without an error.

    Args:
        runroot: "" to write nothing.
        kind: the actor's: `CONTAINER`, `IMAGE`, `NETWORK` or `VOLUME`.
        actor: the id of the container, image or network, or the name of the volume.
        attributes: of the actor and the actions: name, image, exitCode, signal ...
    """
    if not runroot:
        return
    path = f"{runroot}/{FILE}"
    lines = "".join([line(kind, actor, attributes, action, time_ns()) for action in actions]).encode()
    with suppress(OSError, UnsafeDirectory):  # the disk is full or read-only, or the directory has become another's
        try:
            fd = open_to_append(path)
        except FileNotFoundError:
            claim_directory(runroot)
            fd = open_to_append(path)
        with closing(fd):
            os.write(fd, lines)
            if os.lseek(fd, 0, os.SEEK_CUR) > BYTES_MAX:
                _rotate(path, fd)


def note_container(runroot: str, container: Mapping[str, Any], *actions: str, **more: str) -> None:
    """`note` for a container, given its state. Its labels become attributes, too."""
    note(runroot, CONTAINER, container["Id"], {**attributes_of(container), **more}, *actions)


def attributes_of(container: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of each event of a container, given its state."""
    config = container.get("Config")
    labels = config.get("Labels") if isinstance(config, dict) else None
    return {
        **(labels if isinstance(labels, dict) else {}),
        "image": str(container.get("Image", "")),
        "name": str(container.get("Name", "")),
    }


def note_image(runroot: str, image_id: str, name: str, action: str) -> None:
    """`note` for an image."""
    note(runroot, IMAGE, image_id, {"name": name}, action)


def note_volume(runroot: str, name: str, action: str) -> None:
    """`note` for a volume."""
    note(runroot, VOLUME, name, {"driver": "local"}, action)


def note_network(runroot: str, network_id: str, name: str, action: str, **more: str) -> None:
    """`note` for a network."""
    note(runroot, NETWORK, network_id, {"name": name, "type": "bridge", **more}, action)


def line(kind: str, actor: str, attributes: Mapping[str, str], action: str, moment_ns: int) -> str:
    """An event as a line of JSON. It avoids `json`, which takes too long to import."""
    texts = {key: str(value) for key, value in attributes.items()}
    event = {"Type": kind, "Action": action, "Actor": {"ID": actor, "Attributes": texts}, "timeNano": moment_ns}
    return dumps(event, "") + "\n"


def _rotate(path: str, fd: int) -> None:
    """Rename the file, unless another process has done so already: so the lock is on our open file, not on the path."""
    import fcntl

    fcntl.flock(fd, LOCK_EX)
    if os.stat(path).st_ino == os.fstat(fd).st_ino:
        os.rename(path, f"{path}.1")


# ---- reading ------------------------------------------------------------------------------------


def parse_event_filters(words: Sequence[str]) -> list[Filter]:
    """Parse the filters of `events`.

    Raises:
        UsageError: one isn't KEY=VALUE, or has an unknown key.
    """
    from minibox.docker_words.filters import parse_filters

    return parse_filters(words, KEYS)


def read(
    runroot: str, *, since_s: float | None = None, until_s: float | None = None, filters: Sequence[Filter] = ()
) -> Iterator[Event]:
    """Yield past events in order, in Docker's format, then wait for new ones.

    Args:
        since_s: the start, in seconds since 1970; None means now.
        until_s: the end; None waits for ever.
    """
    from time import time

    since_ns = time_ns() if since_s is None else int(since_s * 1e9)
    until_ns = None if until_s is None else int(until_s * 1e9)
    for text in _lines(runroot, lambda: until_s is not None and time() > until_s):
        event = _parse(text)
        if event is None or event["timeNano"] < since_ns:
            continue
        if until_ns is not None and event["timeNano"] > until_ns:
            return
        if fits(event, filters):
            yield event


def _lines(runroot: str, is_over: Any) -> Iterator[bytes]:
    """Yield the lines of the old file and of the new one, then each new line, until ``is_over`` returns true."""
    from time import sleep

    path = f"{runroot}/{FILE}"
    current, old = _open(path), _open(f"{path}.1")
    try:
        # If it was renamed between the two calls, both are the same file.
        if old >= 0 and (current < 0 or not os.path.sameopenfile(old, current)):
            yield from _Tail(old).lines()
        tail = _Tail(current) if current >= 0 else None
        while True:
            over = is_over()  # ask before the last read
            if tail:
                yield from tail.lines()
            found = _open(path)
            if found >= 0 and (current < 0 or not os.path.sameopenfile(found, current)):
                if tail:
                    yield from tail.lines()
                    os.close(current)
                current, tail = found, _Tail(found)
                continue
            if found >= 0:
                os.close(found)
            if over:
                return
            sleep(POLL_S)
    finally:
        close_descriptors(current, old)


class _Tail:
    """The whole lines of a growing file."""

    def __init__(self, fd: int) -> None:
        self._fd, self._rest = fd, b""

    def lines(self) -> Iterator[bytes]:
        """Yield the lines added since the last call."""
        while data := os.read(self._fd, _READ_BYTES):
            *whole, self._rest = (self._rest + data).split(b"\n")
            yield from whole


def _open(path: str) -> int:
    try:
        return open_to_read(path)
    except OSError:
        return -1


def _parse(text: bytes) -> Event | None:
    """Convert a line to Docker's events.Message; return None for half a line, which a full disk leaves."""
    from json import loads

    try:
        found = loads(text)
        kind, action, actor, moment_ns = found["Type"], found["Action"], found["Actor"], int(found["timeNano"])
        attributes = {str(key): str(value) for key, value in actor["Attributes"].items()}
        old: Event = {"status": action, "id": actor["ID"]} if kind != VOLUME else {}
        if kind == CONTAINER:
            old["from"] = attributes.get("image", "")
        return {
            **old,
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor["ID"], "Attributes": attributes},
            "scope": "local",
            "time": moment_ns // 10**9,
            "timeNano": moment_ns,
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def fits(event: Event, filters: Sequence[Filter]) -> bool:
    """Does an event match the filters? Of several filters with one key one must match; of ``label`` filters, all."""
    for key in {each.key for each in filters}:
        values = [each.value for each in filters if each.key == key]
        if not (all if key == "label" else any)(_fits(event, key, value) for value in values):
            return False
    return True


def _fits(event: Event, key: str, value: str) -> bool:
    kind, actor, attributes = event["Type"], event["Actor"]["ID"], event["Actor"]["Attributes"]
    if key == "event":
        return value in (event["Action"], event["Action"].partition(":")[0])
    if key == "type":
        return bool(kind == value)
    if key == "label":
        return has_label(attributes, value)
    if key == "image":
        names = [actor, attributes.get("name", "")] if kind == IMAGE else [attributes.get("image", "")]
        return any(each in (value, f"{value}:latest") or each.rpartition(":")[0] == value for each in names)
    if key in (CONTAINER, VOLUME, "network"):
        return bool(kind == key and (actor.startswith(value) or attributes.get("name") == value))
    return key == "scope" and value == "local"
