"""One running command: its execution, streams, terminal, signals and limits. Knows nothing of names or state files."""
