"""Act on a running container: stop, kill, pause, unpause and wait for it. And rename a container."""

from __future__ import annotations

import os
from errno import EDQUOT, ENOSPC
from time import monotonic, sleep

from minibox.base import damage
from minibox.base.codec import FileKind
from minibox.base.files import HeldProcess
from minibox.engine.container import collection
from minibox.engine.state import claim, containers, events, names
from minibox.engine.state.freezing import Turn
from minibox.engine.state.sent_signals import KILL, STOP, note_signal
from minibox.errors import (
    ContainerNotFound,
    ContainerNotRunning,
    MiniboxError,
    TimedOut,
    Unreadable,
    UsageError,
    suppress,
)
from minibox.linux import cgroup
from minibox.linux.process import SIGKILL, SIGTERM, open_pidfd, send_signal
from minibox.plan import parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.base.home import Home
    from minibox.base.operation import Op
    from minibox.engine.state.live_file import Live

LETTING_GO_S = 20.0  # how long an owner may take to clean up after its container's end
POLL_S = 0.005
STOP_TIMEOUT_S = 10
STOPPED, RESTARTED = "stop", "restart"  # the values of a stop mark
STOP_MARK = FileKind(
    "stopped",
    {"Then": lambda value: value in (STOPPED, RESTARTED)},
    before=lambda data: {"Then": data.decode().strip() or STOPPED},
    indented=False,
    empty={"Then": STOPPED},
)


class Process(HeldProcess):
    """The first process of a running container."""

    def __init__(self, root: str, name_or_id: str, what: str) -> None:
        """Find the process.

        Args:
            what: what you are going to do, for the error.

        Raises:
            ContainerNotFound: there is no such container.
            ContainerNotRunning: it has no process.
        """
        self.id: str = containers.find_id(root, name_or_id)
        self.root = root
        live = containers.owner(root, self.id)
        if live and live.pid > 0:
            self.pidfd = claim.open_process(live)
            live = containers.owner(root, self.id)  # if its owner still holds the lock, we opened the right pid
        if self.pidfd < 0 or not live or live.pid <= 0 or self.has_ended():
            self.close()
            raise ContainerNotRunning(
                f"{what} container {name_or_id}: it is not running", f"minibox start {name_or_id}"
            )
        self.live: Live = live

    @property
    def group(self) -> cgroup.Cgroup:
        """The container's cgroup."""
        return cgroup.find(cgroup.detect(), f"minibox-{self.id}")

    def refuse_paused(self, name_or_id: str) -> None:
        """
        Raises:
            MiniboxError: the container is paused. The error names it as given.
        """
        if self.group.is_frozen():
            raise MiniboxError(f"container {name_or_id} is paused", f"minibox unpause {name_or_id}")

    def has_ended(self) -> bool:
        """Has it ended?"""
        return self.wait(0)

    def wait_killed(self) -> None:
        """Wait for its end after SIGKILL. It ends once all processes in its pid namespace have ended and were reaped.

        Raises:
            MiniboxError: that takes too long.
        """
        if not self.wait(LETTING_GO_S):
            raise MiniboxError(
                f"kill container {self.id[:12]}: its first process doesn't end",
                "one of its processes hangs in the kernel (see /proc/PID/stack), or is a zombie that its parent must reap",
            )


def kill(home: Home, name_or_id: str, signal_number: int = SIGKILL, *, wait: bool = True) -> str:
    """Send a signal to a container's first process. Return the container's id.

    Args:
        wait: after SIGKILL, wait until its state says that it has ended.

    Raises:
        ContainerNotFound, ContainerNotRunning
    """
    with Process(home.root, name_or_id, "kill") as process:
        found = containers.read(home.root, process.id)
        if signal_number in (SIGKILL, _stop_signal(found)):
            mark_stopped(home.root, process.id)
        events.note_container(home.runroot, found, "kill", signal=str(signal_number))
        note_signal(home.root, process.id, signal_number, KILL, process.group.oom_kills())
        send_signal(process.pidfd, signal_number)
        if signal_number == SIGKILL:
            process.group.thaw()  # with cgroup v1 frozen processes don't die
            if wait:
                process.wait_killed()
    if signal_number == SIGKILL and wait:
        watch = claim.OwnerWatch(home.root, process.id)
        wait_for_owner(watch)
        watch.close()
    return process.id


def wait_for_owner(watch: claim.OwnerWatch) -> None:
    """Wait until the owner has cleaned up after its container's end, or seems to hang."""
    deadline = monotonic() + LETTING_GO_S
    while watch.is_owned() and monotonic() < deadline:
        sleep(POLL_S)


