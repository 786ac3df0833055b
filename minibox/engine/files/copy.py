"""`minibox cp`: files between a container, or out of an image, and the host; a tar at the host's end with ``-``.

The container's end is worked on by a child: of one that runs, as root of its user namespace and below its root
directory, so that volumes, tmpfs and owners are what they are inside; of one that has ended, or of an image, below
mounts of its own. The host's end is worked on here, as the caller. Between them is a pipe with a tar. Both ends do the
same, below their root directories: names are resolved as a process with that root would, so whatever links a container
makes meanwhile, nothing leads out of it. What is written on the host goes through no symlink below the destination.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from errno import EPIPE, EROFS
from posixpath import normpath

from minibox.base.paths import from_root
from minibox.engine.files import jobs, worker
from minibox.engine.files.tar_copy import pack, receive
from minibox.engine.files.tree import Tree, container_tree, find_tree
from minibox.engine.host.user_namespace import Work
from minibox.engine.state import claim, containers
from minibox.errors import ContainerNotFound, MiniboxError, UsageError, kernel_says
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, BinaryIO, TypeVar

    from minibox.engine.files.worker import Pending

    T = TypeVar("T")

# File systems that the kernel makes up: what is in them are no files of the container's.
KERNEL_MADE = ("proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts")


@record
class CopyOptions:
    """Options of `docker cp`.

    Attributes:
        archive: keep the owners, as numbers, and set-user-ID bits; else what is made in a container is
            root's, and what is made on the host the caller's.
        follow: a symlink that is named as the source means what it leads to.
    """

    archive: bool = False
    follow: bool = False


DEFAULTS = CopyOptions()


def copy_out(
    root: str,
    name: str,
    path: str,
    destination: str | BinaryIO,
    options: CopyOptions = DEFAULTS,
    storage_driver: str = "",
) -> int:
    """Copy from a container or an image to the host; how many bytes of a tar it took.

    Args:
        name: of a container, running or not, or of an image.
        path: there, relative to its root.
        destination: a path, or a file that gets a tar.

    Raises:
        MiniboxError: one of both is not there, or a file would replace a directory or the other way round.
        BrokenPipeError: nobody reads ``destination`` any more.
    """
    remote = _remote(root, name, storage_driver)
    what = f"copy {name}:"
    try:
        if not isinstance(destination, str):
            target = destination
            return _value(_attempt(what, path, remote.start(lambda fd: remote.pack(fd, path, options, target)).result))
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with _closed_at_fault(reader), _closed(writer):
            work = remote.begin("send", writer, (path, options.follow, remote.kernel_made), reader)
        received = _attempt("copy to ", destination, lambda: _receive_here(reader, destination, options))
        sent = _attempt(what, path, work.result)
        return _outcome(sent, received)
    finally:
        remote.close()


def copy_in(root: str, source: str | BinaryIO, name: str, path: str, options: CopyOptions = DEFAULTS) -> int:
    """Copy from the host into a container; how many bytes of a tar it took.

    Args:
        source: a path, or a file with a tar, plain or compressed, whose content goes into the directory ``path``.

    Raises:
        As `copy_out`.
    """
    remote = _remote(root, name, "")
    what, owner = f"copy to {name}:", None if options.archive else (0, 0)
    try:
        if not remote.state:
            raise UsageError(f"{name} is an image: nothing is copied into it", "run a container, copy, and commit it")
        if not isinstance(source, str):
            archive = source
            placed = remote.start(lambda fd: receive(fd, path, archive, owner, privileged=True, named=False))
            _value(_attempt(what, path, placed.result))
            return 0
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with _closed_at_fault(writer), _closed(reader):
            work = remote.begin("take", reader, (path, owner), writer)
        sent = _attempt("copy ", source, lambda: _send_from_here(writer, source, options))
        return _outcome(sent, _attempt(what, path, work.result))
    finally:
        remote.close()


@record
class Remote:
    """The end of a copy that is not here.

    Attributes:
        pid: of the container's first process; 0 when it doesn't run, or for an image.
        root_fd: its root directory; -1 when it has to be mounted.
        kernel_made: devices, as of ``st_dev``, of file systems that have no files of the container's.
        state: of the container; {} for an image.
    """

    root: str
    tree: Tree
    state: dict[str, Any]
    pid: int = 0
    root_fd: int = -1
    kernel_made: frozenset[int] = frozenset()

    def start(self, function: Callable[[int], T]) -> Work[T]:
        """Call ``function`` with its root directory, in a child."""

        def call() -> T:
            with self._opened() as fd:
                return function(fd)

        return Work(call, self.pid)

    def begin(self, name: str, its: int, arguments: tuple[Any, ...], ours: int) -> Pending[Any]:
        """Begin one of `jobs.JOBS` with its root directory and a pipe, of which ``ours`` is the other end."""
        if self.root_fd >= 0:
            return worker.begin(name, (self.root_fd, its), arguments, self.pid, (ours,))

        def work(root_fd: int) -> Any:
            os.close(ours)
            return jobs.JOBS[name]((root_fd, its), *arguments)

        return self.start(work)

    def pack(self, root_fd: int, path: str, options: CopyOptions, file: BinaryIO) -> int:
        size = pack(root_fd, path, options.follow, file, self.kernel_made)
        file.flush()
        return size

    def close(self) -> None:
        if self.root_fd >= 0:
            os.close(self.root_fd)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        if self.root_fd >= 0:
            yield self.root_fd
        elif self.state:
            from minibox.engine.files.writable_rootfs import mounted_root

            mounts, read_only = self.state.get("Mounts") or (), bool(self.state.get("ReadOnly"))
            with mounted_root(self.root, self.tree.container_id, mounts, read_only=read_only) as fd:
                yield fd
        else:
            from minibox.engine.files.rootfs_view import image_view
            from minibox.storage.drivers import snapshotter

            with image_view(snapshotter(self.root, self.tree.driver), self.tree.chain_ids) as fd:
                yield fd


def _remote(root: str, name: str, storage_driver: str) -> Remote:
    try:
        found = containers.find(root, name)
    except ContainerNotFound as error:
        if "ambiguous" in str(error):
            raise
        return Remote(root, find_tree(root, name, storage_driver), {})
    container_id: str = found["Id"]
    tree = container_tree(root, container_id)
    pid = claim.live_process(root, container_id)
    if pid < 0:
        raise MiniboxError(f"container {name} is being started", "try again")
    if not pid:
        return Remote(root, tree, found)
    try:
        kernel_made = _kernel_made(pid)
        root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise MiniboxError(f"look into container {name}: {kernel_says(error)}", "it may have ended just now") from error
    if os.path.samestat(os.fstat(root_fd), os.stat("/")):
        os.close(root_fd)  # the process is not the container's any more
        raise MiniboxError(f"container {name} has ended just now", "try again")
    return Remote(root, tree, found, pid, root_fd, kernel_made)


def _kernel_made(pid: int) -> frozenset[int]:
    """The devices of a container's /proc, /sys, /dev and the like; proc_pid_mountinfo(5)."""
    devices = set()
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            fields = line.split(" ")  # other blanks may be in names
            if fields[4] == "/dev" or fields[fields.index("-", 6) + 1] in KERNEL_MADE:
                major, _, minor = fields[2].partition(":")
                devices.add(os.makedev(int(major), int(minor)))
    return frozenset(devices)


