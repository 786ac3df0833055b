"""Kinds of verdicts on a container, of which most are kinds of ends that it comes to. On the hot path."""

# Its command or a limit is the cause.
EXITED, SIGNAL, CRASHED = "exited", "signal", "crashed"
OUT_OF_MEMORY, CPU_TIME, WALL_TIME = "out-of-memory", "cpu-time", "wall-time"
PROCESSES, OUTPUT, FILE_SIZE, DISK = "processes", "output", "file-size", "disk"
LIMITS = frozenset((OUT_OF_MEMORY, CPU_TIME, WALL_TIME, PROCESSES, OUTPUT, FILE_SIZE, DISK))
# It hasn't ended, or by something else.
RUNNING, PAUSED, RESTARTING, CREATED = "running", "paused", "restarting", "created"
NOT_STARTED, STOPPED, KILLED = "not-started", "stopped", "killed"
UNHEALTHY, OWNER_KILLED, DAMAGED = "unhealthy", "owner-killed", "damaged"
