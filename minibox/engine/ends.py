"""Kinds of ends that a container comes to: those that its command or a limit is the cause of. On the hot path."""

EXITED, SIGNAL, CRASHED = "exited", "signal", "crashed"
OUT_OF_MEMORY, CPU_TIME, WALL_TIME = "out-of-memory", "cpu-time", "wall-time"
PROCESSES, OUTPUT, FILE_SIZE, DISK = "processes", "output", "file-size", "disk"
LIMITS = frozenset((OUT_OF_MEMORY, CPU_TIME, WALL_TIME, PROCESSES, OUTPUT, FILE_SIZE, DISK))
