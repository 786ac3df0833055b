"""Layers: unpacking and packing them, and the trees of files that they make."""
