"""Ask the kernel's log which processes it killed because memory ran out. Only root may read the log."""

from __future__ import annotations

import os
import re

KMSG = "/dev/kmsg"
INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # linux/proc_ns.h: the log has the pids of this namespace
KILLED = re.compile(rb"Killed process (\d+) ")  # mm/oom_kill.c, for a cgroup's limit and the machine's
RECORD_BYTES = 8192
EARLIER_S = 1.0  # clocks differ


def was_killed(pid: int, ran_s: float) -> bool | None:
    """Did the kernel kill this process because memory ran out? None if unknown.

    Args:
        pid: of a process that has just ended.
        ran_s: how long it ran.
    """
    from time import monotonic

    since_us = (monotonic() - ran_s - EARLIER_S) * 1e6
    try:
        if os.stat("/proc/self/ns/pid").st_ino != INITIAL_PID_NAMESPACE:
            return None
        fd = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    first_us = None
    try:
        while True:
            try:
                head, _, text = os.read(fd, RECORD_BYTES).partition(b";")
            except BlockingIOError:
                break
            except BrokenPipeError:  # the kernel overwrote this record
                continue
            time_us = int(head.split(b",")[2])
            first_us = time_us if first_us is None else first_us
            found = KILLED.search(text)
            if found and int(found[1]) == pid and time_us >= since_us:
                return True
    except (OSError, ValueError, IndexError):
        return None
    finally:
        os.close(fd)
    return False if first_us is not None and first_us < since_us else None
