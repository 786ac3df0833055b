"""Files of a container of the calling program: written, read, and copied in and out, by its own names and owners.

As `minibox cp` does it: by a child that is root of the container's user namespace, below its root directory.
"""

from __future__ import annotations

import os
from errno import EISDIR
from functools import partial
from stat import S_ISREG

from minibox.engine import copy
from minibox.engine.exec import read_inside
from minibox.engine.user_namespace import Work
from minibox.engine.users import resolve_user
from minibox.errors import MiniboxError, kernel_says
from minibox.linux.files import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from minibox.engine.embedded import Embedded

    T = TypeVar("T")

CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
COPY_OUT = COPY_IN = copy.DEFAULTS


def write(box: Embedded, path: str, data: bytes, mode: int, user: str) -> None:
    """Write a file; what was there of that name is replaced in place.

    Args:
        user: whose it is, ``name|uid[:group|gid]``; "" for root's.

    Raises:
        MiniboxError: its directory isn't there, or can't be written.
    """
    pid = _pid(box, "write to")
    owner = resolve_user(user, (), partial(read_inside, pid)) if user else None

    def work(root_fd: int) -> None:
        fd = open_in_root(root_fd, path, CREATE, mode)
        try:
            _check_regular(fd, path)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchown(fd, owner.uid if owner else 0, owner.gid if owner else 0)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    _inside(box, pid, f"write {path}", work)


def read(box: Embedded, path: str) -> bytes:
    """The content of a file.

    Raises:
        MiniboxError: it isn't there, or is no file.
    """
    pid = _pid(box, "read from")

    def work(root_fd: int) -> bytes:
        fd = open_in_root(root_fd, path, READ)
        with open(fd, "rb", 0) as file:
            _check_regular(fd, path)
            return file.read()

    return _inside(box, pid, f"read {path}", work)


def put(box: Embedded, source: str, path: str) -> None:
    """See `copy.copy_in`."""
    _pid(box, "copy to")
    copy.copy_in(box.root, source, box.id, path)


def get(box: Embedded, path: str, destination: str) -> None:
    """See `copy.copy_out`."""
    _pid(box, "copy from")
    copy.copy_out(box.root, box.id, path, destination)


def _pid(box: Embedded, what: str) -> int:
    box.check_running(what)
    assert box.main
    return box.main.pid


def _check_regular(fd: int, path: str) -> None:
    if not S_ISREG(os.fstat(fd).st_mode):
        raise MiniboxError(f"{path} is no regular file")


def _inside(box: Embedded, pid: int, what: str, function: Callable[[int], T]) -> T:
    """Call a function with the container's root directory, as root inside."""
    try:
        root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return Work(partial(function, root_fd), pid).result()
        finally:
            os.close(root_fd)
    except OSError as error:
        hint = "the name of a directory" if error.errno == EISDIR else None
        raise MiniboxError(f"{what} in sandbox {box.name}: {kernel_says(error)}", hint) from error
