"""Files of a container of the calling program: written, read, and copied in and out, by its own names and owners.

As `minibox cp` does it: by a process that is root of the container's user namespace, below its root directory.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from errno import EFBIG
from functools import partial

from minibox.engine.container.exec import read_inside
from minibox.engine.files import copy, worker
from minibox.engine.spec.users import resolve_user
from minibox.errors import MiniboxError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.engine.container.embedded import Embedded


def write(box: Embedded, path: str, data: bytes, mode: int, user: str) -> None:
    """Write a file; what was there of that name is replaced in place.

    Args:
        user: whose it is, ``name|uid[:group|gid]``; "" for root's.

    Raises:
        MiniboxError: its directory isn't there, or can't be written.
    """
    pid = _pid(box, "write to")
    owner = resolve_user(user, (), partial(read_inside, pid)) if user else None
    ids = (owner.uid, owner.gid) if owner else (0, 0)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with _inside(box, pid, f"write {path}") as root_fd:
        try:
            job = worker.begin("write", (root_fd, reader), (path, mode, ids), pid, (writer,))
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        try:
            with open(writer, "wb", 0) as pipe:
                view = memoryview(data)
                while view:
                    view = view[pipe.write(view) or 0 :]
        except BrokenPipeError:
            pass  # it has failed, and says how
        job.result()


def read(box: Embedded, path: str, limit_bytes: int) -> bytes:
    """The content of a file of at most ``limit_bytes``.

    Raises:
        MiniboxError: it isn't there, is no regular file, or is larger.
    """
    pid = _pid(box, "read from")
    with _inside(box, pid, f"read {path}") as root_fd:
        found: bytes = worker.begin("read", (root_fd,), (path, limit_bytes), pid).result()
        return found


def put(box: Embedded, source: str, path: str) -> None:
    """See `copy.copy_in`."""
    _pid(box, "copy to")
    copy.copy_in(box.root, source, box.name, path)


def get(box: Embedded, path: str, destination: str) -> None:
    """See `copy.copy_out`."""
    _pid(box, "copy from")
    copy.copy_out(box.root, box.name, path, destination)


def _pid(box: Embedded, what: str) -> int:
    box.check_running(what)
    assert box.main
    return box.main.pid


@contextmanager
def _inside(box: Embedded, pid: int, what: str) -> Iterator[int]:
    """The container's root directory, and errors in words."""
    try:
        root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield root_fd
        finally:
            os.close(root_fd)
    except OSError as error:
        hint = "copy it to a file with get, or raise limit_bytes" if error.errno == EFBIG else None
        raise MiniboxError(f"{what} in sandbox {box.name}: {kernel_says(error)}", hint) from error
