"""The OCI image layout on disk: blobs, manifests, names."""
