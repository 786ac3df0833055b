"""Read, write and copy files of a container that the calling program runs, with the container's paths and owners.

As in `minibox cp`, a helper process does this. It is root in the container's user namespace and works below the
container's root directory.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from errno import EFBIG
from functools import partial

from minibox.base.files import closing
from minibox.engine.container.exec import read_inside
from minibox.engine.files import copy, worker
from minibox.engine.spec.users import resolve_user
from minibox.errors import MiniboxError, kernel_says, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.engine.container.embedded import Embedded


def write(box: Embedded, path: str, data: bytes, mode: int, user: str) -> None:
    """Write a file. If it exists, its content is replaced.

    Args:
        user: its owner, ``name|uid[:group|gid]``; "" for root.

    Raises:
        MiniboxError: its directory is missing or can't be written.
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
        with suppress(BrokenPipeError):  # the helper has failed: `result` raises its error
            with open(writer, "wb", 0) as pipe:
                view = memoryview(data)
                while view:
                    view = view[pipe.write(view) or 0 :]
        job.result()


def read(box: Embedded, path: str, limit_bytes: int) -> bytes:
    """Read a file of at most ``limit_bytes``.

    Raises:
        MiniboxError: it is missing, isn't a regular file, or is larger.
    """
    pid = _pid(box, "read from")
    with _inside(box, pid, f"read {path}") as root_fd:
        found: bytes = worker.begin("read", (root_fd,), (path, limit_bytes), pid).result()
        return found


def put(box: Embedded, source: str, path: str) -> None:
    """See `copy.copy_in`."""
    _pid(box, "copy to")
    copy.copy_in(box.home.root, source, box.name, path)


def get(box: Embedded, path: str, destination: str) -> None:
    """See `copy.copy_out`."""
    _pid(box, "copy from")
    copy.copy_out(box.home.root, box.name, path, destination)


def _pid(box: Embedded, what: str) -> int:
    box.check_running(what)
    assert box.main
    return box.main.pid


@contextmanager
def _inside(box: Embedded, pid: int, what: str) -> Iterator[int]:
    """Open the container's root directory, and turn OSError into MiniboxError."""
    try:
        with closing(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root_fd:
            yield root_fd
    except OSError as error:
        hint = "copy it to a file with get, or raise limit_bytes" if error.errno == EFBIG else None
        raise MiniboxError(f"{what} in sandbox {box.name}: {kernel_says(error)}", hint) from error
