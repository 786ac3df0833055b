"""The store of lines that were carried out, by their keys. It is shared by all builds, whatever their context.

On disk, ``root/build``:

    contexts/<hex>          digests of a context's files: see `minibox.build.context.memory`
    lines/<driver>/<key>    a line; each build that uses it holds a shared flock on it
    lines/<driver>/<key>~<hex>   the same, replaced by a build with --no-cache
    lines/<driver>/<key>.lock    locked by the build that makes the line, while others wait
    manifests/<digest>      what a line has read, compressed, so that `why` can name the file that has changed
    histories/<hex>         the keys of a Dockerfile's last build
    pruned                  the keys of lines that were pruned, and when

Every file is complete from the moment that it has its name. So a build that is killed leaves nothing that is half there:
at most a layer that no line names.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import zlib
from threading import Lock

from minibox.base import damage
from minibox.base.codec import NO_FILE_OF_OURS
from minibox.base.files import close_descriptors, discard, read_file, replace_file, replace_locked
from minibox.build.line import LINE, line_fields, line_from
from minibox.engine.state.claim import is_id, lock_new
from minibox.errors import Damaged, Unreadable
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from minibox.build.context.context import Selection
    from minibox.build.line import Key, Line

OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MANIFEST_BYTES_MAX = 1 << 30
REPLACED, LOCK = "~", ".lock"


class Cache:
    """The lines that a build uses and makes. It holds them until `close`; use it in a ``with`` statement. Any thread may
    use it.

    Args:
        root: the root of minibox's files.
        driver: the storage driver of the build.
        is_there: tells whether the driver has a layer. A line whose layers are gone isn't found.
    """

    def __init__(self, root: str, driver: str, is_there: Callable[[str], bool] = lambda layer: True) -> None:
        self.root = root
        self._lines = lines_directory(root, driver)
        self._is_there = is_there
        self._held: dict[str, int] = {}
        self._lock = Lock()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all lines, so that `prune` may remove them. You can call it twice."""
        while self._held:
            os.close(self._held.popitem()[1])

    def find(self, key: Key) -> Line | None:
        """Return the line with this key, and hold it; None if there is none, or if its layers are gone."""
        path = f"{self._lines}/{key.id}"
        fd = _open_shared(path)
        if fd < 0:
            return None
        try:
            line: Line | None = line_from(LINE.read_fd(fd, path))
        except Unreadable as error:
            damage.tell(error)
            line = None
        if line is None or line.key != key or not all(map(self._is_there, line.layers)):
            os.close(fd)
            return None
        os.utime(fd)  # `prune` goes by the last use
        self._hold(key.id, fd)
        return line

    def find_or_make(
        self, key: Key, make: Callable[[], Line], inputs: Mapping[str, str | Selection], *, fresh: bool = False
    ) -> tuple[Line, bool]:
        """Find a line, or carry it out and store it. If several builds need it, one makes it, and the others wait.

        Args:
            make: carries the line out. It may raise whatever it likes: then nothing is stored.
            inputs: what it reads: as for `line.key_of`.
            fresh: make it in any case: --no-cache.

        Returns:
            The line, and whether it was made.
        """
        if not fresh and (found := self.find(key)):
            return found, False
        name = f"{key.id}{LOCK}"
        lock = lock_new(self._lines, name)
        try:
            if not fresh and (found := self.find(key)):
                return found, False
            line = make()
            self.put(line, inputs)
            return line, True
        finally:
            os.unlink(f"{self._lines}/{name}")
            os.close(lock)

    def put(self, line: Line, inputs: Mapping[str, str | Selection]) -> None:
        """Store a line, and hold it. If there is one with its key, it is kept aside until `prune`.

        Raises:
            OSError: the disk is full; with the path.
        """
        os.makedirs(self._lines, 0o700, exist_ok=True)
        for each in inputs.values():
            if not isinstance(each, str):
                keep_manifest(self.root, each)
        path = f"{self._lines}/{line.key.id}"
        try:
            os.link(path, f"{path}{REPLACED}{os.urandom(4).hex()}")
        except FileNotFoundError:
            pass
        fd = replace_locked(path, LINE.encode(line_fields(line)))
        fcntl.flock(fd, fcntl.LOCK_SH)
        self._hold(line.key.id, fd)

    def _hold(self, key_id: str, fd: int) -> None:
        with self._lock:  # two stages may find the same line
            before, self._held[key_id] = self._held.get(key_id, -1), fd
        close_descriptors(before)


@record
class Stored:
    """A line in the store.

    Attributes:
        path: its file.
        driver: the storage driver of its layers.
        used_s: when it was last used, in seconds since 1970.
        in_use: a build holds it.
    """

    line: Line
    path: str
    driver: str
    used_s: float
    in_use: bool


def stored(root: str) -> list[Stored]:
    """Return all lines. Damaged files are reported."""
    found = []
    for driver in _names(f"{root}/build/lines"):
        directory = lines_directory(root, driver)
        for name in _names(directory):
            if is_id(name.partition(REPLACED)[0]) and (each := _stored(f"{directory}/{name}", driver)):
                found.append(each)
    return found


def keep_manifest(root: str, selection: Selection) -> None:
    """Keep what a line has read, so that a later build can say what has changed."""
    path = manifest_path(root, selection.digest)
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        replace_file(path, zlib.compress(selection.manifest, 1))


def read_manifest(root: str, digest: str) -> bytes | None:
    """Return what `keep_manifest` kept; None if it was pruned or damaged."""
    try:
        data = zlib.decompress(read_file(manifest_path(root, digest), MANIFEST_BYTES_MAX))
    except (OSError, zlib.error):
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None


def manifest_path(root: str, digest: str) -> str:
    return f"{root}/build/manifests/{digest}"


def context_memory(root: str, directory: str) -> str:
    """Return the file that remembers the digests of a directory's files."""
    os.makedirs(f"{root}/build/contexts", 0o700, exist_ok=True)
    name = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()
    return f"{root}/build/contexts/{name}"


def lines_directory(root: str, driver: str) -> str:
    return f"{root}/build/lines/{driver}"


def _stored(path: str, driver: str) -> Stored | None:
    try:
        fd = os.open(path, OPEN)
    except OSError:
        return None
    try:
        line = line_from(LINE.read_fd(fd, path))
        used_s = os.fstat(fd).st_mtime
        return Stored(line, path, driver, used_s, not _try_lock(fd))
    except Damaged as error:
        damage.tell(error)
        return None
    finally:
        os.close(fd)


def _open_shared(path: str) -> int:
    """Open a file and take a shared lock of it; return -1 if there is none."""
    while True:
        try:
            fd = os.open(path, OPEN)
        except OSError as error:
            if error.errno in NO_FILE_OF_OURS:
                discard(path)
            return -1
        fcntl.flock(fd, fcntl.LOCK_SH)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # somebody pruned it meanwhile


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _names(directory: str) -> Iterator[str]:
    try:
        yield from sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return
