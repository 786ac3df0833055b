"""A container's or an image's root file system, seen from outside: `cp`, `diff`, `commit`, `export`, and the helper
processes that may read it. Unpacking layers belongs in `minibox.image.layer`.

Unpacking layers belongs to `minibox.image`.
"""
