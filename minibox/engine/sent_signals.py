"""The signals that minibox has sent a container, and for whom: `engine.verdict` tells them from others.

One JSON object a line in ``root/containers/<id>/signals``.
"""

from __future__ import annotations

import os

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STOP, KILL, HEALTH = "stop", "kill", "health check"  # why


@record
class SentSignal:
    """One signal.

    Attributes:
        number: of the signal; 0 for a health check that failed, and is going to stop or to restart.
        why: `STOP`, `KILL` or `HEALTH`.
        user: who asked for it, by name.
        time: seconds since the epoch.
    """

    number: int
    why: str
    user: str
    time: float


def _path(root: str, container_id: str) -> str:
    return f"{root}/containers/{container_id}/signals"


def note_signal(root: str, container_id: str, number: int, why: str) -> None:
    """Write down a signal that is going to be sent; a container that is being removed keeps none."""
    from json import dumps
    from time import time

    line = dumps({"Number": number, "Why": why, "User": _user(), "Time": time()}) + "\n"
    try:
        fd = os.open(_path(root, container_id), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        os.write(fd, line.encode())
    except OSError:
        pass  # a full disk: the container shall end all the same
    finally:
        os.close(fd)


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
    """Those sent since a time, oldest first."""
    from json import loads

    found = []
    try:
        with open(_path(root, container_id), encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    except OSError:
        return []
    for line in lines:
        try:
            entry: dict[str, Any] = loads(line)
            sent = SentSignal(int(entry["Number"]), str(entry["Why"]), str(entry["User"]), float(entry["Time"]))
        except (ValueError, KeyError, TypeError):
            continue  # half a line
        if sent.time >= since:
            found.append(sent)
    return found
