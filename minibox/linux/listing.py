"""List a directory with the status of each file, in one call for hundreds of files."""

from __future__ import annotations

import os
import struct

from minibox._native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: struct mb_file of native/extension/list.h: device, inode, size, mtime and ctime in ns, mode, uid, gid, links, rdev
RECORD = struct.Struct("=QQQqqIIIIQ")


def list_directory(fd: int) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the record of each file in an open directory, in no particular order.

    A record is 64 bytes, `RECORD`; two records of a file are equal as long as nothing about it changes but the time of
    its last access. Links are not followed.

    Raises:
        OSError: without a path.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    files = ffi.new("struct mb_file[]", lib.MB_LIST_FILES)
    names = ffi.new("char[]", lib.MB_LIST_BYTES)
    size = ffi.new("uint32_t *")
    while count := lib.mb_list(fd, files, names, size):
        if count < 0:
            raise OSError(-count, os.strerror(-count))
        records = bytes(ffi.buffer(files, count * RECORD.size))
        found = os.fsdecode(bytes(ffi.buffer(names, size[0] - 1))).split("\0")
        for index, name in enumerate(found):
            yield name, records[index * RECORD.size : (index + 1) * RECORD.size]


def record_of(status: os.stat_result) -> bytes:
    """Return the record of a file by its status."""
    return RECORD.pack(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
        status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_rdev,
    )  # fmt: skip
