"""The files that tell of a container: state, claim, names, ports, events. No container is started or ended here."""
