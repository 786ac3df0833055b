"""Whom a running container belongs to: ``root/live/<id>``, held with flock.

The owner is the process that runs it in the foreground, or its supervisor: the kernel drops the
lock with the owner, whatever kills it. The file says which image the container uses and, once there
is one, its first process. One whose lock is free and that is still there lost its owner:
`removal.collect` ends and removes what it left.
"""

from __future__ import annotations

import fcntl
import os
from errno import EACCES, EAGAIN, ENOSPC, EROFS
from stat import S_ISREG

from minibox.base.codec import BYTES_MAX, NO_FILE_OF_OURS
from minibox.base.files import discard, write_all
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
    """The ownership of one container, held while this object lives.

    Attributes:
        id: 64 hexadecimal digits.
        directory: the container's own.
        name: its name.
        fd: holds the lock: whoever has a copy of it is an owner too.
        undo: of one that had another owner, the line on what undoes its start.
    """

    def __init__(self, root: str, container_id: str, name: str, fd: int, *, remove: bool) -> None:
        """A claim that is held already, by ``fd``; `new` and `of` make one."""
        self.root, self.id, self.name, self.fd = root, container_id, name, fd
        self.directory = f"{root}/containers/{container_id}"
        self.undo = b""
        self._remove = remove

    @classmethod
    def new(cls, root: str, name: str, *, remove: bool) -> Claim:
        """Make an id and claim it and a name.

        Args:
            name: "" for one that is made up.
            remove: what `collect` does when this process can't: remove it, or keep its files.

        Raises:
            NameTaken, UsageError: of ``name``.
            MiniboxError: the disk is full, or the state root can't be written.
        """
        container_id = os.urandom(32).hex()
        claim = cls(root, container_id, name or names.made_up(container_id), -1, remove=remove)
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
        """Claim a container that is there; None when it has an owner.

        Raises:
            MiniboxError: the disk is full, or the state root can't be written.
        """
        try:
            fd = lock_new(f"{root}/live", container_id, wait=False)
            if fd < 0:
                return None
            claim = cls(root, container_id, name, fd, remove=remove)
            # What undoes it is kept: who claims it may be killed, too.
            claim.undo = read_live_fd(fd, live_path(root, container_id)).undo
            claim._clear()
            os.write(fd, image_line(remove) + claim.undo)
            return claim
        except OSError as error:
            raise _unwritable(root, error) from error

    def note_image(self, reference: str, image: ResolvedImage) -> None:
        """Say which image is used, and which layers; a container that never says is one that never began.

        Raises:
            MiniboxError: the disk is full.
        """
        line = image_line(self._remove, reference, image)
        try:
            if os.fstat(self.fd).st_size:  # a truncation costs a start more than all else here
                self._clear()
            write_all(self.fd, line)
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def note_undo(self, line: bytes) -> None:
        """Say what undoes its start, before anything of that has happened.

        Raises:
            MiniboxError: the disk is full.
        """
        try:
            if os.write(self.fd, line) != len(line):
                raise OSError(ENOSPC, os.strerror(ENOSPC))
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def note_process(
        self, pid: int, command: Sequence[str], joinable: dict[str, Any] | None = None, supervisor: int = 0
    ) -> None:
        """Say which process is the container's first; valid while the lock is held.

        Raises:
            MiniboxError: the disk is full.
        """
        line = process_line(pid, supervisor, command, joinable)
        try:
            write_all(self.fd, line)
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def note_waiting(self, supervisor: int) -> None:
        """There is no process any more, but its supervisor waits to start it anew."""
        _note_without_process(self.fd, ended_line(supervisor))

    def note_ended(self, status: int) -> None:
        """See `note_ended`."""
        note_ended(self.fd, status)

    def _clear(self) -> None:
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)

    def hand_over(self) -> None:
        """Let go of a claim that another process holds by a copy of ``fd``."""
        os.close(self.fd)
        self.fd = -1

    def give_up(self) -> None:
        """Release one of `new` that never began: its name is free too."""
        names.drop(self.root, self.id, self.name)
        self.release()

    def release(self, *, finished: bool = True) -> None:
        """Give up the lock: the container has ended, and if ``finished`` nothing is left to `collect`."""
        if self.fd >= 0:
            try:
                if finished:
                    os.unlink(f"{self.root}/live/{self.id}")
            except FileNotFoundError:
                pass  # somebody removed the whole root
            finally:
                self.hand_over()


