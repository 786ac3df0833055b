"""The command line `minibox`: it reads the arguments, calls the engine once, and prints the result."""