def stop(
    home: Home, name_or_id: str, *, timeout_s: float | None = None, signal_number: int = 0, mark: str = STOPPED
) -> str:
    """Stop a container: send its stop signal, and kill it if it doesn't end. It may have ended already. Return its id.

    Args:
        timeout_s: how long to wait before killing it; -1 waits for ever; None uses the container's option.
        signal_number: 0 uses the container's option.
        mark: for its supervisor; see `mark_stopped`.

    Raises:
        ContainerNotFound: there is no such container.
        MiniboxError: its processes hang in the kernel.
    """
    container_id = containers.find_id(home.root, name_or_id)
    found: dict[str, Any] | None = None
    deadline = monotonic() + LETTING_GO_S
    # Repeat this, because its restart policy or another command may be about to start it.
    while claim.is_live(home.root, container_id):
        mark_stopped(home.root, container_id, mark)
        try:
            with Process(home.root, container_id, "stop") as process:
                found = _end(process, home.runroot, timeout_s, signal_number)
            deadline = monotonic() + LETTING_GO_S
        except ContainerNotFound:
            break  # it was run with --rm
        except ContainerNotRunning:
            _wake_supervisor(home.root, container_id)
        if monotonic() > deadline:
            raise MiniboxError(f"container {name_or_id} has ended, but its owner doesn't release it")
        sleep(POLL_S)
    collection.collect_one(home, container_id)
    if found:
        events.note_container(home.runroot, found, "stop")
    return container_id


def stop_steps(process: Process, found: dict[str, Any], timeout_s: float | None, signal_number: int) -> tuple[Op, ...]:
    """The steps of a stop, up to the container's end. The arguments are those of `stop`."""
    if timeout_s is None:
        timeout_s = float(found.get("Options", {}).get("stop_timeout_s", STOP_TIMEOUT_S))
    words = None if timeout_s < 0 else f"{timeout_s:g}"
    return parent.stop(process.live.pid, process.group.labels, signal_number or _stop_signal(found), words)


def _end(process: Process, runroot: str, timeout_s: float | None, signal_number: int) -> dict[str, Any]:
    """End a container with the stop signal or else SIGKILL. Return its state before."""
    found = containers.read(process.root, process.id)
    for step in stop_steps(process, found, timeout_s, signal_number):
        if STOP_STEPS[step.name](process, runroot, found, *step.args):
            break
    return found


def _thaw(process: Process, _runroot: str, _found: dict[str, Any], _cgroups: tuple[str, ...]) -> None:
    process.group.thaw()


def _signal(process: Process, runroot: str, found: dict[str, Any], _pid: int, number: int) -> None:
    note_signal(process.root, process.id, number, STOP, process.group.oom_kills())
    events.note_container(runroot, found, "kill", signal=str(number))
    send_signal(process.pidfd, number)


def _await(process: Process, _runroot: str, _found: dict[str, Any], _pid: int, timeout_s: str | None) -> bool:
    return process.wait(None if timeout_s is None else float(timeout_s))


def _kill(process: Process, runroot: str, found: dict[str, Any], pid: int, _cgroups: tuple[str, ...]) -> None:
    _signal(process, runroot, found, pid, SIGKILL)
    process.group.kill()
    process.wait_killed()


#: The function that executes each step. If it returns true, the container has ended and the other steps aren't needed.
STOP_STEPS: dict[str, Callable[..., bool | None]] = {
    "thaw_cgroup": _thaw, "signal_first": _signal, "await_end": _await, "kill_first": _kill,
}  # fmt: skip


def _stop_signal(found: dict[str, Any]) -> int:
    from minibox.linux.signals import signal_number

    word = (found.get("Config") or {}).get("StopSignal")
    return signal_number(word) if word else SIGTERM


def stop_path(root: str, container_id: str) -> str:
    """The path of the stop mark. While it exists, no policy restarts the container; `start` removes it."""
    return f"{root}/containers/{container_id}/stopped"


def mark_stopped(root: str, container_id: str, mark: str = STOPPED) -> None:
    """Make sure that no policy restarts a container.

    Args:
        mark: with `RESTARTED`, ``--rm`` doesn't remove it either, because it is about to be started again.
    """
    path = stop_path(root, container_id)
    try:
        STOP_MARK.write(path, {"Then": mark}, durable=mark == STOPPED)
    except FileNotFoundError:
        pass  # it is being removed
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT) or mark != STOPPED:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))  # an empty file means STOPPED, too


def stop_mark(root: str, container_id: str) -> str | None:
    """The mark that `mark_stopped` wrote; None for none."""
    try:
        return str(STOP_MARK.read(stop_path(root, container_id))["Then"])
    except OSError:
        return None
    except Unreadable as error:
        damage.tell(error)
        return STOPPED


def _wake_supervisor(root: str, container_id: str) -> None:
    """Wake a supervisor that waits to restart its container, so that it sees the stop mark and gives up."""
    live = containers.owner(root, container_id)
    if live and live.supervisor > 0 and live.pid < 0:
        pidfd = open_pidfd(live.supervisor)
        if pidfd >= 0:
            again = containers.owner(root, container_id)
            if again and (again.supervisor, again.pid) == (live.supervisor, live.pid):
                send_signal(pidfd, SIGTERM)
            os.close(pidfd)


