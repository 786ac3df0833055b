"""`minibox-oci`: an OCI runtime for engines such as Podman and containerd, with runc's command line."""
