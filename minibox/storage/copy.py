"""Snapshots as copies: works on every file system, and needs no privilege.

Layers of an image share equal files through hard links, since nobody writes to them. A container gets its own files.
If the file system supports reflinks (btrfs, xfs), they share their blocks with the layer's until one of them is
written; otherwise everything is copied.
"""

from __future__ import annotations

from minibox.storage.clone import clone, make_directory
from minibox.storage.tree import Trees


class Copy(Trees):
    """Keeps snapshots as copied trees under ``root``."""

    driver = "copy"

    def _begin_layer(self, parent: str, path: str) -> None:
        if parent:
            clone(parent, path, share=True)
        else:
            make_directory(path)

    def _clone(self, layer: str, path: str) -> None:
        clone(layer, path)
