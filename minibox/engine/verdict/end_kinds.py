"""The kinds of verdicts on a container; most are kinds of ends. On the hot path: imports nothing."""

# Its command or a limit ended it.
EXITED, SIGNAL, CRASHED = "exited", "signal", "crashed"
OUT_OF_MEMORY, CPU_TIME, WALL_TIME = "out-of-memory", "cpu-time", "wall-time"
PROCESSES, OUTPUT, FILE_SIZE, DISK = "processes", "output", "file-size", "disk"
LIMITS = frozenset((OUT_OF_MEMORY, CPU_TIME, WALL_TIME, PROCESSES, OUTPUT, FILE_SIZE, DISK))
# It hasn't ended, or something else ended it.
RUNNING, PAUSED, RESTARTING, CREATED = "running", "paused", "restarting", "created"
NOT_STARTED, STOPPED, KILLED = "not-started", "stopped", "killed"
UNHEALTHY, OWNER_KILLED, DAMAGED = "unhealthy", "owner-killed", "damaged"
