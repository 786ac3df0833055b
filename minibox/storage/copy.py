"""Snapshots as copies: works on every file system, and without any privilege.

Layers of one image share what is alike by hard links, since nobody writes to them; a container gets
files of its own. Where the file system can (btrfs, xfs), these share their blocks with the layer's
until one of them is written (reflink); elsewhere all is copied.
"""

from __future__ import annotations

from minibox.storage.clone import clone, make_directory
from minibox.storage.tree import Trees


class Copy(Trees):
    """The snapshotter of copied trees under ``root``."""

    driver = "copy"

    def _begin_layer(self, parent: str, path: str) -> None:
        if parent:
            clone(parent, path, share=True)
        else:
            make_directory(path)

    def _clone(self, layer: str, path: str) -> None:
        clone(layer, path)
