"""Read and write small files.

A file is written under a temporary name and then renamed, so a reader sees the old content or the new, never half of
it. Files that a container, another user or a crash may have written are read up to a limit, and only if they are
regular.
"""

from __future__ import annotations

import os
from errno import EFBIG, EINVAL
from stat import S_ISREG

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from os import PathLike
    from typing import Self

    Path = str | bytes | PathLike[str]

WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # O_NONBLOCK: a FIFO must not make us wait
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
CHUNK_BYTES = 1 << 16
POLL_MOST_S = 86400.0  # poll(2) takes at most 24 days
ASIDE = ".damaged-"  # prefix of the new name of a directory that was in the way


class NotRegularFile(OSError):
    """Expected a regular file, found something else: a device, a FIFO, a socket, a directory."""

    not_from_kernel = True  # as in `errors.NotFromKernel`, which would cost minibox-oci an import


class FileTooLarge(OSError):
    """A file is larger than its reader accepts."""

    not_from_kernel = True


def content_of(path: str) -> bytes:
    """Return the content of a file that is known to be small, such as the kernel's or the caller's own."""
    with open(path, "rb", 0) as file:
        return file.readall()


def text_of(path: str) -> str:
    """Return a text file of the kernel or the host; "" if it can't be read, such as where the kernel lacks it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def replace_file(path: str, data: bytes, *, mode: int = 0o600, durable: bool = False, by: str = "") -> None:
    """Replace the content of ``path``. Readers see all of the old content or all of the new, also with two writers.

    Args:
        mode: the file's permissions, independent of the umask.
        durable: return only when the new content survives a power loss.
        by: the directory for the temporary file, on the same file system; "" for the directory of ``path``.

    Raises:
        OSError: with the path. No temporary file is left. The old content is still there, unless only syncing the
            directory failed.
    """
    os.close(_replace(path, data, mode, durable, lock=False, by=by))


def make_file(path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Make a file that nobody reads yet. One that is there already is replaced, like by `replace_file`.

    Raises:
        OSError: with the path. A part of the file may be there.
    """
    try:
        fd = os.open(path, WRITE_NEW, mode)
    except FileExistsError:
        replace_file(path, data, mode=mode)
        return
    try:
        os.fchmod(fd, mode)
        write_all(fd, data)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def replace_locked(path: str, data: bytes, *, durable: bool = False) -> int:
    """Like `replace_file`, but return a descriptor that holds the file's lock (flock(2)).

    The lock is taken before the file gets its name, so nobody can see the file unlocked.
    """
    return _replace(path, data, 0o600, durable, lock=True)


def _replace(path: str, data: bytes, mode: int, durable: bool, *, lock: bool, by: str = "") -> int:
    directory, name = os.path.split(path)
    temporary = temporary_path(by or directory, name)
    fd = os.open(temporary, WRITE_NEW, mode)
    try:
        os.fchmod(fd, mode)
        if lock:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX)
        write_all(fd, data)
        if durable:
            os.fdatasync(fd)
        os.rename(temporary, path)
        if durable:
            sync_directory(directory or ".")
    except BaseException as error:
        os.close(fd)
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        if isinstance(error, OSError) and (not error.filename or error.filename == temporary):
            error.filename = path
        raise
    return fd


