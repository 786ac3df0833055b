"""How large the files of a layer are, as its tar says it: the same whatever storage driver unpacks it, and before.

Noted when a layer is unpacked, else found out once by reading its blob.
"""

from __future__ import annotations

import os

from minibox.base.files import open_to_read, replace_link
from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.image.layout import Layout


def note(root: str, chain_id: str, size_bytes: int) -> None:
    """Keep it for `layer_size`; that it can't be is no error."""
    path = note_path(root, chain_id)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        replace_link(path, str(size_bytes))
    except OSError:
        return


def layer_size(layout: Layout, chain_id: str, digest: str) -> int:
    """Bytes of all regular files of a layer, each name's once; 0 when its blob isn't there or damaged.

    Args:
        digest: of its blob.
    """
    try:
        kept = os.readlink(note_path(layout.root, chain_id))
        if kept.isdigit():
            return int(kept)
    except OSError:
        pass
    try:
        size_bytes = _of_blob(layout.blob_path(digest))
    except (OSError, MiniboxError):
        return 0
    note(layout.root, chain_id, size_bytes)
    return size_bytes


def note_path(root: str, chain_id: str) -> str:
    """Where it is kept."""
    return f"{root}/cache/size/{chain_id[7:]}"


def _of_blob(path: str) -> int:
    from minibox.image.compression import Pump
    from minibox.image.tar import TarReader

    size_bytes = 0
    with open(open_to_read(path), "rb", buffering=0) as blob, Pump(blob) as pump:
        reader = TarReader(pump.read_chunk)
        while (entry := reader.next()) is not None:
            size_bytes += entry.size
    return size_bytes
