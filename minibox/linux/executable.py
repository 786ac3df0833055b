"""An executable that nobody can change by way of a process that runs it.

A container's first process runs ours until its exec, and an image may have that exec be of
/proc/self/exe, and then open that, or /proc/PID/exe, for writing (CVE-2019-5736 was that).
"""

from __future__ import annotations

import os
from errno import EINVAL
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl

from minibox._native import ffi, lib

#: What is executed: minibox-init, which plays several parts; native/init.c.
INIT = os.path.join(os.path.dirname(os.path.dirname(__file__)), "minibox-init")

AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, 0o2000000
MOUNT_ATTR_RDONLY = 1
MFD_EXEC = 0x10  # Linux 6.3
SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE


def open_init() -> int:
    """A descriptor of minibox-init to execute by /proc/self/fd, close-on-exec.

    For root it is of a read-only mount that is in no mount namespace: nobody can make it writable once the descriptor
    is closed, and memory is shared with all who run the file. For an ordinary user, who can't mount, a copy in memory,
    but only of a file of his own: another he can't write to in any way.

    Raises:
        OSError: the kernel refuses.
    """
    if os.geteuid() == 0:
        try:
            return _read_only_mount(INIT)
        except PermissionError:
            pass  # root of a user namespace whose mounts are the host's
    fd = os.open(INIT, os.O_RDONLY | os.O_CLOEXEC)
    if os.fstat(fd).st_uid != os.geteuid() and not os.access(INIT, os.W_OK):
        return fd
    try:
        return _sealed_copy(fd)
    finally:
        os.close(fd)


def _read_only_mount(path: str) -> int:
    fd: int = lib.mb_open_tree(AT_FDCWD, os.fsencode(path), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
    if fd < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno), path)
    attributes = ffi.new("struct mb_mount_attr *", {"attr_set": MOUNT_ATTR_RDONLY})
    if lib.mb_mount_setattr(fd, b"", AT_EMPTY_PATH, attributes) < 0:
        error = OSError(ffi.errno, os.strerror(ffi.errno), path)
        os.close(fd)
        raise error
    return fd


def _sealed_copy(source: int) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("minibox-init", flags | MFD_EXEC)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        fd = os.memfd_create("minibox-init", flags)
    try:
        left = os.fstat(source).st_size
        while left:
            left -= os.sendfile(fd, source, None, left)
        fcntl(fd, F_ADD_SEALS, SEALS)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # one open for writing can't be executed
    finally:
        os.close(fd)
