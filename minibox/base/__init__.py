"""The foundations: reading and writing files, the format of our state files, locks, and how our programs begin.

Modules here import only `minibox.errors`, `minibox.record` and `minibox.base.json_text`. Code that needs the kernel's
interfaces belongs in `minibox.linux`.
"""
