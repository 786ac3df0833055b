"""The OCI image layout on disk: blobs, manifests, names, filters. What is inside a layer belongs in `layer`."""
