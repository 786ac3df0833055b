"""`minibox cp`: copy files between the host and a container or an image; ``-`` on the host's end is a tar.

The container's end runs in a child process. For a running container the child is root of its user namespace and sees
its root directory, so volumes, tmpfs and owners are as they are inside. For an ended container or an image, the child
makes mounts of its own. The host's end runs here, as the caller, and a pipe with a tar connects the two. Both ends work
the same way below their root directories: they resolve names as a process with that root would, so no link that a
container makes can lead out of it. On the host, nothing is written through a symlink below the destination.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EPIPE, EROFS
from posixpath import normpath
from typing import Any, BinaryIO, TypeVar

from minibox.base.files import closing
from minibox.base.paths import from_root
from minibox.engine.files import jobs, worker
from minibox.engine.files.tar_copy import pack, pack_of, receive
from minibox.engine.files.tree import Directories, Tree, container_tree, find_tree
from minibox.engine.files.worker import Pending
from minibox.engine.host.user_namespace import Work
from minibox.engine.state import claim, containers
from minibox.errors import ContainerNotFound, MiniboxError, UsageError, kernel_says, on_failure, trying
from minibox.record import record

T = TypeVar("T")

# File systems that the kernel generates: they contain no files of the container.
KERNEL_MADE = ("proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts")


@record
class CopyOptions:
    """Options of `docker cp`.

    Attributes:
        archive: keep owners (as numbers) and set-user-ID bits. Otherwise root owns what is made in a container, and the
            caller what is made on the host.
        follow: if the source is a symlink, copy what it leads to.
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
    """Copy from a container or an image to the host; return the size of the tar in bytes.

    Args:
        name: a container, running or not, or an image.
        path: the source, relative to its root.
        destination: a path, or a file that the tar is written to.

    Raises:
        MiniboxError: source or destination doesn't exist, or a file would replace a directory or vice versa.
        BrokenPipeError: the reader of ``destination`` is gone.
    """
    remote = _container_end(root, name, storage_driver)
    what = f"copy {name}:"
    try:
        if not isinstance(destination, str):
            target = destination
            return _value(_attempt(what, path, remote.pack(path, options.follow, target).result))
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with _closed_at_fault(reader), _closed(writer):
            work = remote.send(writer, path, options.follow, reader)
        received = _attempt("copy to ", destination, lambda: _receive_here(reader, destination, options))
        sent = _attempt(what, path, work.result)
        return _outcome(sent, received)
    finally:
        remote.close()


def copy_in(root: str, source: str | BinaryIO, name: str, path: str, options: CopyOptions = DEFAULTS) -> int:
    """Copy from the host into a container; return the size of the tar in bytes.

    Args:
        source: a path, or a file with a tar, plain or compressed, to unpack into the directory ``path``.

    Raises:
        As `copy_out`.
    """
    remote = _container_end(root, name, "")
    what, owner = f"copy to {name}:", None if options.archive else (0, 0)
    try:
        if not remote.state:
            raise UsageError(
                f"{name} is an image: you can't copy into it", "run a container, copy into it, and commit it"
            )
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
class ContainerEnd:
    """The container's end of a copy.

    Attributes:
        pid: the container's first process; 0 for an ended container or an image.
        root_fd: its root directory; -1 if it must be mounted.
        kernel_made: devices (``st_dev``) of file systems that the kernel generates.
        state: the container's state; {} for an image.
    """

    root: str
    tree: Tree
    state: dict[str, Any]
    pid: int = 0
    root_fd: int = -1
    kernel_made: frozenset[int] = frozenset()

    def start(self, function: Callable[[int], T]) -> Work[T]:
        """Call ``function`` with the root directory, in a child."""

        def call() -> T:
            with self._opened() as fd:
                return function(fd)

        return Work(call, self.pid)

    def begin(self, name: str, its: int, arguments: tuple[Any, ...], ours: int) -> Pending[Any]:
        """Start one of `jobs.JOBS` with the root directory and the pipe end ``its``; ``ours`` is the other end."""
        if self.root_fd >= 0:
            return worker.begin(name, (self.root_fd, its), arguments, self.pid, (ours,))

        def work(root_fd: int) -> Any:
            os.close(ours)
            return jobs.JOBS[name]((root_fd, its), *arguments)

        return self.start(work)

    def send(self, its: int, path: str, follow: bool, ours: int) -> Pending[int]:
        """Start to write a tar to the pipe end ``its``; ``ours`` is the other end."""
        if self.state:
            return self.begin("send", its, (path, follow, self.kernel_made), ours)

        def work() -> int:
            os.close(ours)
            with open(its, "wb", 0, closefd=False) as pipe:
                return self._pack(path, follow, pipe)

        return Work(work)

    def pack(self, path: str, follow: bool, file: BinaryIO) -> Work[int]:
        """Start to write a tar to ``file``, in a child."""
        return Work(lambda: self._pack(path, follow, file), self.pid)

    def _pack(self, path: str, follow: bool, file: BinaryIO) -> int:
        if self.state:
            with self._opened() as fd:
                size = pack(fd, path, follow, file, self.kernel_made)
        else:
            with Directories(self.root) as directories, directories.stack(self.tree) as stack:
                size = pack_of(stack, path, follow, file)
        file.flush()
        return size

    def close(self) -> None:
        if self.root_fd >= 0:
            os.close(self.root_fd)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        if self.root_fd >= 0:
            yield self.root_fd
        else:
            from minibox.engine.files.writable_rootfs import writable_root

            mounts, read_only = self.state.get("Mounts") or (), bool(self.state.get("ReadOnly"))
            with writable_root(self.root, self.tree.container_id, mounts, read_only=read_only) as fd:
                yield fd