def pause(home: Home, name_or_id: str) -> str:
    """Freeze all processes of a container. Return its id.

    Raises:
        ContainerNotFound, ContainerNotRunning
        MiniboxError: it is paused already, or there is no freezer.
    """
    with Process(home.root, name_or_id, "pause") as process, Turn(home.root, process.id) as turn:
        if process.group.is_frozen():
            raise MiniboxError(f"container {name_or_id} is already paused", f"minibox unpause {name_or_id}")
        try:
            turn.freeze()
        except BaseException as error:
            turn.thaw()
            if isinstance(error, OSError) and process.has_ended():
                raise ContainerNotRunning(f"pause container {name_or_id}: it has just ended") from None
            raise
        _note_status(process, "paused")
        turn.keep()
        events.note_container(home.runroot, containers.read(home.root, process.id), "pause")
        return process.id


def unpause(home: Home, name_or_id: str) -> str:
    """Thaw a paused container. Return its id.

    Raises:
        ContainerNotFound, ContainerNotRunning
        MiniboxError: it is not paused.
    """
    with Process(home.root, name_or_id, "unpause") as process, Turn(home.root, process.id) as turn:
        if not process.group.is_frozen() and containers.read(home.root, process.id)["Status"] != "paused":
            raise MiniboxError(f"container {name_or_id} is not paused")
        turn.thaw()
        _note_status(process, "running")
        events.note_container(home.runroot, containers.read(home.root, process.id), "unpause")
        return process.id


def _note_status(process: Process, status: str) -> None:
    """Write the status, unless the container has ended: then its owner writes it."""

    def changed(found: dict[str, Any]) -> dict[str, Any] | None:
        return None if process.has_ended() else {**found, "Status": status}

    containers.change(process.root, process.id, changed)


def wait(home: Home, name_or_id: str, *, timeout_s: float | None = None) -> int:
    """Wait until a container has ended. Return its exit status; 137 if it was removed meanwhile.

    Raises:
        ContainerNotFound: there is no such container.
        TimedOut: it has not ended after ``timeout_s``.
    """
    collection.collect(home)
    container_id = containers.find_id(home.root, name_or_id)
    deadline = None if timeout_s is None else monotonic() + timeout_s
    watch = claim.OwnerWatch(home.root, container_id)
    try:
        waited = watch.is_owned()
        while watch.is_owned():
            with suppress(ContainerNotRunning, ContainerNotFound):  # its owner is cleaning up
                with Process(home.root, container_id, "wait for") as process:
                    process.wait(None if deadline is None else deadline - monotonic())
            if deadline is not None and monotonic() >= deadline:
                raise TimedOut(f"container {name_or_id} has not ended yet")
            sleep(POLL_S)
        collection.collect_one(home, container_id)
        status = watch.status()
        if status < 0 and containers.is_written(home.root, container_id):
            found = containers.read(home.root, container_id)
            if found["Status"] == "damaged":
                raise MiniboxError(f"wait for container {name_or_id}: {found['Error']}", f"minibox rm {name_or_id}")
            status = int(found.get("ExitCode") or 0)
        return status if status >= 0 else 128 + SIGKILL if waited else 0
    finally:
        watch.close()


def rename(home: Home, name_or_id: str, new_name: str) -> None:
    """Give a container another name.

    Raises:
        ContainerNotFound: there is no such container.
        NameTaken, UsageError: ``new_name`` is taken or invalid.
        NetworkError: it has the name, but its networks can't be told.
    """
    from minibox.network import members

    container_id = containers.find_id(home.root, name_or_id)
    _wait_until_begun(home.root, container_id)
    found = containers.read(home.root, container_id)
    old_name: str = found["Name"]
    if old_name == new_name:
        raise UsageError(f"container {name_or_id} already has the name {new_name!r}")

    def changed(now: dict[str, Any]) -> dict[str, Any]:
        nonlocal old_name
        old_name = now["Name"]  # another command may have renamed it just now
        return {**now, "Name": new_name}

    names.take(home.root, new_name, container_id, lambda other: claim.is_live(home.root, other))
    try:
        containers.change(
            home.root, container_id, changed, durable=True
        )  # a foreground --rm container gets a state.json
    except BaseException:
        names.drop(home.root, container_id, new_name)
        raise
    if old_name != new_name:
        names.drop(home.root, container_id, old_name)
    events.note_container(home.runroot, {**found, "Name": new_name}, "rename", oldName=f"/{old_name}")
    members.rename(home.runroot, container_id, old_name, new_name)


def _wait_until_begun(root: str, container_id: str) -> None:
    """Wait until a container's first state is written, with its original name.

    Raises:
        MiniboxError: that takes too long.
    """
    deadline = monotonic() + LETTING_GO_S
    while not containers.is_written(root, container_id):
        live = containers.owner(root, container_id)
        if live is None or (live.pid > 0 and live.remove and not live.supervisor):  # it never gets a state.json
            return
        if monotonic() > deadline:
            raise MiniboxError(f"container {container_id[:12]} is being made by another command")
        sleep(POLL_S)
