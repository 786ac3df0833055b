"""What everything else stands on: files and their codec, locks, limits, the state that a program begins in.

It imports nothing of minibox but `minibox.errors`, `minibox.record` and `minibox.json_text`; what needs the kernel's
interfaces belongs to `minibox.linux`.
"""
