"""Act on an existing container: start, kill, pause, resume, delete."""

from __future__ import annotations

import os

from minibox.base.files import AutoClose, HeldProcess
from minibox.engine.oci import state
from minibox.engine.oci.state import CREATED, CREATING, PAUSED, RUNNING, STOPPED, Container
from minibox.engine.process import gate
from minibox.errors import ContainerNotFound, ContainerNotRunning, Damaged, MiniboxError, on_failure, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.base.operation import Op
    from minibox.engine.oci.notify import NotifyProxy
    from minibox.oci.runtime import Spec

    Note = Callable[[str], None]

SIGKILL = 9
END_TIMEOUT_S = 10.0
UNMOUNT = "unmount_root"  # its failure doesn't stop the removal of the rest


class Process(HeldProcess):
    """A container's first process."""

    def __init__(self, container: Container) -> None:
        """Find the process.

        Raises:
            ContainerNotRunning: it has ended.
        """
        self.pid: int = container.pid
        with suppress(ProcessLookupError):
            if self.pid:
                self.pidfd = os.pidfd_open(self.pid)
        if self.pidfd < 0 or state.start_time(self.pid) != container.fields["startTime"]:
            self.close()
            raise ContainerNotRunning("container not running")

    def send(self, signal_number: int) -> None:
        """Send a signal. It is no error if the process has ended."""
        if TYPE_CHECKING:
            import signal as _signal
        else:
            import _signal  # importing `signal` takes milliseconds because of its enumerations

        with suppress(ProcessLookupError):
            _signal.pidfd_send_signal(self.pidfd, signal_number)


def start(root: str, container_id: str) -> None:
    """Let the process of a created container run its command.

    Raises:
        ContainerNotFound: there is no such container.
        CommandNotFound, CommandNotExecutable: the command can't be executed.
        MiniboxError: it was already started, or has ended, or one of its last steps failed.
    """
    with Container.find(root, container_id, locked=True) as container:
        status = container.status()
        if status == STOPPED:
            raise MiniboxError("cannot start a container that has stopped")
        if container.is_frozen():  # its processes couldn't answer us
            raise MiniboxError("cannot start a container in the paused state", "resume it first")
        if status != CREATED:
            raise MiniboxError("cannot start an already running container")
        with Ready(container) as ready:
            try:
                failed = gate.open_gate(container.directory, container.refuse_frozen)
            except gate.GateClosed as error:
                raise MiniboxError(f"cannot start container {container_id}: {error}") from None
            if failed:
                from minibox.engine.oci.command import failed_step

                raise failed_step(container.fields["steps"], container.spec()["process"], *failed)
            container.unlock()
            started(container)
            ready.wait()


