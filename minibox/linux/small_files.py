"""Read and write many small files of a directory in one call."""

from __future__ import annotations

import os
import stat
import struct

from minibox._native import ffi, lib
from minibox.linux.listing import RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: The size of the largest file that counts as small.
SMALL_BYTES: int = lib.MB_SMALL_BYTES
BUFFER_BYTES = 1 << 20
FILES_MAX = 256
FOUND = struct.Struct(f"{RECORD.size}sI4x")  # struct mb_small_file of native/extension/small_files.h
NEW = struct.Struct("=qIIII")  # struct mb_new_file: mtime in ns, mode, uid, gid, size
new_uncleared = ffi.new_allocator(should_clear_after_alloc=False)


def is_small_file(record: bytes) -> bool:
    """Tell whether a file looks like one that `read_small_files` reads, by its record."""
    fields = RECORD.unpack(record)
    return fields[2] <= SMALL_BYTES and stat.S_ISREG(fields[5]) and fields[8] == 1


def read_small_files(dir_fd: int, names: Sequence[str]) -> Iterator[tuple[bytes, bytes] | None]:
    """Yield the record (`listing.RECORD`) and the content of each file, in order. Links are not followed.

    None stands for a file that isn't plain: it isn't there or can't be read, is larger than `SMALL_BYTES`, isn't a regular
    file, has several names or extended attributes, or was changed while we read it. Read that one by itself.

    Don't call this where others may put a device in the place of a file: opening one may do something.
    """
    found = ffi.new("struct mb_small_file[]", min(FILES_MAX, len(names)))
    size = min(BUFFER_BYTES, SMALL_BYTES * len(names))
    buffer = new_uncleared("char[]", size)
    begin = 0
    while begin < len(names):
        some = names[begin : begin + FILES_MAX]
        count = lib.mb_read_small_files(dir_fd, os.fsencode("\0".join(some)), len(some), found, buffer, size)
        begin += count
        at, content = 0, ffi.buffer(buffer, size)
        for record, is_plain in FOUND.iter_unpack(ffi.buffer(found, count * FOUND.size)):
            if not is_plain:
                yield None
                continue
            end = at + RECORD.unpack(record)[2]
            yield record, content[at:end]
            at = end


def write_small_files(
    dir_fd: int, names: Sequence[bytes], files: Sequence[tuple[int, int, int, int]], contents: Sequence[bytes]
) -> int:
    """Make files in a directory, and return how many were made.

    The next one exists, was refused by the kernel, or inherits extended attributes; nothing is left of it. Write that one
    by itself.

    Args:
        files: for each its mtime in ns, mode, uid and gid; 2**32 - 1 for both ids keeps those of this process.
    """
    new = b"".join([NEW.pack(*file, len(content)) for file, content in zip(files, contents)])
    made: int = lib.mb_write_small_files(
        dir_fd, b"\0".join(names), len(names), ffi.from_buffer("struct mb_new_file[]", new), b"".join(contents)
    )
    return made
