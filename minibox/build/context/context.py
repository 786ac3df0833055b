"""A build's context, or another tree that lines copy from: what is selected in it, with digests."""

from __future__ import annotations

import hashlib
import os
import stat
from threading import Lock

from minibox.build.context.fingerprint import Reader
from minibox.build.context.memory import Memory, clock_ns
from minibox.build.context.selection import IDENTITY_BYTES, Finder, manifest
from minibox.build.context.tree import LOOK, READ_DIRECTORY, Tree, mode_of, size_of
from minibox.errors import BuildError
from minibox.linux.listing import RECORD, record_of
from minibox.linux.small_files import is_small_file, read_small_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minibox.build.context.patterns import Patterns
    from minibox.build.context.selection import Selected, Source

    Reading = tuple[int, bytes, bytes]  # when it was read, its record at that moment, its fingerprint

LARGE_BYTES = 1 << 20
#: How much of what was read for its digest is kept for copying it, so that it isn't read twice.
KEPT_BYTES_MAX = 32 << 20
OWNER = 6  # where a record has uid and gid
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class Selection:
    """What one line reads.

    Attributes:
        sources: what was found, in the order in which it is copied.
        manifest: describes each file: see `minibox.build.context.selection.entries`.
        digest: of the manifest; 64 hexadecimal digits.
    """

    def __init__(self, sources: tuple[Source, ...], manifest: bytes) -> None:
        self.sources, self.manifest = sources, manifest
        self.digest = hashlib.sha256(manifest).hexdigest()


