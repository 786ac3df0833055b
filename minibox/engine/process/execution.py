"""The execution of a Plan: the processes that it has, what is held for it, and how far each of its actors came.

`engine.process.steps` runs the parent's steps; the children's are run in C.

Two children: *init*, which becomes the container's first process, and where layers are id-mapped
the *mounter*, which puts the root file system together with the host's privileges and hands it
over. They talk by sockets; each writes how far it came to a page that it shares with us.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socketpair
from errno import EBUSY, ECONNRESET, EOPNOTSUPP, EPIPE
from select import POLLIN, poll

from minibox.errors import MiniboxError, StepError, kernel_says
from minibox.linux import launcher
from minibox.linux.process import DONE, EXEC, FAILED, WAITING, Child, Descriptor, signatures
from minibox.linux.requests import Messages, has_ended, has_left
from minibox.plan import operations as op
from minibox.plan.encode import encode
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from minibox.linux.cgroup import Cgroup
    from minibox.linux.cgroup.systemd import Scope
    from minibox.linux.launcher import LaunchedChild
    from minibox.linux.requests import RequestedChild
    from minibox.linux.supervisor import SupervisedChild
    from minibox.network.bridge import Wiring
    from minibox.network.published import Batch, Published
    from minibox.plan.compiler import Plan
    from minibox.plan.operations import Op

    Init = LaunchedChild | SupervisedChild
    Spawn = Callable[..., Init]
    Made = TypeVar("Made")

SOCK_CLOEXEC = 0o2000000
SIGKILL, SIGTERM = 9, 15
GATE_POLL_MS = 1
STILL_MS = 500  # of silence, until `Resources.still_waiting` is asked
DYING_MS = 100  # between the end of who made it and its own
JOIN_TRIES = 8


@record
class Resources:
    """What lives outside of the plan: descriptors, processes, and who wants to be told.

    Attributes:
        streams: descriptors of the container's standard input, output and error.
        container_id, root, runroot: of one of minibox's own: where its networks and the others' ports are known.
        group: the cgroup that the plan makes, or joins.
        spawn: makes the first process; None: by this process's launcher.
        meanwhile: called while it is made, or before.
        joined_pidfd: of the first process of a container that is joined.
        joined_pid: its pid: where its cgroup can have no process, it is joined in the one that it is in.
        joined_root: its root directory, where that is not its mount namespace's.
        noted: is told of what undoes the container that was not known before, so that it is written down at once.
        gate: what `gate.make_gate` gave, for a container that waits before its exec.
        still_waiting: is called while init says nothing for a while, and raises what is a reason to give up.
        hook_outputs: what hooks that it runs itself write to, and their errors; -1 for /dev/null.
        state: its OCI state, of a pid and a status, for hooks and for the listener of its filter.
        kept_fds: descriptors that stay open in the container: 3 and those after it.
    """

    streams: tuple[int, int, int]
    container_id: str = ""
    root: str = ""
    runroot: str = ""
    group: Cgroup | None = None
    spawn: Spawn | None = None
    meanwhile: Callable[[], None] = lambda: None
    joined_pidfd: int = -1
    joined_pid: int = 0
    joined_root: int = -1
    noted: Callable[[Op], None] = lambda step: None
    gate: tuple[int, int] = (-1, -1)
    still_waiting: Callable[[], None] | None = None
    hook_outputs: tuple[int, int] = (-1, -1)
    state: Callable[[int, str], Mapping[str, Any]] = lambda pid, status: {}
    kept_fds: tuple[int, ...] = ()


class ExecFailed(Exception):
    """The last step, exec, failed: the command is at fault and not minibox.

    Attributes:
        errno: of execve(2).
        candidate: the path that was there, if one was.
        root_fd: the container's root directory, to look for the reason, until the execution is closed.
    """

    def __init__(self, errno: int, candidate: str, root_fd: int) -> None:
        super().__init__(errno, candidate)
        self.errno, self.candidate, self.root_fd = errno, candidate, root_fd


class Execution:
    """One execution of a Plan.

    After `steps.run` the command runs, or waits at its gate: ``init`` is its process. Whoever made the
    execution calls `close`; a command that still runs is killed by it.

    Attributes:
        done: how many of the plan's steps the parent has come past.
        cgroup: the container's, once there is one.
        pty_master: the master of its terminal; -1 where it has none.
        disk_fd: the directory of the container's own layer, where that is in memory (`plan.disk`); else -1.
        published: its ports that lead to it from this host, once they are reserved.
        held: descriptors that have to stay open for as long as it has them.
    """

    def __init__(self, plan: Plan, resources: Resources) -> None:
        self.plan = plan
        self.resources = resources
        self.done = 0
        self.init: Init | None = None
        self.mounter: Child | None = None
        self.cgroup: Cgroup | None = None
        self.scope: Scope | None = None
        self.published: list[Published] = []
        self.held: list[int] = []
        self.wiring: Wiring | None = None
        self.batch: Batch | None = None
        self.tool: RequestedChild | None = None  # that carries packets
        self.listener = -1  # who attaches comes there
        self.parent_times: dict[int, tuple[int, int]] = {}
        self.failed: MiniboxError | None = None
        self.undone_by: list[Op] = []  # what undoes it beside the list of its plan
        self._pty, self._disk, self._root, self._calls, self._shared = (Descriptor() for _ in range(5))
        self._messages = Messages()
        self._userns: dict[int, int] = {}
        self._has_sibling = self._mounted = self._created = False
        self._status: socket | None = None
        self._sockets: list[socket] = []

    @property
    def launched(self) -> LaunchedChild:
        """``init`` of an execution that has no other ``spawn``."""
        assert isinstance(self.init, launcher.LaunchedChild)
        return self.init

    @property
    def pty_master(self) -> int:
        return self._pty.fileno()

    @property
    def disk_fd(self) -> int:
        return self._disk.fileno()

    @property
    def pid(self) -> int:
        """Of ``init``."""
        assert self.init
        return self.init.pid

    def hold_userns(self, slot: int, fd: int) -> None:
        """A user namespace that a mount is to be id-mapped by."""
        self._userns[slot] = fd

    # ---- processes ----------------------------------------------------------------------------

    def clone(self, flags: int, born: bool) -> None:
        """Make the process that becomes the container's first, or a further one of it.

        Args:
            born: it is in its cgroup from the beginning.
        """
        self.cgroup = self.cgroup or self.resources.group
        self._status, status = self.socketpair()
        self._channel, channel = self.socketpair()
        opened: list[int] = []
        try:
            cgroup_fd = -1
            tasks: list[int] = []
            if self.cgroup and born:
                cgroup_fd = self.cgroup.open_v2()
                tasks = self.cgroup.open_tasks()
                opened += [*tasks, *([cgroup_fd] if cgroup_fd >= 0 else [])]
            slots = [-1] * (op.FIRST_CGROUP + len(tasks))
            slots[op.STATUS], slots[op.CHANNEL] = status.fileno(), channel.fileno()
            slots[op.STDIN : op.STDERR + 1] = self.resources.streams
            slots[op.NAMESPACES], slots[op.ROOT] = self.resources.joined_pidfd, self.resources.joined_root
            slots[op.GATE], slots[op.REPORT] = self.resources.gate
            slots[op.FIRST_CGROUP :] = tasks
            kept = dict(enumerate(self.resources.kept_fds, op.FIRST_KEPT))
            hooks = {op.HOOKS_OUTPUT + at: fd for at, fd in enumerate(self.resources.hook_outputs) if fd >= 0}
            slots = _filled(slots, kept | self._userns | hooks)
            spawn, meanwhile = self.resources.spawn, self.resources.meanwhile

            def make(buffer: bytearray, flags: int, slots: list[int], count: int) -> Init:
                if spawn is None:
                    return launcher.spawn(buffer, flags, slots, count, cgroup_fd, meanwhile)
                meanwhile()
                return spawn(buffer, flags, slots, count, cgroup_fd)

            tries = JOIN_TRIES if self.resources.joined_pid and cgroup_fd >= 0 else 0
            while not self.init:
                try:
                    self.init = self._spawn(op.INIT, make, flags, slots)
                except CgroupRefused:
                    if not tries:
                        raise
                    tries -= 1
                    opened.append(cgroup_fd := self._open_joined())
        finally:
            for fd in opened:
                os.close(fd)
        # Ours are copies: while one is open, nobody sees the process behind the other end die.
        status.close()
        channel.close()

    def take_sibling(self) -> None:
        while not self._has_sibling and self._receive():
            pass

    def take_root(self) -> int:
        """The mount that is its root, in a mount namespace that others are in; -1 when it has died before."""
        while self._shared.fileno() < 0 and self._receive():
            pass
        return self._shared.fileno()

    def also_undo(self, step: Op) -> None:
        """What undoes it has one more."""
        self.undone_by.append(step)
        self.resources.noted(step)

    def take_mounts(self) -> None:
        """Wait until all is mounted."""
        while not self._mounted and self._receive():
            pass

    @property
    def has_died(self) -> bool:
        """Before its hooks could run: `finish` finds out of what."""
        return not self._mounted

    def take_listener(self) -> int:
        """The listener of its filter of system calls; -1 when it has died before."""
        while self._calls.fileno() < 0 and self._receive():
            pass
        return self._calls.fileno()

    def close_listener(self) -> None:
        """It was handed on."""
        self._calls.close()

    def take_terminal(self) -> int:
        """The master of its terminal; -1 when it has died before."""
        while self.pty_master < 0 and self._receive():
            pass
        return self.pty_master

    def fail_of_child(self) -> None:
        """Raise for a child that has failed or died, if one has: then that is the news."""
        failed = any(child.progress()[0] == FAILED for _, child in self.children())
        if failed or (self.init and (has_ended(self.init.pidfd, DYING_MS) or has_left(self.init.pid))):
            self._fail()

    def _open_joined(self) -> int:
        """The cgroup that the process is in whose container is joined: it may be below the container's. It moves, too."""
        assert self.cgroup
        try:
            return self.cgroup.open_v2(self.cgroup.below(self.resources.joined_pid))
        except FileNotFoundError:
            return self.cgroup.open_v2()

    def clone_mounter(self, flags: int) -> None:
        """Make the helper with the host's privileges."""
        assert self.init
        _, status = self.socketpair()
        proc = f"/proc/{self.init.pid}"
        found = {op.USERNS: os.open(f"{proc}/ns/user", os.O_RDONLY | os.O_CLOEXEC)}
        try:
            found[op.ROOT] = os.open(f"{proc}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            slots = _filled([status.fileno(), self._channel.fileno()], self._userns | found)
            self.mounter = self._spawn(op.MOUNTER, Child, flags, slots)
        finally:
            for fd in found.values():
                os.close(fd)
        status.close()
        self._channel.close()

    def send(self, tag: int, fd: int = -1) -> None:
        """Send a message to ``init``, with a descriptor."""
        assert self._status
        rides = [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(4, "little"))] if fd >= 0 else []
        try:
            self._status.sendmsg([tag.to_bytes(4, "little") + bytes(4)], rides)
        except OSError as error:
            if error.errno not in (EPIPE, ECONNRESET):  # it has died: `finish` finds out of what
                raise

    # ---- below --------------------------------------------------------------------------------

    def socketpair(self) -> tuple[socket, socket]:
        """One that is closed with this."""
        pair = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        self._sockets += pair
        return pair

    def _spawn(self, actor: str, make: Callable[..., Made], flags: int, slots: list[int]) -> Made:
        steps = self.plan.of(actor)
        encoded = self.plan.encoded.get(actor)
        try:
            return make(bytearray(encoded or encode(steps, signatures())), flags, slots, len(steps))
        except ConnectionError as error:
            words = "start a container: the process that makes it was killed"
            raise MiniboxError(words, "somebody killed minibox-supervisor or minibox-launcher: try again") from error
        except OSError as error:
            group = self.cgroup.v2 if self.cgroup and actor == op.INIT else ""
            if group and error.errno in (EBUSY, EOPNOTSUPP):
                raise _cgroup_refused(error, group) from error
            raise _clone_refused(error, flags) from error

    def finish(self) -> None:
        """Wait until the command runs or a child has failed; take what init sends on the way."""
        assert self.init
        while not self._created and self._receive():
            pass
        if self._created:
            self._wait_gate()
        elif self.init.progress()[0] != EXEC:
            self._fail()

    def _wait_gate(self) -> None:
        """It tells before a filter is loaded that may forbid the telling. Little is to be done then."""
        assert self.init
        ended = poll()
        ended.register(self.init.pidfd, POLLIN)
        waited_ms = 0
        while self.init.progress()[0] != WAITING:
            if self.init.progress()[0] == FAILED or ended.poll(GATE_POLL_MS):
                self._fail()
            waited_ms += GATE_POLL_MS
            if waited_ms % STILL_MS == 0 and self.resources.still_waiting:
                self.resources.still_waiting()

    def _receive(self) -> bool:
        """Take one message of init's; False when it was the last."""
        assert self._status and self.init
        # While a sibling is awaited the end of the first is as it should be.
        peer = self.launched.maker if self._awaits_sibling else self.init.pidfd
        if self.resources.still_waiting and peer >= 0:
            spoken = poll()
            for fd in (self._status.fileno(), peer):
                spoken.register(fd, POLLIN)
            while not spoken.poll(STILL_MS):
                self.resources.still_waiting()
        try:
            data = self._messages.take(self._status.fileno(), peer)
        except ConnectionResetError:
            return False
        try:
            return self._received(int.from_bytes(data[:4], "little"))
        finally:
            self._messages.done()

    def _received(self, tag: int) -> bool:
        assert self.init
        if tag == op.TAG_PTY:
            self._messages.move_fd(self._pty)
        elif tag == op.TAG_DISK:
            self._messages.move_fd(self._disk)
        elif tag == op.TAG_SIBLING:
            self.launched.goes_on_as(self._messages)
            self._has_sibling = True
        elif tag == op.TAG_LISTENER:
            self._messages.move_fd(self._calls)
        elif tag == op.TAG_ROOT:
            self._messages.move_fd(self._shared)
        elif tag == op.TAG_MOUNTED:
            self._mounted = True
        elif tag == op.TAG_CREATED:
            self._created = True
        else:
            self._messages.move_fd(self._root)
            return False  # it waits, so that its mounts can be looked into
        return True

    @property
    def _awaits_sibling(self) -> bool:
        return not self._has_sibling and any(step.name == "clone_sibling" for step in self.plan.ops)

    def _fail(self) -> None:
        """Raise for the child that failed first: init starves when the mounter dies."""
        for actor, child in self.children():
            state, index, errno, detail = child.progress()
            if state == DONE:
                continue
            number, step = [each for each in enumerate(self.plan.ops) if each[1].actor == actor][index]
            if state == FAILED and step.name == "exec":
                paths = step.args[0]
                raise ExecFailed(errno, paths[detail] if isinstance(paths, tuple) else "", self._root.fileno())
            self.failed = self._step_error(number, step, errno if state == FAILED else 0, detail)
            raise self.failed

    def _step_error(self, number: int, step: Op, errno: int, detail: int) -> StepError:
        from minibox.plan.explain import step_error

        sources = [
            each.args[0]
            for each in self.plan.ops[:number]
            if each.name in ("open_tree", "open_image") and step.name == "id_map" and each.args[-1] == step.args[0]
        ]
        return step_error(number, len(self.plan.ops), step, errno, str(sources[-1]) if sources else "", detail)

    def children(self) -> list[tuple[str, Child | Init]]:
        """The processes that were made, by actor."""
        return [(actor, child) for actor, child in ((op.MOUNTER, self.mounter), (op.INIT, self.init)) if child]

    def release(self) -> None:
        """Free descriptors; what runs is somebody else's."""
        if self.init is not None:
            self.init.let_go()
            self.init.close()
            self.init = None
        if self.tool:
            self.tool.close()
            self.tool = None
        self.scope = None
        self.close()

    def close(self) -> None:
        """Free descriptors; kill and reap what still runs."""
        for end in self._sockets:
            end.close()
        if self.mounter:
            self.mounter.close()
        if self.init and self.init.pidfd >= 0:
            # While a sibling is awaited nobody tells of an end; the launcher kills both when its connection closes.
            if not self._awaits_sibling:
                self.init.end(SIGKILL)
            self.init.close()
        for fd in self._userns.values():
            os.close(fd)
        self._userns = {}
        for each in (self._pty, self._disk, self._root, self._calls, self._shared):
            each.close()
        self._messages.done()
        self._close_network()

    def _close_network(self) -> None:
        self.close_held()
        if self.listener >= 0:
            os.close(self.listener)
            self.listener = -1
        if self.wiring:
            self.wiring.close()
            self.wiring = None
        if self.tool:
            self.tool.end(SIGTERM)
            self.tool.close()
            self.tool = None

    def close_held(self) -> None:
        """This process holds its ports no longer; one that has copies of the descriptors may."""
        while self.held:
            os.close(self.held.pop())

    def close_scope(self) -> None:
        """End the process that keeps its scope of systemd's, once its cgroup is gone."""
        if self.scope:
            self.scope.close()
            self.scope = None


def _filled(slots: list[int], more: dict[int, int]) -> list[int]:
    """The slots with some of higher numbers."""
    if not more:
        return slots
    slots = slots + [-1] * (max(more) + 1 - len(slots))
    for slot, fd in more.items():
        slots[slot] = fd
    return slots


class CgroupRefused(MiniboxError):
    """No process can be in a cgroup."""


def _cgroup_refused(error: OSError, group: str) -> CgroupRefused:
    from minibox.plan.explain import CGROUP_HINTS

    words = f"start a process in the cgroup {group}: {kernel_says(error)}"
    return CgroupRefused(words, CGROUP_HINTS[error.errno or EBUSY])


def _clone_refused(error: OSError, flags: int) -> MiniboxError:
    from minibox.plan.explain import clone_error

    return clone_error(error, flags)
