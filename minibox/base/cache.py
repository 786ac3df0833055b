"""A cache for values that are slow to compute, one file each: marshal, Python's fastest format, behind a checksum.

A damaged file counts as a missing one: no error is reported, and the value is computed again.
"""

from __future__ import annotations

import marshal
import os

from minibox.base.files import read_file, replace_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MARSHAL_VERSION = 4  # read by every Python since 3.4
CHECKSUM_MODULUS = (1 << 61) - 1
CHECKSUM_BYTES = 8
BYTES_MAX = 64 << 20


def read_cache(path: str, key: object) -> Any | None:
    """Return the value that `write_cache` saved for ``key``; None if there is none or the file is damaged."""
    try:
        data = read_file(path, BYTES_MAX)
    except (OSError, ValueError):
        return None
    # marshal trusts its input, so check for damage first. zlib.crc32 would cost an import.
    payload = data[CHECKSUM_BYTES:]
    if not payload or data[:CHECKSUM_BYTES] != _checksum(payload):
        return None
    try:
        kept_key, value = marshal.loads(payload)
    except (ValueError, EOFError, TypeError):
        return None
    return value if kept_key == key else None


def write_cache(path: str, key: object, value: object) -> None:
    """Save a value that marshal can write. It is no error if the file can't be written."""
    entry: Any = key, value
    payload = marshal.dumps(entry, MARSHAL_VERSION)
    if len(payload) > BYTES_MAX - CHECKSUM_BYTES:
        return
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        replace_file(path, _checksum(payload) + payload)
    except (OSError, ValueError):
        return


def _checksum(payload: bytes) -> bytes:
    return (int.from_bytes(payload, "little") % CHECKSUM_MODULUS).to_bytes(CHECKSUM_BYTES, "little")
