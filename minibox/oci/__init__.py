"""The types of the OCI specifications, and nothing that acts on them."""
