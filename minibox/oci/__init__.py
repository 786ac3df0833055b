"""The types of the OCI specifications, field for field, and nothing that acts on them."""
