"""The command line: arguments in, one call of the engine, and what it gives rendered."""
