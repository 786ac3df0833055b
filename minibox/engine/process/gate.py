"""The gate of a container that is created but not started. Everything is done but the exec, which waits at the gate.

The gate is two files in the container's directory: a FIFO, from which the container reads one byte, and a report, where
it writes what fails after the gate. The container holds both open until its exec closes them. So when the FIFO has no
reader any more, the command runs or the process has ended. Any process can open the gate, not only the one that created
the container.
"""

from __future__ import annotations

import os
from errno import ENXIO
from select import POLLERR, poll
from struct import unpack

from minibox.base.files import closing
from minibox.errors import MiniboxError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

EXEC, FAILED = 1, 2  # native/child/child.h; not imported from linux.process, because `start` needs no other C code
STILL_MS = 500
FIFO, REPORT = "gate", "gate.report"
HEAD = "=IIiI"  # struct mb_record: state, index, errno, detail


class GateClosed(MiniboxError):
    """No container waits at the gate."""


def make_gate(directory: str) -> tuple[int, int]:
    """Make the files. Return their descriptors, for the container (`execution.Resources.gate`); the caller closes them.

    Raises:
        OSError: a file can't be made.
    """
    os.mkfifo(f"{directory}/{FIFO}", 0o600)
    # Open it for writing, too: otherwise the open waits for a writer, and a read returns 0 once the writer is gone.
    fifo = os.open(f"{directory}/{FIFO}", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fifo, os.open(f"{directory}/{REPORT}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        os.close(fifo)
        raise


def open_gate(directory: str, still_waiting: Callable[[], None] = lambda: None) -> tuple[int, int, int] | None:
    """Open the gate for good, and wait until the container's command runs or the process has ended.

    Args:
        still_waiting: called repeatedly while we wait; it raises an error to give up.

    Returns:
        The failed step: its index among those of `operations.INIT`, its errno and its detail (for exec, the index of
        the path that was found). None if the command runs, or the process was killed.

    Raises:
        GateClosed: no container waits here: it has been started already, or has ended.
    """
    path = f"{directory}/{FIFO}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise GateClosed("it has been started already") from None
    except OSError as error:
        if error.errno == ENXIO:
            raise GateClosed("its process has ended") from None
        raise MiniboxError(f"open {path}: {kernel_says(error)}") from error
    with closing(fd):
        os.unlink(path)  # first, so that nobody else can open the gate
        os.write(fd, b"0")
        gone = poll()
        gone.register(fd, POLLERR)
        while not gone.poll(STILL_MS):
            still_waiting()
    return _report(f"{directory}/{REPORT}")


def _report(path: str) -> tuple[int, int, int] | None:
    with open(path, "rb") as file:
        data = file.read(16)
    if len(data) < 16:
        return None
    state, index, errno, detail = unpack(HEAD, data)
    return (index, errno, detail) if state in (FAILED, EXEC) else None
