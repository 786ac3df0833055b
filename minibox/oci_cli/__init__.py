"""The command line `minibox-oci`: runc's, for engines such as Podman and containerd. Logic belongs in
`minibox.engine.oci`.
"""
