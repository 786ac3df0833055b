"""The door of engines: `minibox-oci`, with runc's command line."""