# ---- this end ------------------------------------------------------------------------------------


def _send_from_here(writer: int, source: str, options: CopyOptions) -> int:
    with open(writer, "wb", 0) as pipe, _host_root() as fd:
        return pack(fd, from_root(source), options.follow, pipe)


def _receive_here(reader: int, destination: str, options: CopyOptions) -> None:
    owner = None if options.archive else (os.geteuid(), os.getegid())
    with open(reader, "rb", 0) as pipe, _host_root() as fd:
        receive(fd, from_root(destination), pipe, owner, privileged=options.archive, on_host=True)


@contextmanager
def _closed(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def _closed_at_fault(fd: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(fd)
        raise


@contextmanager
def _host_root() -> Iterator[int]:
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


# ---- what becomes of both ------------------------------------------------------------------------


def _attempt(what: str, path: str, function: Callable[[], T]) -> T | MiniboxError:
    """The value of ``function``, or the error that it raised.

    Args:
        what: the end of the copy, in words, up to ``path``.
    """
    try:
        return function()
    except MiniboxError as error:
        return error
    except BrokenPipeError as error:
        return _Broken(f"{what}{path}: {kernel_says(error)}")
    except OSError as error:
        place = os.fsdecode(error.filename) if error.filename else ""
        where = "" if place.endswith(normpath(path).lstrip("./")) else f" ({place})"
        hint = "its root file system, or what is mounted there, is read-only" if error.errno == EROFS else None
        return MiniboxError(f"{what}{path}{where}: {kernel_says(error)}", hint)


class _Broken(MiniboxError):
    """Nobody takes what is written: never the cause, when the other end has failed too."""


def _value(result: T | MiniboxError) -> T:
    if isinstance(result, _Broken):
        raise BrokenPipeError(EPIPE, os.strerror(EPIPE))
    if isinstance(result, MiniboxError):
        raise result
    return result


def _outcome(sent: int | MiniboxError, received: MiniboxError | None) -> int:
    """What was sent, or the error that is the cause: who sends ends early for who receives, or the other way round."""
    if isinstance(sent, MiniboxError) and not isinstance(sent, _Broken):
        raise sent
    if received is not None:
        raise received
    return _value(sent)
