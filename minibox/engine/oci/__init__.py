"""Containers made from a bundle, as the OCI runtime specification wants it: `minibox-oci create`, `start`, `kill`,
`delete`. What every container needs belongs in `process`; the specification's types are in `minibox.oci`.
"""
