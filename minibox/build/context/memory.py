"""Digests of files, remembered by what stat(2) says: a file is read again only if something about it has changed.

The content of a file can change without a trace in its status: if it is changed twice within one tick of the file
system's clock, and read in between. So the digest of a file is remembered only if its ctime was older than the reading
by more than such a tick. Git has the same rule for its index (Documentation/technical/racy-git.txt). The mtime doesn't
count: programs set it as they like, but nobody can set the ctime.

The file holds a header, then for each file its record and its fingerprint, then a checksum of all that. It may be
removed at any time. Two builds may write it at the same time: the last one wins.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time

from minibox.base.files import FileTooLarge, NotRegularFile, put_aside, read_file, replace_file
from minibox.build.context.fingerprint import FINGERPRINT
from minibox.linux.listing import RECORD

MAGIC = b"minibox build context 1\n"
ENTRY = struct.Struct(f"{RECORD.size}s{FINGERPRINT.size}s")
SUM_BYTES = 32
BYTES_MAX = 1 << 30
CHANGED_AT = struct.calcsize("=QQQq")  # where a record has the ctime
CHANGED = struct.Struct("=q")
CLOCK_REALTIME_COARSE = 5  # linux/time.h
DEVICE = struct.Struct("=Q")
SECOND_NS = 1_000_000_000
#: How old a ctime must be. Twice the kernel's tick, which is 10 ms at most (CONFIG_HZ=100).
GRAIN_NS = 20_000_000
#: The same where we know nothing about the clock: network file systems, FAT, and all others without a disk of their own.
COARSE_GRAIN_NS = 2 * SECOND_NS
#: Unused digests are kept as well, since another Dockerfile of the same context may need them: but not many more.
UNUSED_MAX = 1000


class Memory:
    """The remembered fingerprints of a directory's files."""

    def __init__(self, path: str) -> None:
        """Read what was remembered. A damaged file counts as empty.

        Args:
            path: the file; "" to remember nothing.
        """
        self._path = path
        self._before = _read(path) if path else {}
        self._now: dict[bytes, bytes] = {}
        self._is_changed = False

    def get(self, record: bytes) -> bytes | None:
        """Return the fingerprint of the file with this record, if it is known."""
        found = self._now.get(record)
        if found is None and (found := self._before.get(record)) is not None:
            self._now[record] = found
        return found

    def put(self, record: bytes, fingerprint: bytes, read_ns: int) -> None:
        """Remember a fingerprint, at least until the end of this build.

        Args:
            read_ns: `clock_ns` from before the file was read.
        """
        self._now[record] = fingerprint
        if is_settled(record, read_ns):
            self._before[record] = fingerprint
            self._is_changed = True

    def save(self) -> None:
        """Write what is new, for the next build.

        Raises:
            OSError: the disk is full; with the path.
        """
        if not self._path:
            return
        if not self._is_changed:
            try:
                os.utime(self._path)  # `prune` removes what is unused
            except FileNotFoundError:
                pass
            return
        used = [(record, kept) for record in self._now if (kept := self._before.get(record)) is not None]
        unused = [item for item in self._before.items() if item[0] not in self._now]
        if len(unused) > len(used) + UNUSED_MAX:
            unused = []
        data = MAGIC + b"".join(ENTRY.pack(*item) for item in used + unused)
        data += hashlib.sha256(data).digest()
        try:
            replace_file(self._path, data)
        except IsADirectoryError:
            put_aside(self._path)
            replace_file(self._path, data)
        self._is_changed = False


def clock_ns() -> int:
    """Return the time by the clock of the kernel's file systems."""
    return time.clock_gettime_ns(CLOCK_REALTIME_COARSE)


def is_settled(record: bytes, read_ns: int) -> bool:
    """Tell whether a file that is read at a time would have another ctime if it were changed after that."""
    changed_ns = CHANGED.unpack_from(record, CHANGED_AT)[0]
    has_disk = os.major(DEVICE.unpack_from(record)[0]) != 0
    grain = GRAIN_NS if has_disk and changed_ns % SECOND_NS else COARSE_GRAIN_NS
    return bool(changed_ns + grain < read_ns)


def _read(path: str) -> dict[bytes, bytes]:
    try:
        data = read_file(path, BYTES_MAX)
    except (FileNotFoundError, NotRegularFile, FileTooLarge):
        return {}
    entries = memoryview(data)[len(MAGIC) : -SUM_BYTES]
    if not data.startswith(MAGIC) or len(entries) % ENTRY.size:
        return {}
    if hashlib.sha256(memoryview(data)[:-SUM_BYTES]).digest() != data[-SUM_BYTES:]:
        return {}
    return dict(ENTRY.iter_unpack(entries))