def note_ended(fd: int, status: int) -> None:
    """There is no process any more, and this is how it ended: `Watch` may look when all else is removed.

    Args:
        fd: holds the lock.
    """
    _note_without_process(fd, ended_line(status=status))


def _note_without_process(fd: int, line: bytes) -> None:
    size = os.fstat(fd).st_size
    image, ended, rest = os.pread(fd, min(size, BYTES_MAX), 0).partition(b"\n")
    if ended and image.startswith(b"{"):  # else it never began, or an older minibox began it
        os.pwrite(fd, line, len(image) + 1 + len(split_undo(rest)[0]))  # what follows counts no more


def lock_new(directory: str, name: str, *, wait: bool = True, shared: bool = False) -> int:
    """Make a file and hold its lock; again when `collect` was faster. -1 when another holds it, unless ``wait``."""
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
        if not S_ISREG(os.fstat(fd).st_mode):  # a FIFO can be opened, and locked
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
        EACCES: "set --root to a directory that you may write, or run as root",
        ENOSPC: "free some space, or set --root to a directory on another disk",
        EROFS: "set --root to a directory on a disk that can be written",
    }.get(error.errno or 0)
    return MiniboxError(f"write the state in {error.filename or root}: {kernel_says(error)}", hint)


def orphans(root: str, at_most: int = 0, only: str = "") -> Iterator[tuple[str, bool, int]]:
    """Containers that lost their owner: id, whether it said to remove it, and the lock, held until the next is asked for.

    Args:
        at_most: look at that many, at random: a start must not take longer the more containers run. 0: at all.
        only: look at that one.
    """
    found = [only] if only else _listed(f"{root}/live")
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
        try:
            if os.fstat(fd).st_nlink:
                yield name, read_live_fd(fd, live_path(root, name)).remove, fd
        finally:
            os.close(fd)


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def live_ids(root: str) -> list[str]:
    """The ids of containers that have an owner, or lost it."""
    return [name for name in _listed(f"{root}/live") if is_id(name)]


def is_id(name: str) -> bool:
    """Can it be a container's id?"""
    return long_id(name)


def read_live(root: str, container_id: str) -> Live:
    """What the owner has written so far.

    Raises:
        OSError: it has none.
    """
    path = live_path(root, container_id)
    fd = os.open(path, os.O_RDONLY | OPEN)
    try:
        return read_live_fd(fd, path)
    finally:
        os.close(fd)


def open_process(live: Live) -> int:
    """A pidfd of a container's first process; -1 when it has none.

    Between the end of the process and its owner's word of it the pid may come to mean another: then its parent is
    not the supervisor. The caller looks afterwards whether the lock is still held.
    """
    pidfd = open_pidfd(live.pid) if live.pid > 0 else -1
    if pidfd >= 0 and live.supervisor > 0 and parent_of(live.pid) not in (live.supervisor, 0):
        os.close(pidfd)
        return -1
    return pidfd


class Watch:
    """The file of an owner, held open: how its container ended is in it even when all is removed."""

    def __init__(self, root: str, container_id: str) -> None:
        """Open it; nothing is wrong when there is no owner."""
        self._path = live_path(root, container_id)
        try:
            self._fd = os.open(self._path, os.O_RDONLY | OPEN)
        except OSError:
            self._fd = -1

    def is_owned(self) -> bool:
        """Does an owner still hold it?"""
        if self._fd < 0:
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    def status(self) -> int:
        """The exit status that the owner has noted; -1 when it has none."""
        return read_live_fd(self._fd, self._path).status if self._fd >= 0 else -1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_live(root: str, container_id: str) -> bool:
    """Does an owner hold it?"""
    fd = _held(root, container_id)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def live_process(root: str, container_id: str) -> int:
    """The first process of a container that an owner holds: -1 while there is none, 0 when none holds it."""
    live = owned(root, container_id)
    return live.pid if live else 0


def owned(root: str, container_id: str) -> Live | None:
    """What the owner of a container has written so far; None when it has no owner."""
    fd = _held(root, container_id)
    if fd < 0:
        return None
    try:
        return read_live_fd(fd, live_path(root, container_id))
    finally:
        os.close(fd)


def _held(root: str, container_id: str) -> int:
    """A descriptor of the file of an owner that lives; else -1."""
    try:
        fd = os.open(live_path(root, container_id), os.O_RDWR | OPEN)
    except OSError:
        return -1
    try:
        # Shared: two that look don't take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return fd
    os.close(fd)
    return -1
