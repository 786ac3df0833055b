"""A container in the foreground dies with its owner, even when it has forgotten that it wants to.

The container's first process asked for SIGKILL at its parent's death, and the kernel forgets that
when the process changes its ids: many images' entrypoints do (gosu, su-exec). So a small process
of its own session waits for whichever ends first, the container or its owner.
"""

from __future__ import annotations

import os

GUARD_ARGV0 = "minibox-guard"  # native/init.c


class Guard:
    """The process that waits. It costs the start nothing: the command runs already."""

    def __init__(self, program: str, pidfd: int, container_id: str) -> None:
        """Start it.

        Args:
            program: path of minibox-init, which plays this part too.
            pidfd: of the container's first process; not 0 or 1.
            container_id: for those who read ps(1).
        """
        self._pid = 0
        end, self._lifeline = os.pipe2(os.O_CLOEXEC)
        streams = ((os.POSIX_SPAWN_DUP2, pidfd, 0), (os.POSIX_SPAWN_DUP2, end, 1))
        try:
            self._pid = os.posix_spawn(program, (GUARD_ARGV0, container_id[:12]), {}, file_actions=streams, setsid=True)
        except OSError:
            pass  # what the container asked for when it started is still there
        finally:
            os.close(end)

    def disown(self) -> None:
        """In a child that a fork made: the guard is the parent's, and waits for the parent's end only."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
        self._lifeline, self._pid = -1, 0

    def close(self) -> None:
        """The container has ended: so has the guard, or does now."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0
