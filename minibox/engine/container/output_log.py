"""The log of a container that the calling program runs, in the format of a supervisor's log.

A small helper process writes it, so that this process needs no thread and no memory for it. The helper has its own
session, reads all output and ends with the container.
"""

from __future__ import annotations

import os

from minibox.base.files import close_descriptors
from minibox.engine.container.logs import read_log
from minibox.engine.state.log_file import log_path
from minibox.linux.executable import INIT
from minibox.linux.process import exit_status

LOG_ARGV0 = "minibox-log"  # native/parent/output_log.c
BYTES_MAX, FILES = 8 << 20, 2


class OutputLog:
    """The log of one container.

    Attributes:
        fds: for the container's standard output and error. `close_fds` closes this process's copies.
    """

    def __init__(self, root: str, container_id: str) -> None:
        """Start the helper. The container's directory must exist.

        Raises:
            OSError: a process or a pipe can't be made.
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
            self.close_fds()
            raise
        finally:
            close_descriptors(*readers)

    def close_fds(self) -> None:
        """Close our copies of ``fds``, once the container has them. They are forgotten first, as in `Claim.hand_over`."""
        fds, self.fds = self.fds, ()
        close_descriptors(*fds)

    def finish(self) -> None:
        """Wait until all output is in the log. Call it after the container's end."""
        self.close_fds()
        if self._pid:
            exit_status(self._pid)
            self._pid = 0

    def after_fork(self) -> None:
        """Let go of the log in the child after a fork."""
        self.close_fds()
        self._pid = 0


def text(path: str) -> str:
    """The whole text of a log."""
    return "".join(entry.text for entry in read_log(path))


def last_lines(path: str, count: int) -> tuple[str, ...]:
    """The last lines of a log, without line ends."""
    return tuple(entry.text.rstrip("\n") for entry in read_log(path, tail=count))
