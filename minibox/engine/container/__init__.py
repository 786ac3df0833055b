"""The life of one container: launch it, run it in the foreground or background, end it, remove it. What users are shown
of it is in `report`; the OCI runtime's containers are in `oci`.
"""
