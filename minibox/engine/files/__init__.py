"""Root file systems seen from outside: `cp`, `diff`, `commit`, `export`, and the workers that may read them. Unpacking
layers is `minibox.image`'s.
"""
