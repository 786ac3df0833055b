"""Open our executable so that nobody can change it through a process that runs it.

Until its exec, a container's first process runs our executable. An image may make it exec /proc/self/exe, and then
open that or /proc/PID/exe for writing (CVE-2019-5736).
"""

from __future__ import annotations

import os
from errno import EINVAL
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl

from minibox._native import ffi, lib
from minibox.base.files import closing
from minibox.errors import suppress

#: minibox-init, one executable for several programs; native/init.c.
INIT = os.path.join(os.path.dirname(os.path.dirname(__file__)), "minibox-init")

AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, 0o2000000
MOUNT_ATTR_RDONLY = 1
MFD_EXEC = 0x10  # Linux 6.3
SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE


def open_init() -> int:
    """Return a close-on-exec descriptor of minibox-init, to execute through /proc/self/fd.

    For root, it is on a detached read-only mount: nobody can make that writable once the descriptor is closed, and all
    processes that run the file share its memory. An ordinary user can't mount, so it is a sealed copy in memory,
    unless the user can't write to the file anyway.

    Raises:
        OSError: the kernel refuses.
    """
    if os.geteuid() == 0:
        with suppress(PermissionError):  # we are root of a user namespace, and the mounts are the host's
            return _read_only_mount(INIT)
    fd = os.open(INIT, os.O_RDONLY | os.O_CLOEXEC)
    if os.fstat(fd).st_uid != os.geteuid() and not os.access(INIT, os.W_OK):
        return fd
    with closing(fd):
        return _sealed_copy(fd)


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
    with closing(fd):
        left = os.fstat(source).st_size
        while left:
            left -= os.sendfile(fd, source, None, left)
        fcntl(fd, F_ADD_SEALS, SEALS)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # a writable one can't be executed
