"""The files about a container: state, claim, name, ports, events. Nothing here starts or ends a container."""
