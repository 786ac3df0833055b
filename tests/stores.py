"""What tests do to an image store that no command of minibox does alone."""

from __future__ import annotations

import hashlib

from minibox.image.layout.layout import Layout, ref_name


def add_blob(layout: Layout, data: bytes) -> str:
    """Add a blob that no manifest refers to, and return its digest."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    with layout.new_blob() as file:
        file.write(data)
        layout.keep_blob(file, digest)
    return digest


def remove_name(layout: Layout, name: str) -> None:
    """Remove a name from the index, and nothing else."""
    assert name in layout.names()
    layout.change(lambda items: [item for item in items if ref_name(item) != name])
