"""What the main process of a container of the calling program writes: in a log beside it, as a supervisor would keep.

A small process of its own session writes it: no thread, and nothing grows in this process's memory. It ends with the
container, whose output it has to the end.
"""

from __future__ import annotations

import os

from minibox.engine.container.background import log_path
from minibox.engine.container.logs import read_log
from minibox.linux.executable import INIT
from minibox.linux.process import exit_status

LOG_ARGV0 = "minibox-log"  # native/output_log.c
BYTES_MAX, FILES = 8 << 20, 2


class OutputLog:
    """The log of one container.

    Attributes:
        fds: for its standard output and error; `begun` closes this process's copies.
    """

    def __init__(self, root: str, container_id: str) -> None:
        """Start to write; the container's directory is there.

        Raises:
            OSError: no process or no descriptor is to be had.
        """
        self.path = log_path(root, container_id)
        self._pid = 0
        readers, writers = zip(*(os.pipe2(os.O_CLOEXEC) for _ in range(2)))
        self.fds: tuple[int, ...] = writers
        streams = [(os.POSIX_SPAWN_DUP2, reader, number) for number, reader in enumerate(readers)]
        argv = (LOG_ARGV0, self.path, str(BYTES_MAX), str(FILES))
        try:
            self._pid = os.posix_spawn(INIT, argv, {}, file_actions=streams, setsid=True)
        except BaseException:
            self.begun()
            raise
        finally:
            for fd in readers:
                os.close(fd)

    def begun(self) -> None:
        """The container has its ends."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()

    def finish(self) -> None:
        """The container has ended: until all of its output is in the log."""
        self.begun()
        if self._pid:
            exit_status(self._pid)
            self._pid = 0

    def disown(self) -> None:
        """In a child that a fork made."""
        self.begun()
        self._pid = 0


def text(path: str) -> str:
    """All that a log has."""
    return "".join(entry.text for entry in read_log(path))


def last_lines(path: str, count: int) -> tuple[str, ...]:
    """The last lines that a container wrote, without their ends."""
    return tuple(entry.text.rstrip("\n") for entry in read_log(path, tail=count))
