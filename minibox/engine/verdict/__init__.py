"""Judge why a command ended: facts in, verdict out. Pure functions, except that `oom_log` reads the kernel's log."""
