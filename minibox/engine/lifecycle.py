"""What is done to a container that runs: stop, kill, pause, wait; and its name."""

from __future__ import annotations

import os
from select import POLLIN, poll
from time import monotonic, sleep

from minibox.engine import names, ownership, removal, state
from minibox.errors import ContainerNotRunning, MiniboxError
from minibox.linux import cgroup
from minibox.linux.process import open_pidfd, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.ownership import Live

SIGTERM, SIGKILL = 15, 9
LETTING_GO_S = 10.0  # until an owner has tidied up behind a container that has ended
POLL_S = 0.005


class Process:
    """The first process of a container that runs, held by a pidfd: its pid can't come to mean another."""

    def __init__(self, root: str, name_or_id: str, what: str) -> None:
        """Find it.

        Args:
            what: is going to be done, for the error.

        Raises:
            ContainerNotFound: there is no such container.
            ContainerNotRunning: it has no process.
        """
        self.state: dict[str, Any] = state.find(root, name_or_id)
        self.id: str = self.state["Id"]
        self.root, self.pidfd = root, -1
        live = ownership.owned(root, self.id)
        if live and live.pid > 0:
            self.pidfd = open_pidfd(live.pid)
            live = ownership.owned(root, self.id)  # the pid was its own for as long as its owner held the lock
        if self.pidfd < 0 or not live or live.pid <= 0:
            self.close()
            raise ContainerNotRunning(
                f"{what} container {name_or_id}: it is not running", f"minibox start {name_or_id}"
            )
        self.live: Live = live

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    @property
    def group(self) -> cgroup.Cgroup:
        """Its cgroup."""
        return cgroup.find(cgroup.detect(), f"minibox-{self.id}")

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; False when it has not after ``timeout_s``."""
        waiting = poll()
        waiting.register(self.pidfd, POLLIN)
        return bool(waiting.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))


def kill(name_or_id: str, signal_number: int = SIGKILL, *, root: str) -> str:
    """Send a signal to a container's first process; its id.

    Raises:
        ContainerNotFound, ContainerNotRunning
    """
    with Process(root, name_or_id, "kill") as process:
        if signal_number == SIGKILL:
            _mark_stopped(root, process.id)
        send_signal(process.pidfd, signal_number)
        if signal_number == SIGKILL:
            process.group.thaw()  # on cgroup v1 the frozen don't die
        return process.id


def stop(name_or_id: str, *, root: str, timeout_s: float | None = None, signal_number: int = 0) -> str:
    """Ask a container to end by its stop signal, and kill it when it doesn't; its id. One that has ended is fine.

    Args:
        timeout_s: before it is killed; -1: never; None: as the container was made with.
        signal_number: 0: as the container was made with.

    Raises:
        ContainerNotFound: there is no such container.
        MiniboxError: processes of it hang in the kernel.
    """
    found = state.find(root, name_or_id)
    container_id: str = found["Id"]
    if not ownership.is_live(root, container_id):
        return container_id
    _mark_stopped(root, container_id)
    try:
        with Process(root, name_or_id, "stop") as process:
            options = found.get("Options", {})
            grace_s = float(options.get("stop_timeout_s", 10)) if timeout_s is None else timeout_s
            process.group.thaw()
            send_signal(process.pidfd, signal_number or _stop_signal(found))
            if not process.wait(None if grace_s < 0 else grace_s):
                process.group.kill()
                send_signal(process.pidfd, SIGKILL)
    except ContainerNotRunning:
        _wake_supervisor(root, container_id)
    wait_for_owner(root, container_id)
    return container_id


def _stop_signal(found: dict[str, Any]) -> int:
    from minibox.linux.signals import signal_number

    word = (found.get("Config") or {}).get("StopSignal")
    return signal_number(word) if word else SIGTERM


def _mark_stopped(root: str, container_id: str) -> None:
    """From now on no policy restarts it."""
    try:
        with open(f"{root}/containers/{container_id}/stopped", "wb"):
            pass
    except FileNotFoundError:
        pass  # it is being removed


def _wake_supervisor(root: str, container_id: str) -> None:
    """One that waits to restart its container finds that it needn't."""
    live = ownership.owned(root, container_id)
    if live and live.supervisor > 0 and live.pid < 0:
        pidfd = open_pidfd(live.supervisor)
        if pidfd >= 0:
            if ownership.owned(root, container_id):
                send_signal(pidfd, SIGTERM)
            os.close(pidfd)


def wait_for_owner(root: str, container_id: str) -> None:
    """Wait until the owner of a container that has ended has tidied up.

    Raises:
        MiniboxError: it takes too long.
    """
    deadline = monotonic() + LETTING_GO_S
    while ownership.is_live(root, container_id):
        if monotonic() > deadline:
            raise MiniboxError(f"container {container_id[:12]} has ended and its owner still holds it")
        sleep(POLL_S)


def pause(name_or_id: str, *, root: str) -> str:
    """Freeze all processes of a container; its id.

    Raises:
        ContainerNotFound, ContainerNotRunning
        MiniboxError: it is paused already, or there is no freezer.
    """
    with Process(root, name_or_id, "pause") as process:
        if process.state["Status"] == "paused":
            raise MiniboxError(f"container {name_or_id} is paused already", f"minibox unpause {name_or_id}")
        process.group.freeze()
        state.write(root, {**process.state, "Status": "paused"})
        return process.id


def unpause(name_or_id: str, *, root: str) -> str:
    """Let a container go on; its id.

    Raises:
        ContainerNotFound, ContainerNotRunning
        MiniboxError: it is not paused.
    """
    with Process(root, name_or_id, "unpause") as process:
        if process.state["Status"] != "paused":
            raise MiniboxError(f"container {name_or_id} is not paused")
        process.group.thaw()
        state.write(root, {**process.state, "Status": "running"})
        return process.id


def wait(name_or_id: str, *, root: str, runroot: str) -> int:
    """Wait until a container has ended; its exit status.

    Raises:
        ContainerNotFound: there is no such container.
    """
    removal.collect(root, runroot)
    container_id: str = state.find(root, name_or_id)["Id"]
    while True:
        try:
            with Process(root, container_id, "wait for") as process:
                process.wait()
        except ContainerNotRunning:
            if not ownership.is_live(root, container_id):
                break
        sleep(POLL_S)
    removal.collect(root, runroot)
    return int(state.read(root, container_id).get("ExitCode") or 0)


def rename(name_or_id: str, new_name: str, *, root: str) -> None:
    """Give a container another name.

    Raises:
        ContainerNotFound: there is no such container.
        NameTaken, UsageError: of ``new_name``.
    """
    found = state.find(root, name_or_id)
    names.take(root, new_name, found["Id"], lambda other: ownership.is_live(root, other))
    if state.is_written(root, found["Id"]):
        state.write(root, {**found, "Name": new_name}, durable=True)
    names.drop(root, found["Id"], found["Name"])
