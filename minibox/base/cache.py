"""What can be made anew, kept in a file because that takes time: in marshal, the quickest that Python has, behind a checksum.

Whatever is wrong with such a file, there is none: nobody is told, and it is made again.
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
    """What `write_cache` kept for ``key``; None when there is none or it is damaged."""
    try:
        data = read_file(path, BYTES_MAX)
    except (OSError, ValueError):
        return None
    # marshal trusts its input, so damage is found before it looks; zlib.crc32 would be an import.
    payload = data[CHECKSUM_BYTES:]
    if not payload or data[:CHECKSUM_BYTES] != _checksum(payload):
        return None
    try:
        kept_key, value = marshal.loads(payload)
    except (ValueError, EOFError, TypeError):
        return None
    return value if kept_key == key else None


def write_cache(path: str, key: object, value: object) -> None:
    """Keep a value that marshal can write; a cache that can't be written is no error."""
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