def replace_link(path: str, target: str) -> None:
    """Make ``path`` a symlink to ``target``, replacing what is there. It is the cheapest note, and never half written.

    Raises:
        OSError: with the path.
    """
    directory, name = os.path.split(path)
    temporary = temporary_path(directory, name)
    try:
        os.symlink(target, temporary)
        os.rename(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def temporary_path(directory: str, name: str) -> str:
    """Return an unpredictable path in ``directory``."""
    return os.path.join(directory, f".{name[:200]}.{os.getpid()}.{os.urandom(4).hex()}")


def close_descriptors(*fds: int) -> None:
    """Close descriptors; -1 is skipped."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)


class closing:
    """A ``with`` block that closes a descriptor at its end. ``with closing(os.open(path, flags)) as fd:``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class AutoClose:
    """Gives a class a ``with`` block that ends by its `close`."""

    __slots__ = ()

    def close(self) -> None:
        """Let go of what it holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HeldProcess(AutoClose):
    """A process that is held by a pidfd, so that another one that gets its pid can't be mistaken for it."""

    pidfd = -1

    def close(self) -> None:
        """Close the pidfd. You may call this twice."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended. Return False if it hasn't after ``timeout_s``."""
        return wait_readable(self.pidfd, timeout_s)


def new_poll() -> select.poll:
    """Return a new poll object."""
    from select import poll

    return poll()


def wait_readable(fd: int, timeout_s: float | None = None) -> bool:
    """Wait until a descriptor can be read, or the process of a pidfd has ended. Return False after ``timeout_s``."""
    from select import POLLIN  # `minibox-oci state` needs none

    waiting = new_poll()
    waiting.register(fd, POLLIN)
    if timeout_s is None:
        return bool(waiting.poll())
    while timeout_s > POLL_MOST_S:
        if waiting.poll(POLL_MOST_S * 1000):
            return True
        timeout_s -= POLL_MOST_S
    return bool(waiting.poll(max(0.0, timeout_s) * 1000))


def discard(path: str) -> None:
    """Remove one of our files if it exists. A directory in its place is put aside.

    Raises:
        OSError: with the path.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):  # POSIX says EPERM for a directory
        if not os.path.isdir(path) or os.path.islink(path):
            raise
        put_aside(path)


def names_in(directory: str) -> list[str]:
    """The names in a directory, sorted; none if it doesn't exist."""
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_all(directory: str) -> None:
    """Remove one of our directories and everything in it. Symlinks are not followed.

    Raises:
        OSError: with the path.
    """
    for place, directories, names in os.walk(directory, topdown=False):
        for name in names:
            os.unlink(f"{place}/{name}")
        for name in directories:
            path = f"{place}/{name}"
            (os.unlink if os.path.islink(path) else os.rmdir)(path)
    os.rmdir(directory)


def put_aside(path: str) -> None:
    """Rename a directory that is where a file belongs, so that it isn't in the way but nothing is lost."""
    directory, name = os.path.split(path)
    os.rename(path, os.path.join(directory, f"{ASIDE}{name[:200]}.{os.urandom(4).hex()}"))


def sync_directory(path: str) -> None:
    """Return once all that was created, renamed and removed in the directory survives a power loss.

    Raises:
        OSError: with the path.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_file(path: Path, limit_bytes: int, *, dir_fd: int | None = None, flags: int = 0) -> bytes:
    """Return the content of a regular file of at most ``limit_bytes``.

    Args:
        flags: more flags for open(2), such as O_NOFOLLOW.

    Raises:
        NotRegularFile: it is something else; nothing was read from it.
        FileTooLarge: it has more than ``limit_bytes``.
        OSError: it can't be opened or read; with the path.
    """
    look = os.open(path, os.O_PATH | os.O_CLOEXEC | flags, dir_fd=dir_fd)
    try:
        fd = open_regular(look, READ, path)
    finally:
        os.close(look)
    try:
        return read_fd(fd, limit_bytes, path)
    finally:
        os.close(fd)


def open_regular(look_fd: int, flags: int, path: Path | None = None) -> int:
    """Open the file behind an O_PATH descriptor if it is a regular file. Merely opening a device can have effects.

    Args:
        flags: for open(2). Include O_NONBLOCK, or open may wait for a lease on the file (fcntl(2)).
        path: named in the error.

    Raises:
        NotRegularFile: it is something else, and was not opened.
        OSError: with the path.
    """
    if not S_ISREG(os.fstat(look_fd).st_mode):
        raise NotRegularFile(EINVAL, "not a regular file", path)
    try:
        return os.open(f"/proc/self/fd/{look_fd}", flags)
    except OSError as error:
        error.filename = path
        raise


def read_fd(fd: int, limit_bytes: int, path: Path | None = None) -> bytes:
    """Like `read_file`, from the beginning of an open file; ``path`` is named in the error.

    Don't trust the size that the file system reports: a file in /proc has none, and a file may grow meanwhile.
    """
    status = os.fstat(fd)
    if not S_ISREG(status.st_mode):
        raise NotRegularFile(EINVAL, "not a regular file", path)
    if status.st_size > limit_bytes:
        raise FileTooLarge(EFBIG, f"larger than {limit_bytes} bytes", path)
    chunks, size = [], 0
    while chunk := os.pread(fd, min(CHUNK_BYTES, limit_bytes + 1 - size), size):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit_bytes:
            raise FileTooLarge(EFBIG, f"larger than {limit_bytes} bytes", path)
    return b"".join(chunks)


def open_to_append(path: str) -> int:
    """Open a regular file for appending, creating it if needed. Never waits, as for the reader of a FIFO.

    Raises:
        NotRegularFile: it is something else.
        OSError: it can't be opened, or is a symbolic link.
    """
    fd = os.open(path, APPEND, 0o600)
    return _regular(fd, path)


def open_to_read(path: str) -> int:
    """Open a regular file for reading; raises the same errors as `open_to_append`. A symbolic link is followed."""
    return _regular(os.open(path, READ), path)


def _regular(fd: int, path: str) -> int:
    if S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise NotRegularFile(EINVAL, "not a regular file", path)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data`` at the file's current position."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
