"""A container's files: its config, claim, names, ports, events and exit. Nothing here starts or ends a container."""
