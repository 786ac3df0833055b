"""Containers of engines: from a bundle, by the OCI runtime specification's life cycle, without an owner of minibox's."""
