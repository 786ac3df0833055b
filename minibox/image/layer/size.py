"""The size of a layer's files, from its tar: the same for all storage drivers, and known before unpacking.

It is recorded when the layer is unpacked; otherwise we read the blob once.
"""

from __future__ import annotations

import os

from minibox.base.files import open_to_read, replace_link
from minibox.errors import MiniboxError, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.image.layout.layout import Layout


def note(root: str, chain_id: str, size_bytes: int) -> None:
    """Record the size for `layer_size`. It is no error if that fails."""
    path = note_path(root, chain_id)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        replace_link(path, str(size_bytes))
    except OSError:
        return


def noted(root: str, chain_id: str) -> int | None:
    """Return what `note` has recorded; None if nothing."""
    with suppress(OSError):
        kept = os.readlink(note_path(root, chain_id))
        if kept.isdigit():
            return int(kept)
    return None


def layer_size(layout: Layout, chain_id: str, digest: str) -> int:
    """Return the bytes of all regular files of a layer, hard links once; 0 if its blob is missing or damaged.

    Args:
        digest: the digest of its blob.
    """
    if (kept := noted(layout.root, chain_id)) is not None:
        return kept
    try:
        size_bytes = _of_blob(layout.blob_path(digest))
    except (OSError, MiniboxError):
        return 0
    note(layout.root, chain_id, size_bytes)
    return size_bytes


def note_path(root: str, chain_id: str) -> str:
    """Return the path of the record."""
    return f"{root}/cache/size/{chain_id[7:]}"


def _of_blob(path: str) -> int:
    from minibox.image.layer.compression import Pump
    from minibox.image.layer.tar import TarReader

    size_bytes = 0
    with open(open_to_read(path), "rb", buffering=0) as blob, Pump(blob) as pump:
        reader = TarReader(pump.read_chunk)
        while (entry := reader.next()) is not None:
            size_bytes += entry.size
    return size_bytes
