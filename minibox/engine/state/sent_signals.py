"""The signals that minibox sent to a container, and who asked for them: ``root/containers/<id>/signals``, a line each.

`engine.report.why` uses them to tell minibox's signals from others.
"""

from __future__ import annotations

import os

from minibox.base import damage
from minibox.base.codec import BYTES_MAX, FileKind, damage_of, plain
from minibox.base.files import closing, open_to_append, read_file
from minibox.base.shape import moment
from minibox.errors import Unreadable, suppress
from minibox.record import record

SIGNAL = FileKind(
    "signal", {"Number": int, "Why": str, "User": str, "Time": moment, "OOMKills?": int}, before=plain, indented=False
)
STOP, KILL, HEALTH = "stop", "kill", "health check"  # why


@record
class SentSignal:
    """One signal.

    Attributes:
        number: of the signal; 0 for a failed health check that is about to stop or restart the container.
        why: `STOP`, `KILL` or `HEALTH`.
        user: the name of the user who asked for it.
        time: seconds since the epoch.
        oom_kills: how many of the container's processes the kernel had killed by then because they ran out of memory;
            -1 if unknown.
    """

    number: int
    why: str
    user: str
    time: float
    oom_kills: int = -1


def _path(root: str, container_id: str) -> str:
    return f"{root}/containers/{container_id}/signals"


def note_signal(root: str, container_id: str, number: int, why: str, oom_kills: int) -> None:
    """Write down a signal, as in `SentSignal`, before you send it. It is lost if the container is being removed."""
    from time import time

    line = SIGNAL.encode({"Number": number, "Why": why, "User": _user(), "Time": time(), "OOMKills": oom_kills})
    try:
        fd = open_to_append(_path(root, container_id))
    except OSError:
        return
    with closing(fd), suppress(OSError):  # the disk is full: the signal must be sent anyway
        if os.fstat(fd).st_size + len(line) <= BYTES_MAX:
            os.write(fd, line)


def _user() -> str:
    from pwd import getpwuid

    uid = os.getuid()
    try:
        name = getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    behind = os.environ.get("SUDO_USER", "")
    return f"{behind} as {name}" if uid == 0 and behind not in ("", name) else name


def sent_signals(root: str, container_id: str, since: float) -> list[SentSignal]:
    """The signals sent since a time, oldest first."""
    path, found = _path(root, container_id), []
    try:
        lines = read_file(path, BYTES_MAX).split(b"\n")
    except OSError as error:
        if wrong := damage_of(error, path):
            damage.tell(wrong)
        return []
    for line in lines[:-1]:  # the last element is empty, or half a line
        try:
            entry = SIGNAL.decode(line, path)
        except Unreadable as error:
            damage.tell(error)
            continue
        if entry["Time"] >= since:
            number, why, user, time = entry["Number"], entry["Why"], entry["User"], entry["Time"]
            found.append(SentSignal(number, why, user, time, entry.get("OOMKills", -1)))
    return found
