"""The owner of a running container: ``root/live/<id>``, locked with flock.

The owner is the process that runs the container in the foreground, or its supervisor. The kernel releases the lock
when the owner ends, however it ends. The file says which image the container uses and, once there is one, its first
process. A file that nobody locks means that the owner was killed: `collection.collect` ends the container and removes it.
"""

from __future__ import annotations

import fcntl
import os
from errno import EACCES, EAGAIN, ENOSPC, EROFS
from stat import S_ISREG

from minibox.base.codec import BYTES_MAX, NO_FILE_OF_OURS
from minibox.base.files import close_descriptors, closing, discard, names_in, write_all
from minibox.base.shape import long_id
from minibox.engine.state import names
from minibox.engine.state.live_file import (
    Live,
    ended_line,
    image_line,
    live_path,
    process_line,
    read_live_fd,
    split_undo,
)
from minibox.errors import MiniboxError, kernel_says
from minibox.linux.process import open_pidfd, parent_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from minibox.image.layout.image import ResolvedImage

OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Claim:
    """The ownership of one container. It lasts until `release`, or until this process ends.

    Attributes:
        id: 64 hexadecimal digits.
        directory: the container's own.
        name: its name.
        fd: holds the lock. A process with a copy of it is an owner too.
        undo: the line that says how to undo the container's start, if it had another owner before.
    """

    def __init__(self, root: str, container_id: str, name: str, fd: int, *, remove: bool) -> None:
        """Wrap a lock that ``fd`` already holds. Use `new` or `of` to claim a container."""
        self.root, self.id, self.name, self.fd = root, container_id, name, fd
        self.directory = f"{root}/containers/{container_id}"
        self.undo = b""
        self._remove = remove

    @classmethod
    def new(cls, root: str, name: str, *, remove: bool) -> Claim:
        """Make an id, and claim it and a name.

        Args:
            name: "" to make one up.
            remove: whether `collect` removes the container's files if this process is killed.

        Raises:
            NameTaken, UsageError: ``name`` is taken or invalid.
            MiniboxError: the disk is full, or the state root can't be written.
        """
        container_id = os.urandom(32).hex()
        claim = cls(root, container_id, name or names.default_name(container_id), -1, remove=remove)
        try:
            claim.fd = lock_new(f"{root}/live", container_id)
            if name:
                names.take(root, name, container_id, lambda other: is_live(root, other))
        except OSError as error:
            claim.release()
            raise _unwritable(root, error) from error
        except BaseException:
            claim.release()
            raise
        return claim

    @classmethod
    def of(cls, root: str, container_id: str, name: str, *, remove: bool) -> Claim | None:
        """Claim an existing container; return None if it has an owner.

        Raises:
            MiniboxError: the disk is full, or the state root can't be written.
        """
        try:
            fd = lock_new(f"{root}/live", container_id, wait=False)
            if fd < 0:
                return None
            claim = cls(root, container_id, name, fd, remove=remove)
            # Keep the undo line: this process may be killed, too.
            claim.undo = read_live_fd(fd, live_path(root, container_id)).undo
            claim._clear()
            os.write(fd, image_line(remove) + claim.undo)
            return claim
        except OSError as error:
            raise _unwritable(root, error) from error

    def note_image(self, reference: str, image: ResolvedImage) -> None:
        """Write down the image and its layers. A container without this line never started.

        Raises:
            MiniboxError: the disk is full.
        """
        line = image_line(self._remove, reference, image)
        try:
            if os.fstat(self.fd).st_size:  # truncating is the slowest call here, so skip it if we can
                self._clear()
            write_all(self.fd, line)
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def note_undo(self, line: bytes) -> None:
        """Write down how to undo the start. Call it before the start's first step.

        Raises:
            MiniboxError: the disk is full.
        """
        try:
            if os.write(self.fd, line) != len(line):
                raise OSError(ENOSPC, os.strerror(ENOSPC))
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def note_process(
        self, pid: int, command: Sequence[str], exec_context: dict[str, Any] | None = None, supervisor: int = 0
    ) -> None:
        """Write down the container's first process. Readers trust it while the lock is held.

        Raises:
            MiniboxError: the disk is full.
        """
        line = process_line(pid, supervisor, command, exec_context)
        try:
            write_all(self.fd, line)
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def note_restarting(self, supervisor: int) -> None:
        """Write down that the process has ended and that its supervisor will restart it."""
        _note_without_process(self.fd, ended_line(supervisor))

    def note_ended(self, status: int) -> None:
        """See `note_ended`."""
        note_ended(self.fd, status)

    def process_at(self) -> int:
        """Where in the live file the line about the process begins; 0 for nowhere."""
        return _process_at(self.fd)

    def _clear(self) -> None:
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)

    def hand_over(self) -> None:
        """Close ``fd``: another process has a copy of it and keeps the lock. You can call it twice.

        ``fd`` is forgotten first: while it is being closed, another thread may get its number for a file of its own and
        fork, and the child calls this.
        """
        fd, self.fd = self.fd, -1
        close_descriptors(fd)

    def give_up(self) -> None:
        """Release a claim made by `new` for a container that never started, and free its name."""
        names.drop(self.root, self.id, self.name)
        self.release()

    def release(self, *, finished: bool = True) -> None:
        """Release the lock of a container that has ended.

        Args:
            finished: everything is cleaned up: delete the file, so that `collect` has nothing to do.
        """
        if self.fd >= 0:
            try:
                if finished:
                    os.unlink(f"{self.root}/live/{self.id}")
            except FileNotFoundError:
                pass  # the whole root was removed
            finally:
                self.hand_over()


