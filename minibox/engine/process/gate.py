"""The gate of a container that is created and not yet started: it waits there, all done but its exec.

Two files in a directory of the container's: a FIFO that the container reads one byte from, and a
report, into which it writes what fails behind the gate. The container holds both open until its
exec closes them; so to who opens the gate, a FIFO without a reader says that the command runs, or
that all is over. Nothing of it needs the process that created the container.
"""

from __future__ import annotations

import os
from errno import ENXIO
from select import POLLERR, poll
from struct import unpack

from minibox.errors import MiniboxError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

EXEC, FAILED = 1, 2  # native/child.h; not from linux.process, since `start` needs nothing else of our C
STILL_MS = 500
FIFO, REPORT = "gate", "gate.report"
HEAD = "=IIiI"  # struct mb_record: state, index, errno, detail


class GateClosed(MiniboxError):
    """Nobody waits at the gate."""


def make_gate(directory: str) -> tuple[int, int]:
    """Make the files; the descriptors that the container is given (`start.Resources.gate`), for the caller to close.

    Raises:
        OSError: the kernel refuses.
    """
    os.mkfifo(f"{directory}/{FIFO}", 0o600)
    # For writing too: else opening it would wait for a writer, and so would reading when one has gone.
    fifo = os.open(f"{directory}/{FIFO}", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fifo, os.open(f"{directory}/{REPORT}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        os.close(fifo)
        raise


def waits(directory: str) -> bool:
    """Is there a container that waits at the gate?"""
    try:
        os.close(os.open(f"{directory}/{FIFO}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def open_gate(directory: str, still_waiting: Callable[[], None] = lambda: None) -> tuple[int, int, int] | None:
    """Let the container pass, once and for all, and wait until its command runs or it has ended.

    Args:
        still_waiting: is called again and again while it takes long, and raises what is a reason to give up.

    Returns:
        The index of the step that failed among those of `operations.INIT`, its errno, its detail (of exec: the
        candidate that was there); None when the command runs, or the process was killed.

    Raises:
        GateClosed: no container waits here: it has been started, or has ended.
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
    try:
        os.unlink(path)  # before it passes: whoever comes later finds nothing to open
        os.write(fd, b"0")
        gone = poll()
        gone.register(fd, POLLERR)
        while not gone.poll(STILL_MS):
            still_waiting()
    finally:
        os.close(fd)
    return _report(f"{directory}/{REPORT}")


def _report(path: str) -> tuple[int, int, int] | None:
    with open(path, "rb") as file:
        data = file.read(16)
    if len(data) < 16:
        return None
    state, index, errno, detail = unpack(HEAD, data)
    return (index, errno, detail) if state in (FAILED, EXEC) else None
