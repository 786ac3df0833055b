"""Kill all that a command has left behind in its container: its children, its session, and who holds its pipes."""

from __future__ import annotations

import os

from minibox.base.files import closing, text_of
from minibox.errors import suppress
from minibox.linux.cgroup.usage_meter import descendants
from minibox.linux.process import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

ROUNDS_MAX = 100  # a program that makes processes faster than we kill them isn't chased for ever
STATE, SESSION, STARTED = 0, 3, 19  # fields of proc_pid_stat(5), counted behind the name


def kill(leader: int, has_ended: Callable[[], bool], others: Iterable[int], pipes: Collection[int] = ()) -> None:
    """Kill what descends from ``leader``, is in its session or has one of its pipes, until nothing is left.

    A process that has left the session, has lost its parent and has closed the pipes can't be told from those of other
    commands: it lives on.

    Args:
        has_ended: says whether the leader has; then its number may be another process's.
        others: the first process of the container, and its other commands: where processes go that lose their parent.
        pipes: the inodes of pipes that were made for this command alone.
    """
    roots = tuple(others)
    for _ in range(ROUNDS_MAX):
        own = set(descendants(leader))
        if has_ended():
            own.clear()
        strays = {pid for root in roots for pid in descendants(root) if pid not in roots} - own
        found = {pid: started for pid in own if (started := _started(pid))}
        found |= {
            pid: started
            for pid in strays
            if (started := _started(pid)) and (_session(pid) == leader or _has_pipe(pid, pipes))
        }
        if not found:
            return
        for pid, started in found.items():
            with suppress(OSError), closing(os.pidfd_open(pid)) as pidfd:
                if _started(pid) == started:  # still the same process: its number may have been reused before
                    _send(pidfd)


def _send(pidfd: int) -> None:
    from signal import pidfd_send_signal  # off the hot path

    pidfd_send_signal(pidfd, SIGKILL)


def _fields(pid: int) -> list[str]:
    return text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _started(pid: int) -> str:
    """Return when it was started, to recognize it; "" if it has ended."""
    fields = _fields(pid)
    return fields[STARTED] if len(fields) > STARTED and fields[STATE] not in "ZX" else ""


def _session(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[SESSION]) if len(fields) > SESSION else 0


def _has_pipe(pid: int, pipes: Collection[int]) -> bool:
    """Has it one of the pipes open? Descriptors are shared by its threads, unless it asked for its own."""
    if not pipes:
        return False
    wanted = {f"pipe:[{inode}]" for inode in pipes}
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}") in wanted:
                    return True
    except OSError:
        pass  # it has ended
    return False
