"""The names of a layer's entries, as paths below the layer's root."""

from __future__ import annotations

from minibox.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


#: PATH_MAX of Linux: a longer path can't be used.
PATH_BYTES_MAX = 4096


def split_name(name: bytes) -> list[bytes]:
    """Split an entry's name into components. An absolute name begins at the layer's root.

    Raises:
        StoreError: the name contains ``..`` or a NUL, or is too long.
    """
    if len(name) > PATH_BYTES_MAX:
        raise StoreError(f"the path {ascii(name[:60])}... is longer than {PATH_BYTES_MAX} bytes")
    components = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in components or b"\0" in name:
        raise StoreError(f"entry {ascii(name)} would leave the layer's directory")
    return components


def join(parent: bytes, name: bytes) -> bytes:
    """Join a directory (b"" for the root) and a name."""
    return parent + b"/" + name if parent else name


def prefixes(path: bytes) -> Iterator[bytes]:
    """Yield ``path`` and all directories above it."""
    while path:
        yield path
        path = path.rpartition(b"/")[0]
