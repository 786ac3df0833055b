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


class NotRegularFile(OSError):
    """A file was expected, and something else is there: a device, a FIFO, a socket, a directory."""


class FileTooLarge(OSError):
    """A file is larger than its reader accepts."""


def replace_file(path: str, data: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Write ``path`` anew: readers see the old content or the new one, and of two writers one wins whole.

    Args:
        mode: the permissions, whatever the umask is.
        durable: return only when the new content survives a power loss.

    Raises:
        OSError: with the path; then the old content is still there and nothing is left beside it.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(temporary, WRITE_NEW, mode)
    try:
        try:
            os.fchmod(fd, mode)
            _write_all(fd, data)
            if durable:
                os.fdatasync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException as error:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        if isinstance(error, OSError) and not error.filename:
            error.filename = path
        raise
    if durable:
        sync_directory(directory or ".")


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
    fd = os.open(path, READ | flags, dir_fd=dir_fd)
    try:
        return read_fd(fd, limit_bytes, path)
    finally:
        os.close(fd)


def read_fd(fd: int, limit_bytes: int, path: Path | None = None) -> bytes:
    """As `read_file`, from the beginning of a file that is open; ``path`` is for the error.

    The size that the file system reports is not trusted: a file of /proc has none, and a file may grow meanwhile.
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


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