class Context:
    """A tree that lines copy from; use it in a ``with`` statement."""

    def __init__(
        self,
        path: str,
        ignored: Patterns | None = None,
        *,
        memory: str = "",
        keeps_owner: bool = False,
        what: str = "the context",
    ) -> None:
        """Open a directory.

        Args:
            ignored: what isn't part of it.
            memory: the file that remembers digests for the next build; "" for none.
            keeps_owner: files keep their owners in the image, as those of a stage or an image do. Those of a context
                belong to root.
            what: what it is, for messages.

        Raises:
            BuildError: it can't be opened.
        """
        self.tree = Tree(path, ignored, what)
        self._memory = Memory(memory)
        self._reader = Reader(self.tree, keeps_owner=keeps_owner)
        self._lock = Lock()
        self._contents: dict[bytes, bytes] = {}  # of small files, by record: read for their digests, not copied yet
        self._room_bytes = KEPT_BYTES_MAX

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remember the digests, and close the directory."""
        self.tree.close()
        self._memory.save()

    def select(self, sources: Sequence[str], *, exclude: Sequence[str] = (), parents: bool = False) -> Selection:
        """Find the sources of a line, and read what isn't remembered. Several threads may call this.

        Args:
            sources: as they are written, after substitution: paths, or globs.
            exclude: patterns of --exclude.
            parents: --parents: paths keep their directories.

        Raises:
            BuildError: a source isn't there or can't be read; a pattern is malformed.
        """
        finder = Finder(self.tree, exclude, parents)
        with self._lock:
            found = tuple(source for text in sources for source in finder.find(text))
            return Selection(found, manifest(found, self._fingerprints(found)))

    def open(self, selected: Selected) -> int:
        """Open a selected file, to copy it. A link, a FIFO or a device is only looked at (O_PATH).

        Raises:
            BuildError: it isn't any more what it was when its digest was made.
        """
        mode = mode_of(selected.status)
        flags = OPEN if stat.S_ISREG(mode) else READ_DIRECTORY if stat.S_ISDIR(mode) else LOOK
        fd = self.tree.open(selected.path, flags)
        try:
            self.check(selected, fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def read_small(self, files: Sequence[Selected]) -> list[bytes | None]:
        """Return the content of regular files of one directory: exactly what their digests were made of.

        None stands for a file that must be opened: it isn't small or has attributes, or it was changed.
        """
        found = [self._contents.pop(each.status, None) for each in files]
        missing = [index for index, content in enumerate(found) if content is None]
        if not missing:
            return found
        fd = self.tree.open(files[0].path.rpartition("/")[0], READ_DIRECTORY)
        try:
            names = [files[index].path.rpartition("/")[2] for index in missing]
            for index, read in zip(missing, read_small_files(fd, names)):
                if read and _without_owner(read[0]) == _without_owner(files[index].status):
                    found[index] = read[1]
        finally:
            os.close(fd)
        return found

    def check(self, selected: Selected, fd: int) -> None:
        """Check, after copying an open file, that nobody has changed it meanwhile.

        Raises:
            BuildError: somebody has.
        """
        now, then = record_of(os.fstat(fd)), selected.status
        # A directory's content isn't read by this descriptor, and who builds may well write into the context.
        # The owner isn't compared: in an ordinary user's namespace it has another number, and chown changes the ctime.
        same = _without_owner(now) == _without_owner(then) or (
            stat.S_ISDIR(mode_of(then)) and now[:IDENTITY_BYTES] == then[:IDENTITY_BYTES]
        )
        if not same:
            raise BuildError(
                f"{ascii(selected.path)} in {self.tree.what} was changed during the build", "build it again"
            )

    def _fingerprints(self, sources: tuple[Source, ...]) -> dict[bytes, bytes]:
        get, found = self._memory.get, {}
        missing: dict[bytes, str] = {}
        for source in sources:
            for _, path, record in source.files:
                known = get(record)
                if known is None:
                    missing[record] = path
                else:
                    found[record] = known
        changed: dict[bytes, bytes] = {}
        for record, path, (read_ns, now, fingerprint) in self._read(missing):
            self._memory.put(now, fingerprint, read_ns)
            found[now] = fingerprint
            if now != record:
                changed[record] = now
                self.tree.note(path, now)
        if changed:
            for source in sources:
                source.files = [(to, path, changed.get(record, record)) for to, path, record in source.files]
        return found

    def _read(self, missing: dict[bytes, str]) -> Iterator[tuple[bytes, str, Reading]]:
        """Read files: small ones of a directory together, large ones in threads, since hashing them needs no interpreter."""
        missing = dict(missing)
        yield from self._read_small(missing)
        large = {record: path for record, path in missing.items() if size_of(record) >= LARGE_BYTES}
        if len(large) < 2:
            large = {}
        for record, path in missing.items():
            if record not in large:
                yield record, path, self._read_one(record, path)
        if not large:
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            try:
                yield from zip(large.keys(), large.values(), pool.map(self._read_one, large.keys(), large.values()))
            except BaseException:  # Ctrl-C, too
                self._reader.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _read_small(self, missing: dict[bytes, str]) -> Iterator[tuple[bytes, str, Reading]]:
        """Read small files and remove them from ``missing``; what can't be read this way stays there."""
        by_directory: dict[str, dict[str, bytes]] = {}
        for record, path in missing.items():
            if is_small_file(record):
                directory, _, name = path.rpartition("/")
                by_directory.setdefault(directory, {})[name] = record
        for directory, files in by_directory.items():
            read_ns = clock_ns()
            for record, found in zip(files.values(), self._reader.read_small(directory, [*files])):
                if found is None:
                    continue
                now, fingerprint, content = found
                if len(content) <= self._room_bytes:
                    self._room_bytes -= len(content)
                    self._contents[now] = content
                yield record, missing.pop(record), (read_ns, now, fingerprint)

    def _read_one(self, record: bytes, path: str) -> Reading:
        read_ns = clock_ns()
        return read_ns, *self._reader.read(path, record)


def _without_owner(record: bytes) -> tuple[int, ...]:
    fields: tuple[int, ...] = RECORD.unpack(record)
    return fields[:OWNER] + fields[OWNER + 2 :]
