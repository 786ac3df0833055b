"""What everything stands on: small files, paths, locks, JSON, sizes, durations, and how our programs begin. Code that
needs the kernel's interfaces belongs in `minibox.linux`.

Modules here import only `minibox.errors`, `minibox.record` and each other.
"""
