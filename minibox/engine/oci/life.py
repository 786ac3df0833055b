"""What is done to a container that is there: start, kill, pause, resume, delete."""

from __future__ import annotations

import os
from select import POLLIN, poll

from minibox.engine.oci import state
from minibox.engine.oci.state import CREATED, CREATING, PAUSED, RUNNING, STOPPED, Container
from minibox.engine.process import gate
from minibox.errors import ContainerNotFound, ContainerNotRunning, Damaged, MiniboxError

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
UNMOUNT = "unmount_root"  # whose failure keeps nothing else from being removed


class Process:
    """A container's first process, held by a pidfd: its pid can't come to mean another."""

    def __init__(self, container: Container) -> None:
        """Find it.

        Raises:
            ContainerNotRunning: it has ended.
        """
        self.pid: int = container.pid
        self.pidfd = -1
        try:
            if self.pid:
                self.pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            pass
        if self.pidfd < 0 or state.start_time(self.pid) != container.fields["startTime"]:
            self.close()
            raise ContainerNotRunning("container not running")

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def send(self, signal_number: int) -> None:
        """Send a signal; it may have ended meanwhile."""
        if TYPE_CHECKING:
            import signal as _signal
        else:
            import _signal  # the enumerations of `signal` take milliseconds

        try:
            _signal.pidfd_send_signal(self.pidfd, signal_number)
        except ProcessLookupError:
            pass

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; False when that takes longer."""
        waiting = poll()
        waiting.register(self.pidfd, POLLIN)
        return bool(waiting.poll(None if timeout_s is None else timeout_s * 1000))


def start(root: str, container_id: str) -> None:
    """Let the process of a created container run.

    Raises:
        ContainerNotFound
        CommandNotFound, CommandNotExecutable: its command is at fault.
        MiniboxError: it was started before, or has ended; or its last steps failed.
    """
    with Container.find(root, container_id, locked=True) as container:
        status = container.status()
        if status == STOPPED:
            raise MiniboxError("cannot start a container that has stopped")
        if container.is_frozen():  # its processes would wait for who waits for them
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


class Ready:
    """The wait for a container that tells a service manager when it is ready; without one there is none.

    Its socket is there before its command runs.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._proxy: NotifyProxy | None = None
        if (host := os.environ.get("NOTIFY_SOCKET")) and os.path.isdir(f"{container.directory}/notify"):
            from minibox.engine.oci.notify import NotifyProxy

            self._proxy = NotifyProxy(container.directory, host)

    def __enter__(self) -> Ready:
        return self

    def __exit__(self, *_: object) -> None:
        if self._proxy:
            self._proxy.close()

    @property
    def is_awaited(self) -> bool:
        """Is there a service manager that wants to know?"""
        return self._proxy is not None

    def wait(self) -> None:
        """Until it is, or has ended."""
        if self._proxy:
            try:
                with Process(self._container) as process:
                    self._proxy.wait_ready(process.pid, process.pidfd)
            except ContainerNotRunning:
                pass


def started(container: Container) -> None:
    """What is left to do when the command runs: hooks. One that fails ends the container, by version 1.3 as by runc.

    Raises:
        HookFailed
    """
    if "poststart" in container.fields.get("hooks", ()):
        from minibox.engine.process.hooks import run_hooks

        try:
            run_hooks("poststart", container.spec()["hooks"]["poststart"], state.oci_state(container, RUNNING))
        except BaseException:
            end(container)
            raise


def stopped(container: Container, spec: Spec, note: Note) -> None:
    """The last hooks, which stop nothing either."""
    if spec.get("hooks", {}).get("poststop"):
        _run_hooks("poststop", spec, state.oci_state(container, STOPPED), note)


def undo_start(container: Container, note: Note) -> None:
    """Undo what the start of a container has made, which has ended.

    Raises:
        MiniboxError, OSError: its cgroup resists.
    """
    from minibox.engine.process.undo import undo

    steps = _undo_steps(container)
    if failure := undo(step for step in steps if step.name != UNMOUNT):
        raise failure
    if failure := undo(step for step in steps if step.name == UNMOUNT):
        note(str(failure))


