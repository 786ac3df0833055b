"""Wait until a container meets a condition: `minibox wait --condition`, with Docker's and podman's names."""

from __future__ import annotations

import os
from time import monotonic, sleep

from minibox.engine.container import collection, health, lifecycle
from minibox.engine.state import claim, containers
from minibox.errors import ContainerNotFound, ContainerNotRunning, TimedOut, UsageError
from minibox.linux.process import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.base.home import Home

NOT_RUNNING, NEXT_EXIT, REMOVED = "not-running", "next-exit", "removed"  # Docker's
EXITED, STOPPED, CREATED, PAUSED = "exited", "stopped", "created", "paused"  # podman's
RUNNING, HEALTHY, UNHEALTHY = "running", health.HEALTHY, health.UNHEALTHY
CONDITIONS = (NOT_RUNNING, NEXT_EXIT, REMOVED, EXITED, STOPPED, CREATED, PAUSED, RUNNING, HEALTHY, UNHEALTHY)
NO_STATUS = -1  # what podman returns for a container that hasn't ended
POLL_S = 0.05


def wait_for(home: Home, name_or_id: str, condition: str, *, timeout_s: float | None = None) -> int:
    """Wait until a container meets ``condition``.

    Args:
        condition: one of `CONDITIONS`. `STOPPED` is the same as `NOT_RUNNING`. A container that never started is
            `NOT_RUNNING`, but not `EXITED`.
        timeout_s: give up after this time; None waits for ever.

    Returns:
        Its exit status if the condition is an end, else -1.

    Raises:
        ContainerNotFound: there is no such container, or it was removed meanwhile.
        ContainerNotRunning: it has ended, so it can't meet the condition any more.
        TimedOut: it took too long.
        UsageError: the condition is unknown, or the container has no health check.
    """
    if condition not in CONDITIONS:
        raise UsageError(f"unknown condition {condition!r}", f"use one of {', '.join(CONDITIONS)}")
    collection.collect(home)
    wait = _Wait(home, name_or_id, condition, timeout_s)
    try:
        return wait.until()
    finally:
        wait.watch.close()


class _Wait:
    """One call of `wait_for`."""

    def __init__(self, home: Home, name: str, condition: str, timeout_s: float | None) -> None:
        self.home, self.name, self.condition = home, name, condition
        self.id = containers.find_id(home.root, name)
        self.deadline = None if timeout_s is None else monotonic() + timeout_s
        self.watch = claim.OwnerWatch(home.root, self.id)
        self._lived = False

    def until(self) -> int:
        """See `wait_for`."""
        condition = self.condition
        if condition in (NOT_RUNNING, STOPPED):
            return self._end()
        if condition == EXITED:
            self._poll(lambda: self._status() != CREATED)
            return self._end()
        if condition in (NEXT_EXIT, REMOVED):
            return self._next_exit() if condition == NEXT_EXIT else self._removal()
        if condition in (HEALTHY, UNHEALTHY) and health.status(self.home.root, self.id) is None:
            raise UsageError(f"container {self.name} has no health check", "set one with minibox run --health-cmd")
        self._poll(self._is_so)
        return NO_STATUS

    def _status(self) -> str:
        """The status from state.json, but `EXITED` if the container has no owner."""
        live = containers.owner(self.home.root, self.id)
        if not os.path.isdir(f"{self.home.root}/containers/{self.id}"):
            return REMOVED
        status = str(containers.read(self.home.root, self.id)["Status"])
        return EXITED if live is None and status in containers.ALIVE else status

    def _is_so(self) -> bool:
        status = self._status()
        if status == self.condition:
            return True
        self._lived = self._lived or status in containers.ALIVE
        if status == REMOVED:
            raise ContainerNotFound(f"container {self.name} was removed before it was {self.condition}")
        by_health = self.condition in (HEALTHY, UNHEALTHY)
        if status == EXITED and (by_health or self._lived):
            hint = f"minibox why {self.name}"
            raise ContainerNotRunning(f"container {self.name} has ended and is not {self.condition}", hint)
        if not by_health or status != RUNNING:
            return False
        results = health.status(self.home.root, self.id)
        return results is not None and results["Status"] == self.condition

    def _poll(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            if self.deadline is not None and monotonic() >= self.deadline:
                raise TimedOut(f"container {self.name} is not {self.condition} yet", f"minibox why {self.name}")
            sleep(POLL_S)

    def _end(self) -> int:
        left = None if self.deadline is None else self.deadline - monotonic()
        return lifecycle.wait(self.home, self.name, timeout_s=left)

    def _next_exit(self) -> int:
        """Wait for the next end. Its restart policy may start it again at once; that counts, too."""
        before = containers.read(self.home.root, self.id).get("Finished")

        def ended() -> bool:
            status = self._status()
            if status == REMOVED or (self._lived and status == EXITED):
                return True
            self._lived = self._lived or status in containers.ALIVE
            return containers.read(self.home.root, self.id).get("Finished") not in (None, before)

        self._poll(ended)
        return self._last_status()

    def _removal(self) -> int:
        last = NO_STATUS

        def removed() -> bool:
            nonlocal last
            if self._status() == REMOVED:
                return True
            last = self._last_status()
            return False

        self._poll(removed)
        status = self.watch.status()
        return status if status >= 0 else last if last >= 0 else 128 + SIGKILL

    def _last_status(self) -> int:
        """The exit status of its last end."""
        code = (
            containers.read(self.home.root, self.id).get("ExitCode")
            if containers.is_written(self.home.root, self.id)
            else None
        )
        return self.watch.status() if code is None else int(code)