def note_ended(fd: int, status: int) -> None:
    """Write down the exit status. `OwnerWatch` can read it even after the container's files are removed.

    Args:
        fd: holds the lock.
    """
    _note_without_process(fd, ended_line(status=status))


def _note_without_process(fd: int, line: bytes) -> None:
    place = _process_at(fd)
    if place > 0:  # else it never started, or an older minibox started it
        os.pwrite(fd, line, place)  # readers ignore what follows this line


def _process_at(fd: int) -> int:
    size = os.fstat(fd).st_size
    image, ended, rest = os.pread(fd, min(size, BYTES_MAX), 0).partition(b"\n")
    return len(image) + 1 + len(split_undo(rest)[0]) if ended and image.startswith(b"{") else 0


def lock_new(directory: str, name: str, *, wait: bool = True, shared: bool = False) -> int:
    """Make a file and lock it; return its descriptor.

    If `collect` deletes the file meanwhile, make it again.

    Args:
        wait: wait for another process that holds the lock; otherwise return -1.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDWR | os.O_CREAT | OPEN, 0o600)
        except FileNotFoundError:
            os.makedirs(directory, 0o700, exist_ok=True)
            continue
        except OSError as error:
            if error.errno not in NO_FILE_OF_OURS:
                raise
            discard(f"{directory}/{name}")
            continue
        if not S_ISREG(os.fstat(fd).st_mode):  # a FIFO can be opened and locked, too
            os.close(fd)
            discard(f"{directory}/{name}")
            continue
        try:
            fcntl.flock(fd, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return -1
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


def _unwritable(root: str, error: OSError) -> MiniboxError:
    hint = {
        EACCES: "set --root to a directory that you can write to, or run as root",
        ENOSPC: "free some space, or set --root to a directory on another disk",
        EROFS: "set --root to a directory on a writable disk",
    }.get(error.errno or 0)
    return MiniboxError(f"write the state in {error.filename or root}: {kernel_says(error)}", hint)


def orphans(root: str, at_most: int = 0, only: str = "") -> Iterator[tuple[str, bool, int]]:
    """Find containers whose owner was killed. Yield the id, whether to remove the files, and the lock's descriptor.

    The lock is held until you ask for the next container.

    Args:
        at_most: check only so many containers, picked at random. So a start takes no longer if many containers run.
            0 checks all.
        only: check only this one.
    """
    found = [only] if only else names_in(f"{root}/live")
    found = [name for name in found if is_id(name)]
    if 0 < at_most < len(found):
        first = int.from_bytes(os.urandom(4), "little") % len(found)
        found = (found + found)[first : first + at_most]
    for name in found:
        try:
            fd = os.open(live_path(root, name), os.O_RDWR | OPEN)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in NO_FILE_OF_OURS:
                raise
            discard(live_path(root, name))
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno != EAGAIN:
                raise
            continue
        with closing(fd):
            if os.fstat(fd).st_nlink:
                yield name, read_live_fd(fd, live_path(root, name)).remove, fd


def live_ids(root: str) -> list[str]:
    """The ids of all containers with a live file, with or without an owner."""
    return [name for name in names_in(f"{root}/live") if is_id(name)]


def is_id(name: str) -> bool:
    """Does it look like a container's id?"""
    return long_id(name)


def read_live(root: str, container_id: str) -> Live:
    """Read what the owner has written so far.

    Raises:
        OSError: the container has no live file.
    """
    path = live_path(root, container_id)
    with closing(os.open(path, os.O_RDONLY | OPEN)) as fd:
        return read_live_fd(fd, path)


def open_process(live: Live) -> int:
    """Open a pidfd of a container's first process; return -1 if it has none.

    When the process has ended and the owner hasn't written so yet, its pid may already belong to another process, whose
    parent isn't the supervisor. Check afterwards that the lock is still held.
    """
    pidfd = open_pidfd(live.pid) if live.pid > 0 else -1
    if pidfd >= 0 and live.supervisor > 0 and parent_of(live.pid) not in (live.supervisor, 0):
        os.close(pidfd)
        return -1
    return pidfd


class OwnerWatch:
    """An open live file. It tells how the container ended, even after the container is removed."""

    def __init__(self, root: str, container_id: str) -> None:
        """Open the file. It may be missing: then the container has no owner."""
        self._path = live_path(root, container_id)
        try:
            self._fd = os.open(self._path, os.O_RDONLY | OPEN)
        except OSError:
            self._fd = -1

    def is_owned(self) -> bool:
        """Does the owner still hold the lock?"""
        if self._fd < 0:
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    def status(self) -> int:
        """The exit status that the owner wrote down; -1 for none."""
        return read_live_fd(self._fd, self._path).status if self._fd >= 0 else -1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_live(root: str, container_id: str) -> bool:
    """Does the container have an owner?"""
    fd = _held(root, container_id)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def live_process(root: str, container_id: str) -> int:
    """The pid of a container's first process; -1 if it has none yet, 0 if the container has no owner."""
    live = read_owner(root, container_id)
    return live.pid if live else 0


def read_owner(root: str, container_id: str) -> Live | None:
    """Read what a container's owner has written so far; return None if it has no owner."""
    fd = _held(root, container_id)
    if fd < 0:
        return None
    with closing(fd):
        return read_live_fd(fd, live_path(root, container_id))


def _held(root: str, container_id: str) -> int:
    """Open the live file of a container that has an owner; return -1 if it has none."""
    try:
        fd = os.open(live_path(root, container_id), os.O_RDWR | OPEN)
    except OSError:
        return -1
    try:
        # A shared lock, so that two readers don't take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return fd
    os.close(fd)
    return -1