def _container_end(root: str, name: str, storage_driver: str) -> ContainerEnd:
    try:
        found = containers.find(root, name)
    except ContainerNotFound as error:
        if "ambiguous" in str(error):
            raise
        return ContainerEnd(root, find_tree(root, name, storage_driver), {})
    container_id: str = found["Id"]
    tree = container_tree(root, container_id)
    pid = claim.live_process(root, container_id)
    if pid < 0:
        raise MiniboxError(f"container {name} is being started", "try again")
    if not pid:
        return ContainerEnd(root, tree, found)
    with trying(MiniboxError, f"open container {name}", "it may have just ended"):
        kernel_made = _kernel_made(pid)
        root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if os.path.samestat(os.fstat(root_fd), os.stat("/")):
        os.close(root_fd)  # another process has its pid by now
        raise MiniboxError(f"container {name} has just ended", "try again")
    return ContainerEnd(root, tree, found, pid, root_fd, kernel_made)


def _kernel_made(pid: int) -> frozenset[int]:
    """Return the devices of a container's /proc, /sys, /dev and the like; proc_pid_mountinfo(5)."""
    devices = set()
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            fields = line.split(" ")  # names may contain other blanks
            if fields[4] == "/dev" or fields[fields.index("-", 6) + 1] in KERNEL_MADE:
                major, _, minor = fields[2].partition(":")
                devices.add(os.makedev(int(major), int(minor)))
    return frozenset(devices)


# ---- the host's end ------------------------------------------------------------------------------


def _send_from_here(writer: int, source: str, options: CopyOptions) -> int:
    with open(writer, "wb", 0) as pipe, _host_root() as fd:
        return pack(fd, from_root(source), options.follow, pipe)


def _receive_here(reader: int, destination: str, options: CopyOptions) -> None:
    owner = None if options.archive else (os.geteuid(), os.getegid())
    with open(reader, "rb", 0) as pipe, _host_root() as fd:
        receive(fd, from_root(destination), pipe, owner, privileged=options.archive, on_host=True)


@contextmanager
def _closed(fd: int) -> Iterator[None]:
    with closing(fd):
        yield


@contextmanager
def _closed_at_fault(fd: int) -> Iterator[None]:
    with on_failure(os.close, fd):
        yield


@contextmanager
def _host_root() -> Iterator[int]:
    with closing(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        yield fd


# ---- the result of both ends ----------------------------------------------------------------------


def _attempt(what: str, path: str, function: Callable[[], T]) -> T | MiniboxError:
    """Return the value of ``function``, or the error that it raised.

    Args:
        what: what this end does, for the error, up to ``path``.
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
        hint = "its root file system, or the mount there, is read-only" if error.errno == EROFS else None
        return MiniboxError(f"{what}{path}{where}: {kernel_says(error)}", hint)


class _Broken(MiniboxError):
    """The reader is gone. If the other end failed too, that is the cause."""


def _value(result: T | MiniboxError) -> T:
    if isinstance(result, _Broken):
        raise BrokenPipeError(EPIPE, os.strerror(EPIPE))
    if isinstance(result, MiniboxError):
        raise result
    return result


def _outcome(sent: int | MiniboxError, received: MiniboxError | None) -> int:
    """Return what was sent, or raise the error that is the cause: when one end fails, the other ends early."""
    if isinstance(sent, MiniboxError) and not isinstance(sent, _Broken):
        raise sent
    if received is not None:
        raise received
    return _value(sent)
