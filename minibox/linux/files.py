"""Open files below a directory, safe from symlinks that lead out of it."""

from __future__ import annotations

import os

from minibox._native import ffi, lib
from minibox.base.files import READ, closing, open_regular, read_fd

RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x02, 0x04, 0x08, 0x10
EAGAIN = 11
PATH_BYTES_MAX = 4096  # PATH_MAX, with the byte at the end
DEPTH_MAX: int = lib.MB_REMOVE_DEPTH


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` as if ``root_fd`` were the root directory; openat2(2), Linux 5.6.

    Absolute symlinks and ``..`` stay below ``root_fd``. The descriptor is close-on-exec.

    Args:
        mode: the mode of a new file.

    Raises:
        OSError: with the path.
    """
    return _open(root_fd, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, mode)


def open_regular_in_root(root_fd: int, path: str, flags: int = READ) -> int:
    """Like `open_in_root`, but only open regular files; for ``flags`` see `base.files.open_regular`.

    Raises:
        NotRegularFile: it is something else.
        OSError: with the path.
    """
    with closing(open_in_root(root_fd, path, os.O_PATH)) as look:
        return open_regular(look, flags, path)


def read_in_root(root_fd: int, path: str, limit_bytes: int) -> bytes:
    """Return the content of a regular file of at most ``limit_bytes``, which a container or an image may have made.

    Raises:
        NotRegularFile, FileTooLarge: like `base.files.read_file`.
        OSError: with the path.
    """
    with closing(open_regular_in_root(root_fd, path)) as fd:
        return read_fd(fd, limit_bytes, path)


def open_beneath(root_fd: int, path: str | bytes, flags: int) -> int:
    """Open ``path`` below the directory ``root_fd`` without following symlinks, even if others change the tree.

    To open a symlink itself, pass O_PATH and O_NOFOLLOW. ``.`` is ``root_fd`` itself. The descriptor is
    close-on-exec. The path may be longer than the kernel accepts at once, since trees can be deeper than that.

    Raises:
        OSError: with the path; ELOOP if a symlink is on the way.
    """
    beneath = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    rest, fd = os.fsencode(path), root_fd
    try:
        while len(rest) >= PATH_BYTES_MAX and (end := rest.rfind(b"/", 0, PATH_BYTES_MAX)) > 0:
            above = _open(fd, rest[:end], os.O_PATH | os.O_DIRECTORY, beneath)
            if fd != root_fd:
                os.close(fd)
            fd, rest = above, rest[end + 1 :]
        return _open(fd, rest, flags, beneath)
    except OSError as error:
        error.filename = path
        raise
    finally:
        if fd != root_fd:
            os.close(fd)


def _open(root_fd: int, path: str | bytes, flags: int, resolve: int, mode: int = 0) -> int:
    while True:
        fd: int = lib.mb_openat2(root_fd, os.fsencode(path), flags | os.O_CLOEXEC, mode, resolve)
        if fd >= 0:
            return fd
        if ffi.errno != EAGAIN:  # something was renamed meanwhile, so the kernel can't be sure about ".."
            raise OSError(ffi.errno, os.strerror(ffi.errno), path)


def remove_quickly(dir_fd: int, name: bytes) -> bool:
    """Remove ``name`` in a directory and everything below it with one call into C, without following links.

    Returns:
        False if something can't be removed this way. Some files may be gone by then.
    """
    return bool(lib.mb_remove(dir_fd, name, DEPTH_MAX) == 0)


def sync_file_system(directory_fd: int) -> None:
    """Write the cached data of the file system of ``directory_fd`` to disk; syncfs(2), Linux 2.6.39.

    Raises:
        OSError: writing failed, now or earlier: EIO, ENOSPC, EDQUOT.
    """
    if lib.syncfs(directory_fd) < 0:
        raise OSError(ffi.errno, f"syncfs: {os.strerror(ffi.errno)}")
