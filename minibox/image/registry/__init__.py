"""A client for registries: pull, push, log in, by OCI distribution-spec 1.1. Never used by a start."""
