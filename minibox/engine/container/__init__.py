"""The life of one container: launching, running in the foreground or background, ending, removing it. What it looks like
to a user who asks is in `report`; the OCI runtime's containers are in `oci`.
"""
