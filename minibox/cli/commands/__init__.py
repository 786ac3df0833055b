"""The commands, a module for each group of them: options in, one call of the engine, the answer printed."""
