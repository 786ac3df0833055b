"""The one writer and the one reader of small files.

What we keep is written to a temporary file and renamed: a reader sees the old content or the new, never half. What a
container, another user or a crash may have written is read with a limit, and only from a regular file.
"""

from __future__ import annotations

import os
from errno import EFBIG, EINVAL
from stat import S_ISREG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike

    Path = str | bytes | PathLike[str]

WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # O_NONBLOCK: a FIFO must not make us wait
CHUNK_BYTES = 1 << 16
ASIDE = ".damaged-"  # how the name begins of what was in the way


class NotRegularFile(OSError):
    """A file was expected, and something else is there: a device, a FIFO, a socket, a directory."""

    not_from_kernel = True  # see `errors.NotFromKernel`, which minibox-oci has no time to import


class FileTooLarge(OSError):
    """A file is larger than its reader accepts."""

    not_from_kernel = True


def replace_file(path: str, data: bytes, *, mode: int = 0o600, durable: bool = False, by: str = "") -> None:
    """Write ``path`` anew: readers see the old content or the new one, and of two writers one wins whole.

    Args:
        mode: the permissions, whatever the umask is.
        durable: return only when the new content survives a power loss.
        by: a directory of the same file system, where it is until it is whole; "" for its own.

    Raises:
        OSError: with the path, and nothing is left beside it. The old content is still there, unless only the sync of
            the directory failed.
    """
    os.close(_replace(path, data, mode, durable, lock=False, by=by))


def replace_locked(path: str, data: bytes, *, mode: int = 0o600, durable: bool = False) -> int:
    """The same; a descriptor of the file, which holds its lock (flock(2)) since before anybody could see it."""
    return _replace(path, data, mode, durable, lock=True)


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
    """A symlink to ``target`` at ``path``, in place of what is there: the cheapest note, never half written.

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
    """A path that nobody can foresee."""
    return os.path.join(directory, f".{name[:200]}.{os.getpid()}.{os.urandom(4).hex()}")


def close_descriptors(*fds: int) -> None:
    """Close those that are open; -1 stands for none."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def discard(path: str) -> None:
    """Remove a file of ours, or what is in its place; none is fine.

    Raises:
        OSError: with the path.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):  # POSIX has EPERM for a directory
        if not os.path.isdir(path) or os.path.islink(path):
            raise
        put_aside(path)


def remove_all(directory: str) -> None:
    """Remove a directory of ours with all that is in it; no symlink is followed.

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
    """A directory that is where a file belongs is kept beside it: else it would be in the way for ever."""
    directory, name = os.path.split(path)
    os.rename(path, os.path.join(directory, f"{ASIDE}{name[:200]}.{os.urandom(4).hex()}"))


def sync_directory(path: str) -> None:
    """Return when what was made, renamed and removed in the directory survives a power loss.

    Raises:
        OSError: with the path.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_file(path: Path, limit_bytes: int, *, dir_fd: int | None = None, flags: int = 0) -> bytes:
    """The content of a regular file of at most ``limit_bytes``.

    Args:
        flags: of open(2), beside those for reading: O_NOFOLLOW, say.

    Raises:
        NotRegularFile: it is something else; nothing was read from it.
        FileTooLarge: it has more than ``limit_bytes``.
        OSError: it can't be opened or read, with the path.
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
    """Open what ``look_fd`` is a descriptor of (O_PATH), if it is a regular file: to open a device may do something already.

    Args:
        flags: of open(2), O_NONBLOCK among them: a file may have a lease (fcntl(2)), which open waits for.
        path: for the error.

    Raises:
        NotRegularFile: it is something else, and was not opened.
        OSError: with the path.
    """
    if not S_ISREG(os.fstat(look_fd).st_mode):
        raise NotRegularFile(EINVAL, "it is no regular file", path)
    try:
        return os.open(f"/proc/self/fd/{look_fd}", flags)
    except OSError as error:
        error.filename = path
        raise


def read_fd(fd: int, limit_bytes: int, path: Path | None = None) -> bytes:
    """As `read_file`, from the beginning of a file that is open; ``path`` is for the error.

    The size that the file system reports is not trusted: a file of /proc has none, and a file may grow meanwhile.
    """
    status = os.fstat(fd)
    if not S_ISREG(status.st_mode):
        raise NotRegularFile(EINVAL, "it is no regular file", path)
    if status.st_size > limit_bytes:
        raise FileTooLarge(EFBIG, f"it is larger than {limit_bytes} bytes", path)
    chunks, size = [], 0
    while chunk := os.pread(fd, min(CHUNK_BYTES, limit_bytes + 1 - size), size):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit_bytes:
            raise FileTooLarge(EFBIG, f"it is larger than {limit_bytes} bytes", path)
    return b"".join(chunks)


def open_to_append(path: str, mode: int = 0o600) -> int:
    """A descriptor to add to a regular file, which is made where it isn't there; nothing else is waited for.

    Raises:
        NotRegularFile: something else is there.
        OSError: it can't be opened.
    """
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    return _regular(fd, path)


def open_to_read(path: str) -> int:
    """A descriptor to read a regular file; raises as `open_to_append`."""
    return _regular(os.open(path, READ), path)


def _regular(fd: int, path: str) -> int:
    if S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise NotRegularFile(EINVAL, "it is no regular file", path)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data`` at the position of a file."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
