"""Carrying out one line on the engine: its container, its mounts, its files. Which lines there are, and what is found in
the cache, belongs above.
"""
