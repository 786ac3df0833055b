"""One running command: its execution, streams, terminal, signals and limits. Names and state files are in `state`."""
