"""Layers: unpack, pack and check them; whiteouts, owners, sizes. Blobs and manifests belong in `layout`."""
