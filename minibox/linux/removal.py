"""Removing a directory tree that a container filled: any mode, any name, any depth.

By directory descriptors, so that no symlink is followed, and without `shutil`, whose import would
cost every ``--rm`` more than the removal.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from minibox.errors import StoreError, kernel_says
from minibox.linux.files import remove_quickly

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
IMMUTABLE_OR_APPEND_ONLY = 0x10 | 0x20


def remove_tree(path: str) -> None:
    """Remove ``path`` and all below it; nothing there is no error.

    Directories that their mode closes (overlayfs makes work/work with mode 000) are opened, and
    what a container made immutable is made mutable, where the caller may do so.

    Raises:
        OSError: the kernel refused, as for files of a subordinate user id outside of their user
            namespace (EACCES, EPERM).
    """
    parent, name = os.path.split(path.rstrip("/"))
    try:
        parent_fd = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_at(os.fsencode(name), parent_fd)
    finally:
        os.close(parent_fd)


def remove_directory(path: str) -> None:
    """`remove_tree`, with an error in words.

    Raises:
        StoreError: the kernel refused; its cause is the OSError.
    """
    try:
        remove_tree(path)
    except OSError as error:
        where = f"remove {path}" + (f" ({error.filename!r})" if error.filename else "")
        raise StoreError(f"{where}: {kernel_says(error)}") from error


def remove_at(name: bytes, dir_fd: int) -> None:
    """`remove_tree` for ``name`` in the directory ``dir_fd``."""
    if remove_quickly(dir_fd, name):
        return
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        # EISDIR for a directory on Linux; EPERM for it by POSIX, and for what is immutable.
        if error.errno not in (errno.EISDIR, errno.EPERM, errno.EACCES):
            raise
        if not stat.S_ISDIR(os.lstat(name, dir_fd=dir_fd).st_mode):
            _unlock(name, dir_fd)
            os.unlink(name, dir_fd=dir_fd)
            return
    _remove_directory(name, dir_fd)


def _remove_directory(name: bytes, dir_fd: int) -> None:
    """Depth first with an explicit stack: a container can nest deeper than Python recurses.

    Only one descriptor is open at a time; ".." leads back up, and must be the directory that it was: one that
    somebody moves meanwhile leads to others' files.
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
    """Unlink all that is no directory, and directories that are empty; one that is left, or None."""
    with os.scandir(directory_fd) as entries:
        found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        try:
            if is_directory:
                os.rmdir(name, dir_fd=directory_fd)
            else:
                os.unlink(name, dir_fd=directory_fd)
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
    """Open a directory for emptying: readable, writable and searchable for its owner."""
    try:
        descriptor = os.open(name, OPEN_DIRECTORY, dir_fd=dir_fd)
    except PermissionError:
        descriptor = _opened_up(name, dir_fd)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & 0o700 != 0o700 and os.geteuid() != 0:
        os.fchmod(descriptor, 0o700)
    return descriptor


def _opened_up(name: bytes, dir_fd: int) -> int:
    """Open a directory that its mode closes, after a change of that."""
    found = os.open(name, LOOK | os.O_DIRECTORY, dir_fd=dir_fd)
    try:
        os.chmod(f"/proc/self/fd/{found}", 0o700)
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(found)


def _unlock(name: bytes, dir_fd: int) -> None:
    """Clear the immutable and append-only flags of a file or directory (chattr(1)); best effort."""
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
    try:
        _clear_flags(descriptor)
    finally:
        os.close(descriptor)


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
