"""The life of one container: start, run in the foreground or the background, exec, attach, stop, remove. How a process
runs belongs in `process`, a container's files in `state`, and what `ps` and `inspect` show in `report`.
"""