def _undo_steps(container: Container) -> tuple[Op, ...]:
    """As it was written down, or as what is written of it says, for one that an older minibox has made."""
    from minibox.base.operation import PARENT, Op
    from minibox.engine.process.undo import steps_of

    try:
        if "undo" in container.fields:
            return steps_of(container.fields["undo"], f"{container.directory}/state.json")
    except Damaged:
        pass  # a newer minibox's: what is written of its cgroup is known here, too
    group, root = container.group(), container.fields.get(state.SHARED_ROOT)
    found: list[tuple[str, tuple[Any, ...]]] = [("kill_cgroup", (group.labels,))] if group.directories else []
    found += [("cgroup_rmdir", (path,)) for path in group.directories]
    if root:
        args = container.fields["rootfs"], root["path"], root["dev"], root["ino"], root["mount"]
        found.append((UNMOUNT, args))
    return tuple(Op(name, given, "found in its state", PARENT) for name, given in found)


def _run_hooks(kind: str, spec: Spec, found: dict[str, Any], note: Note) -> None:
    """Run hooks of a kind whose failure is only told."""
    from minibox.engine.process.hooks import run_hooks
    from minibox.errors import HookFailed

    hooks: dict[str, Any] = {**spec["hooks"]}
    for hook in hooks[kind]:
        try:
            run_hooks(kind, [hook], found)
        except HookFailed as error:
            note(str(error))


def kill(root: str, container_id: str, signal_number: int, *, every: bool) -> None:
    """Send a signal to a container's first process, or to ``every`` one that is in its cgroup.

    Raises:
        ContainerNotFound
        ContainerNotRunning: its process has ended.
    """
    container = Container.find(root, container_id)
    group = container.group()
    if every:
        group.signal(signal_number)
        if not group.directories:
            with Process(container) as process:
                process.send(signal_number)
    else:
        with Process(container) as process:
            process.send(signal_number)
    if signal_number == SIGKILL and container.is_frozen():
        group.thaw()  # on cgroup v1 the frozen don't die


def pause(root: str, container_id: str) -> None:
    """Stop all of its processes where they are; raises as `start`."""
    with Container.find(root, container_id, locked=True) as container:
        status = container.status()
        if status not in (RUNNING, CREATED):
            raise MiniboxError(f"container not running or created: {status}")
        container.group().freeze()


def resume(root: str, container_id: str) -> None:
    """Let them go on; raises as `start`."""
    with Container.find(root, container_id, locked=True) as container:
        if not container.is_frozen() or container.status() == STOPPED:
            raise MiniboxError("container not paused")
        container.group().thaw()


def delete(root: str, container_id: str, *, force: bool, note: Note) -> None:
    """Remove what a container has left; one that was never started is killed.

    Args:
        force: one that runs is killed, too, and none is fine.
        note: is told what went wrong with hooks, which keeps nothing from being removed.

    Raises:
        ContainerNotFound, MiniboxError
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
    """A container whose state.json can't be read: all in its cgroup is ended, and it goes without its last hooks."""
    container.lock()
    try:
        container.recover()
        undo_start(container, note)
        if not container.fields.get("cgroup_paths"):
            note(f"what runs of container {container.id} can't be told: its cgroup isn't known any more")
        if container.fields.get("hooks"):
            note(f"the last hooks of container {container.id} are not run: its state is damaged")
        container.remove()
    finally:
        container.unlock()


def _remove_unfinished(container: Container) -> None:
    """A container whose maker was killed before it had written anything."""
    container.lock()
    if not os.path.exists(f"{container.directory}/state.json"):
        container.remove()
    container.unlock()


def end(container: Container) -> None:
    """Kill whatever of it still runs.

    Raises:
        MiniboxError: it doesn't end.
    """
    group = container.group()
    try:
        with Process(container) as process:
            process.send(SIGKILL)
            group.kill()  # on cgroup v1 the frozen don't die of themselves
            if not process.wait(END_TIMEOUT_S):
                raise MiniboxError(
                    f"kill container {container.id}: its first process doesn't end", "see /proc/PID/stack"
                )
    except ContainerNotRunning:
        pass
    group.kill()  # without a pid namespace of their own, others live on


def destroy(container: Container, note: Note) -> None:
    """Remove the cgroup and the directory of a container that has ended, and run its last hooks."""
    spec = container.spec() if "poststop" in container.fields.get("hooks", ()) else None
    undo_start(container, note)
    container.remove()
    if spec:
        stopped(container, spec, note)
