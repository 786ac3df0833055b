"""Access to root file systems from outside: `cp`, `diff`, `commit`, `export`, and their workers.

Unpacking layers belongs to `minibox.image`.
"""
