"""Remove a directory tree that a container filled: any mode, any name, any depth.

It works with directory descriptors, so that no symlink is followed. It doesn't use `shutil`, because with ``--rm`` the
import would take longer than the removal.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from minibox.base.files import closing
from minibox.errors import StoreError, kernel_says
from minibox.linux.files import remove_quickly

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
IMMUTABLE_OR_APPEND_ONLY = 0x10 | 0x20
TRIES = 100


def remove_tree(path: str) -> None:
    """Remove ``path`` and everything below it. It is no error if there is nothing.

    If the mode of a directory denies access (overlayfs makes work/work with mode 000), change it. If a container made a
    file immutable, undo that if we may.

    Raises:
        OSError: the kernel refused, for example (EACCES, EPERM) files that belong to a subordinate user id, outside of
            their user namespace.
    """
    parent, name = os.path.split(path.rstrip("/"))
    try:
        parent_fd = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with closing(parent_fd):
        for tries_left in reversed(range(TRIES)):
            try:
                return remove_at(os.fsencode(name), parent_fd)
            except OSError as error:  # another command may still write into a container's directory, such as `stop`
                if error.errno != errno.ENOTEMPTY or not tries_left:
                    raise


def remove_directory(path: str) -> None:
    """Like `remove_tree`, but raise an error that can be shown.

    Raises:
        StoreError: the kernel refused; the OSError is its cause.
    """
    try:
        remove_tree(path)
    except OSError as error:
        where = f"remove {path}" + (f" ({error.filename!r})" if error.filename else "")
        raise StoreError(f"{where}: {kernel_says(error)}") from error


def remove_at(name: bytes, dir_fd: int) -> None:
    """Like `remove_tree`, for ``name`` in the directory ``dir_fd``."""
    if remove_quickly(dir_fd, name):
        return
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        # For a directory Linux says EISDIR, and POSIX EPERM. EPERM may also mean an immutable file.
        if error.errno not in (errno.EISDIR, errno.EPERM, errno.EACCES):
            raise
        if not stat.S_ISDIR(os.lstat(name, dir_fd=dir_fd).st_mode):
            _unlock(name, dir_fd)
            os.unlink(name, dir_fd=dir_fd)
            return
    _remove_directory(name, dir_fd)


def _remove_directory(name: bytes, dir_fd: int) -> None:
    """Remove depth first, with an explicit stack: a container can nest directories deeper than Python recurses.

    Only one descriptor is open at a time. ".." leads back up, and we check that it is the same directory as before: if
    somebody moved the current one meanwhile, it would lead to other files.
    """
    current = _open_directory(name, dir_fd)
    stack: list[tuple[bytes, os.stat_result]] = []
    try:
        while True:
            inner = _empty(current)
            if inner is not None:
                below = _open_directory(inner, current)
                stack.append((inner, os.fstat(current)))
                os.close(current)
                current = below
                continue
            if not stack:
                break
            above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = above
            inner, before = stack.pop()
            if not os.path.samestat(os.fstat(current), before):
                raise OSError(errno.EBUSY, "a directory was moved while it was removed", inner)
            _rmdir(inner, current)
    finally:
        os.close(current)
    _rmdir(name, dir_fd)


def _empty(directory_fd: int) -> bytes | None:
    """Remove all files and empty directories in a directory; return a directory that is left, or None."""
    with os.scandir(directory_fd) as entries:
        found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        try:
            if is_directory:
                os.rmdir(name, dir_fd=directory_fd)
            else:
                os.unlink(name, dir_fd=directory_fd)
        except FileNotFoundError:  # `stop` replaces its mark
            continue
        except OSError as error:
            if is_directory:
                return name
            if error.errno not in (errno.EPERM, errno.EACCES):
                raise
            _clear_flags(directory_fd)
            _unlock(name, directory_fd)
            os.unlink(name, dir_fd=directory_fd)
    return None


def _rmdir(name: bytes, dir_fd: int) -> None:
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except PermissionError:
        _clear_flags(dir_fd)
        _unlock(name, dir_fd)
        os.rmdir(name, dir_fd=dir_fd)


def _open_directory(name: bytes, dir_fd: int) -> int:
    """Open a directory to empty it; make it readable, writable and searchable for its owner."""
    try:
        descriptor = os.open(name, OPEN_DIRECTORY, dir_fd=dir_fd)
    except PermissionError:
        descriptor = _open_closed(name, dir_fd)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & 0o700 != 0o700 and os.geteuid() != 0:
        os.fchmod(descriptor, 0o700)
    return descriptor


def _open_closed(name: bytes, dir_fd: int) -> int:
    """Change the mode of a directory that denies us access, and open it."""
    with closing(os.open(name, LOOK | os.O_DIRECTORY, dir_fd=dir_fd)) as found:
        os.chmod(f"/proc/self/fd/{found}", 0o700)
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _unlock(name: bytes, dir_fd: int) -> None:
    """Clear the immutable and append-only flags of a file or directory (chattr(1)) if we can."""
    found = os.open(name, LOOK, dir_fd=dir_fd)
    try:
        mode = os.fstat(found).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return
        descriptor = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    finally:
        os.close(found)
    with closing(descriptor):
        _clear_flags(descriptor)


def _clear_flags(descriptor: int) -> None:
    buffer = bytearray(8)
    try:
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, buffer)
        flags = int.from_bytes(buffer[:4], "little")
        if flags & IMMUTABLE_OR_APPEND_ONLY:
            buffer[:4] = (flags & ~IMMUTABLE_OR_APPEND_ONLY).to_bytes(4, "little")
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, buffer)
    except OSError:
        return
