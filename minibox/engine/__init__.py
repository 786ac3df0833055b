"""From an image and options to a running container, and to its end. The rooms: each says what belongs in it.

    report | upkeep | oci -> container -> files | resources -> process | verdict -> spec -> state -> host

The Python API, the command lines and pytest call these; nothing here prints, exits or parses a command line.
"""
