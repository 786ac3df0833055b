"""The kinds of verdicts on a container; most are kinds of ends. On the hot path: imports nothing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Its command or a limit ended it.
EXITED: Final = "exited"
SIGNAL: Final = "signal"
CRASHED: Final = "crashed"
OUT_OF_MEMORY: Final = "out-of-memory"
CPU_TIME: Final = "cpu-time"
WALL_TIME: Final = "wall-time"
PROCESSES: Final = "processes"
OUTPUT: Final = "output"
FILE_SIZE: Final = "file-size"
DISK: Final = "disk"
LIMITS = frozenset((OUT_OF_MEMORY, CPU_TIME, WALL_TIME, PROCESSES, OUTPUT, FILE_SIZE, DISK))
# It hasn't ended, or something else ended it.
RUNNING: Final = "running"
PAUSED: Final = "paused"
RESTARTING: Final = "restarting"
CREATED: Final = "created"
NOT_STARTED: Final = "not-started"
STOPPED: Final = "stopped"
KILLED: Final = "killed"
UNHEALTHY: Final = "unhealthy"
OWNER_KILLED: Final = "owner-killed"
DAMAGED: Final = "damaged"
