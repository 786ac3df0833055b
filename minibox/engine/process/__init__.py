"""One running command, from its first step to its exit: streams, terminal, signals, hooks, limits. Names, restarts and
removal belong in `container`.
"""