class Ready(AutoClose):
    """Wait until a container has told the service manager that it is ready. Does nothing without a service manager.

    The socket exists before the command runs.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._proxy: NotifyProxy | None = None
        if (host := os.environ.get("NOTIFY_SOCKET")) and os.path.isdir(f"{container.directory}/notify"):
            from minibox.engine.oci.notify import NotifyProxy

            self._proxy = NotifyProxy(container.directory, host)

    def close(self) -> None:
        if self._proxy:
            self._proxy.close()

    @property
    def is_awaited(self) -> bool:
        """Return whether a service manager wants to know."""
        return self._proxy is not None

    def wait(self) -> None:
        """Wait until it is ready or has ended."""
        if self._proxy:
            with suppress(ContainerNotRunning):
                with Process(self._container) as process:
                    self._proxy.wait_ready(process.pid, process.pidfd)


def started(container: Container) -> None:
    """Run the hooks that follow the command's start. A failing hook ends the container, as version 1.3 and runc demand.

    Raises:
        HookFailed: a hook failed.
    """
    if "poststart" in container.fields.get("hooks", ()):
        from minibox.engine.process.hooks import run_hooks

        with on_failure(end, container):
            run_hooks("poststart", container.spec()["hooks"]["poststart"], state.oci_state(container, RUNNING))


def stopped(container: Container, spec: Spec, note: Note) -> None:
    """Run the last hooks. Their failure stops nothing."""
    if spec.get("hooks", {}).get("poststop"):
        _run_hooks("poststop", spec, state.oci_state(container, STOPPED), note)


def undo_start(container: Container, note: Note) -> None:
    """Undo what the start of an ended container has made.

    Raises:
        MiniboxError, OSError: the cgroup can't be removed.
    """
    from minibox.engine.process.undo import undo

    steps = _undo_steps(container)
    if failure := undo(step for step in steps if step.name != UNMOUNT):
        raise failure
    if failure := undo(step for step in steps if step.name == UNMOUNT):
        note(str(failure))


def _undo_steps(container: Container) -> tuple[Op, ...]:
    """Return the recorded steps; for a container of an older minibox, derive them from its state."""
    from minibox.base.operation import PARENT, Op
    from minibox.engine.process.undo import steps_of

    with suppress(Damaged):  # a newer minibox's: what is written of its cgroup is known here, too
        if "undo" in container.fields:
            return steps_of(container.fields["undo"], f"{container.directory}/state.json")
    group, root = container.group(), container.fields.get(state.SHARED_ROOT)
    found: list[tuple[str, tuple[Any, ...]]] = [("kill_cgroup", (group.labels,))] if group.directories else []
    found += [("cgroup_rmdir", (path,)) for path in group.directories]
    if root:
        args = container.fields["rootfs"], root["path"], root["dev"], root["ino"], root["mount"]
        found.append((UNMOUNT, args))
    return tuple(Op(name, given, "derived from its state", PARENT) for name, given in found)


def _run_hooks(kind: str, spec: Spec, found: dict[str, Any], note: Note) -> None:
    """Run hooks of a kind whose failure is only reported."""
    from minibox.engine.process.hooks import run_hooks
    from minibox.errors import HookFailed

    hooks: dict[str, Any] = {**spec["hooks"]}
    for hook in hooks[kind]:
        try:
            run_hooks(kind, [hook], found)
        except HookFailed as error:
            note(str(error))


def kill(root: str, container_id: str, signal_number: int, *, every: bool) -> None:
    """Send a signal to a container's first process, or to ``every`` process in its cgroup.

    Raises:
        ContainerNotFound: there is no such container.
        ContainerNotRunning: its process has ended.
    """
    container = Container.find(root, container_id)
    group = container.group()
    if every:
        group.signal(signal_number)
    if not every or not group.directories:
        with Process(container) as process:
            process.send(signal_number)
    if signal_number == SIGKILL and container.is_frozen():
        group.thaw()  # on cgroup v1, frozen processes don't die


def pause(root: str, container_id: str) -> None:
    """Freeze all processes of a container. Raises as `start`."""
    with Container.find(root, container_id, locked=True) as container:
        status = container.status()
        if status not in (RUNNING, CREATED):
            raise MiniboxError(f"container not running or created: {status}")
        container.group().freeze()


def resume(root: str, container_id: str) -> None:
    """Let a container's processes continue. Raises as `start`."""
    with Container.find(root, container_id, locked=True) as container:
        if not container.is_frozen() or container.status() == STOPPED:
            raise MiniboxError("container not paused")
        container.group().thaw()


def delete(root: str, container_id: str, *, force: bool, note: Note) -> None:
    """Remove what a container has left. One that was never started is killed.

    Args:
        force: kill a running container; don't fail if there is none.
        note: called with errors of hooks, which don't stop the removal.

    Raises:
        ContainerNotFound, MiniboxError: it doesn't exist, is running, or can't be removed.
    """
    try:
        container = Container.find(root, container_id)
    except ContainerNotFound:
        if os.path.isdir(f"{root}/{container_id}"):
            _remove_unfinished(Container(root, container_id))
        if force:
            return
        raise
    except Damaged:
        if not force:
            raise
        _remove_damaged(Container(root, container_id), note)
        return
    status = container.status()
    if status in (RUNNING, PAUSED) and not force:
        raise MiniboxError(f"cannot delete container {container_id} that is not stopped: {status}")
    if status == CREATING:
        raise MiniboxError(f"cannot delete container {container_id} that is being created")
    end(container)
    with Container.find(root, container_id, locked=True) as container:
        destroy(container, note)


def _remove_damaged(container: Container, note: Note) -> None:
    """Remove a container with an unreadable state.json: kill everything in its cgroup, and skip its last hooks."""
    container.lock()
    try:
        container.recover()
        undo_start(container, note)
        if not container.fields.get("cgroup_paths"):
            note(f"container {container.id} may have processes left: its cgroup is unknown")
        if container.fields.get("hooks"):
            note(f"the last hooks of container {container.id} were skipped: its state is damaged")
        container.remove()
    finally:
        container.unlock()


def _remove_unfinished(container: Container) -> None:
    """Remove a container whose maker was killed before it had written a state."""
    container.lock()
    if not os.path.exists(f"{container.directory}/state.json"):
        container.remove()
    container.unlock()


def end(container: Container) -> None:
    """Kill all that is left of it.

    Raises:
        MiniboxError: it doesn't end.
    """
    group = container.group()
    with suppress(ContainerNotRunning):
        with Process(container) as process:
            process.send(SIGKILL)
            group.kill()  # on cgroup v1, frozen processes don't die by themselves
            if not process.wait(END_TIMEOUT_S):
                raise MiniboxError(
                    f"kill container {container.id}: its first process doesn't end", "see /proc/PID/stack"
                )
    group.kill()  # without a pid namespace of their own, other processes survive the first


def destroy(container: Container, note: Note) -> None:
    """Remove the cgroup and the directory of an ended container, and run its last hooks."""
    spec = container.spec() if "poststop" in container.fields.get("hooks", ()) else None
    undo_start(container, note)
    container.remove()
    if spec:
        stopped(container, spec, note)
