"""The execution of a Plan: its processes, what we hold open for it, and how far each of its actors came.

`engine.process.steps` runs the parent's steps; the children's are run in C.

There are two children. *init* becomes the container's first process. The *mounter*, needed only for id-mapped layers,
assembles the root file system with the host's privileges and hands it over. They talk over sockets, and each writes how
far it came to a page of memory shared with us.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socketpair
from errno import ECONNRESET, EPIPE
from select import POLLIN, poll

from minibox.base.files import AutoClose, close_descriptors, wait_readable
from minibox.base.home import Home
from minibox.errors import CgroupRefused, MiniboxError
from minibox.linux import launcher
from minibox.linux.process import DONE, EXEC, FAILED, SIGKILL, SIGTERM, WAITING, Child, Descriptor, signatures
from minibox.linux.requests import Messages, has_left
from minibox.plan import operations as op
from minibox.plan.encode import count_of, encode
from minibox.plan.parent import undo_list
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
    from minibox.linux.supervisor import SupervisedChild, Supervisor
    from minibox.network.bridge import Wiring
    from minibox.network.published import Batch, Published
    from minibox.plan.compiler import Plan
    from minibox.plan.operations import Op

    Init = LaunchedChild | SupervisedChild
    Made = TypeVar("Made")

SOCK_CLOEXEC = 0o2000000
GATE_POLL_MS, POLL_S = 1, 0.001
STILL_MS = 500  # look at the freezer after so much silence
DYING_S = 0.1  # how long a process may take to die after its parent
JOIN_TRIES = 8
NONE = Descriptor()  # of a message that came without one


@record
class Resources:
    """What a plan needs from outside: descriptors, processes and callbacks.

    Attributes:
        streams: descriptors of the container's standard input, output and error.
        container_id, home: to find its networks and other containers' ports; "" for an OCI container.
        group: the cgroup that the plan makes or joins.
        supervisor: makes the first process; None uses this process's launcher.
        make_files: makes the container's files, while the kernel makes the first process.
        joined_pidfd: of the first process of the container to join.
        joined_pid: its pid. If no process can be added to the container's cgroup, we join the cgroup of this process.
        joined_root: its root directory, if that isn't the root of its mount namespace.
        noted: called with an undo operation that wasn't known before the start; it writes it down at once.
        gate: from `gate.make_gate`, for a container that waits before its exec.
        refuses_frozen: give up if somebody else freezes its cgroup during the start: nobody knows for how long.
        hook_outputs: standard output and error of the hooks that run inside; -1 for /dev/null.
        state: the OCI state, for hooks and the seccomp listener.
        kept_fds: descriptors that stay open in the container, from 3 on.
        on_stop: called before each step of a plan that stops (`plan.stops`), with the step's number.
    """

    streams: tuple[int, int, int]
    container_id: str = ""
    home: Home = Home("")
    group: Cgroup | None = None
    supervisor: Supervisor | None = None
    make_files: Callable[[], None] = lambda: None
    joined_pidfd: int = -1
    joined_pid: int = 0
    joined_root: int = -1
    noted: Callable[[Op], None] = lambda step: None
    gate: tuple[int, int] = (-1, -1)
    refuses_frozen: bool = False
    hook_outputs: tuple[int, int] = (-1, -1)
    state: Mapping[str, Any] = {}
    kept_fds: tuple[int, ...] = ()
    on_stop: Callable[[Execution, int], None] | None = None


class Execution(AutoClose):
    """One execution of a Plan.

    After `steps.run` the command runs or waits at its gate, and ``init`` is its process. Call `close` at the end. It
    kills a command that still runs.

    Attributes:
        parents: the parent's steps, with their places in the plan.
        done: how many of the plan's steps are done, as far as the parent knows.
        cgroup: the container's, once there is one.
        pty_master: the master of its terminal; -1 for none.
        disk_fd: the directory of the container's own layer if that is in memory (`plan.disk`), else -1.
        published: its published ports, once they are reserved.
        held: descriptors that must stay open while its ports are published.
    """

    def __init__(self, plan: Plan, resources: Resources) -> None:
        self.plan = plan
        self.resources = resources
        self.parents: list[tuple[int, Op]] = []
        self._awaits_sibling = False
        for place, step in enumerate(plan.ops):
            if step.actor == op.PARENT:
                self.parents.append((place, step))
            elif step.name == "clone_sibling":
                self._awaits_sibling = True
        self.done = 0
        self.init: Init | None = None
        self.mounter: Child | None = None
        self.cgroup: Cgroup | None = None
        self.scope: Scope | None = None
        self.published: list[Published] = []
        self.held: list[int] = []
        self.wiring: Wiring | None = None
        self.batch: Batch | None = None
        self.tool: RequestedChild | None = None  # carries packets, or keeps the name server's sockets
        self.listener = -1  # the socket where clients attach
        self.parent_times: dict[int, tuple[int, int]] = {}
        self.failed: Exception | None = None
        self._undo_list: tuple[Op, ...] | None = None
        self.undone_by: list[Op] = []  # undo operations beside those of the plan
        self._messages = Messages()
        self._told: dict[int, Descriptor] = {}  # what init has sent so far, by tag
        self._userns: dict[int, int] = {}
        self._status: socket | None = None
        self._mounters: socket | None = None
        self._let_go: dict[str, int] = {}  # actor -> how many of its operations it may do
        self._sockets: list[socket] = []

    @property
    def launched(self) -> LaunchedChild:
        """``init``, if it was made without ``spawn``."""
        assert isinstance(self.init, launcher.LaunchedChild)
        return self.init

    @property
    def pty_master(self) -> int:
        return self._fd_of(op.TAG_PTY)

    @property
    def disk_fd(self) -> int:
        return self._fd_of(op.TAG_DISK)

    def _fd_of(self, tag: int) -> int:
        found = self._told.get(tag)
        return found.fileno() if found else -1

    @property
    def pid(self) -> int:
        """The pid of ``init``."""
        assert self.init
        return self.init.pid

    @property
    def undo_list(self) -> tuple[Op, ...]:
        """The operations that undo all of the plan's steps."""
        if self._undo_list is None:
            self._undo_list = undo_list([step for _, step in self.parents])
        return self._undo_list

    def hold_userns(self, slot: int, fd: int) -> None:
        """Keep a user namespace that id-maps a mount."""
        self._userns[slot] = fd

    # ---- processes ----------------------------------------------------------------------------

    def clone(self, flags: int, _cgroups: tuple[str, ...], born: int) -> None:
        """Make the process that becomes the container's first one, or another one of a running container.

        Args:
            born: create it inside its cgroup.
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
            supervisor, make_files = self.resources.supervisor, self.resources.make_files

            def make(buffer: bytearray, flags: int, slots: list[int], count: int) -> Init:
                if supervisor is None:
                    return launcher.spawn(buffer, flags, slots, count, cgroup_fd, make_files)
                make_files()
                return supervisor.spawn(buffer, flags, slots, count, cgroup_fd)

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
            close_descriptors(*opened)
        # Close our copies: while one is open, nobody notices when the process at the other end dies.
        status.close()
        channel.close()

    def wait_for(self, tag: int) -> int:
        """Wait until init has sent a message. Return the descriptor that came with it; -1 for none, or if init has died.

        `finish` finds out why it died.
        """
        while tag not in self._told and self._receive():
            pass
        return self._fd_of(tag)

    def close_fd(self, tag: int) -> None:
        """Close a descriptor that init has sent, after it was passed on."""
        self._told[tag].close()

    def has_told(self, tag: int) -> bool:
        """Has that message come?"""
        return tag in self._told

    def also_undo(self, step: Op) -> None:
        """Add an operation to what undoes the start."""
        self.undone_by.append(step)
        self.resources.noted(step)

    def state(self, status: str) -> Mapping[str, Any]:
        """The OCI state of the container, for hooks; of a running container it was given."""
        of_others = self.resources.joined_pidfd >= 0
        return self.resources.state if of_others else {**self.resources.state, "status": status, "pid": self.pid}

    def fail_of_child(self) -> None:
        """If a child has failed or died, raise its error: it explains why a step of the parent failed."""
        failed = any(child.progress()[0] == FAILED for _, child in self.children())
        if failed or (self.init and (wait_readable(self.init.pidfd, DYING_S) or has_left(self.init.pid))):
            self._fail()

    def _open_joined(self) -> int:
        """Open the cgroup of the process to join. It may be below the container's, and may change at any time."""
        assert self.cgroup
        try:
            return self.cgroup.open_v2(self.cgroup.below(self.resources.joined_pid))
        except FileNotFoundError:
            return self.cgroup.open_v2()

    def clone_mounter(self, flags: int) -> None:
        """Make the mounter, which has the host's privileges."""
        assert self.init
        self._mounters, status = self.socketpair()
        proc = f"/proc/{self.init.pid}"
        found = {op.USERNS: os.open(f"{proc}/ns/user", os.O_RDONLY | os.O_CLOEXEC)}
        try:
            found[op.ROOT] = os.open(f"{proc}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            slots = _filled([status.fileno(), self._channel.fileno()], self._userns | found)
            self.mounter = self._spawn(op.MOUNTER, Child, flags, slots)
        finally:
            close_descriptors(*found.values())
        status.close()
        self._channel.close()

    def let_go(self, actor: str, waits: int) -> None:
        """Let a child do its next step, and wait until it is done; see `plan.stops`.

        Args:
            waits: it takes until a later step of ours, so don't wait.
        """
        child = self.mounter if actor == op.MOUNTER else self.init
        end = self._mounters if actor == op.MOUNTER else self._status
        assert child and end
        self.send(op.TAG_STEP, to=end)
        # Each step has a wait before it.
        self._let_go[actor] = done = self._let_go.get(actor, 0) + 2
        while not waits:
            ended = wait_readable(child.pidfd, POLL_S)
            state, index, *_ = child.progress()
            if index >= done or state in (EXEC, DONE):
                break
            if ended or state == FAILED:
                self._fail()
                break

    def send(self, tag: int, fd: int = -1, to: socket | None = None) -> None:
        """Send a message to ``init``, or another child, with a descriptor."""
        end = to or self._status
        assert end
        rides = [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(4, "little"))] if fd >= 0 else []
        try:
            end.sendmsg([tag.to_bytes(4, "little") + bytes(4)], rides)
        except OSError as error:
            if error.errno not in (EPIPE, ECONNRESET):  # if it has died, `finish` finds out why
                raise

    # ---- below --------------------------------------------------------------------------------

    def socketpair(self) -> tuple[socket, socket]:
        """Make a socket pair. `close` closes it."""
        pair = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        self._sockets += pair
        return pair

    def _spawn(self, actor: str, make: Callable[..., Made], flags: int, slots: list[int]) -> Made:
        buffer = bytearray(self.plan.encoded.get(actor) or encode(self.plan.of(actor), signatures()))
        try:
            return make(buffer, flags, slots, count_of(buffer))
        except OSError as error:
            from minibox.engine.process.diagnosis import clone_failure

            raise clone_failure(error, flags, self.cgroup.v2 if self.cgroup and actor == op.INIT else "") from error

    def finish(self) -> None:
        """Wait until the command runs or a child has failed. Receive what init sends meanwhile."""
        assert self.init
        self.wait_for(op.TAG_CREATED)
        if self.has_told(op.TAG_CREATED):
            self._wait_gate()
        elif self.init.progress()[0] != EXEC:
            self._fail()

    def _wait_gate(self) -> None:
        """Wait until init is at the gate. It has only little left to do: it reports before it loads its seccomp filter,
        which may forbid reporting."""
        assert self.init
        ended = poll()
        ended.register(self.init.pidfd, POLLIN)
        waited_ms = 0
        while self.init.progress()[0] != WAITING:
            if self.init.progress()[0] == FAILED or ended.poll(GATE_POLL_MS):
                self._fail()
            waited_ms += GATE_POLL_MS
            if waited_ms % STILL_MS == 0:
                self._refuse_frozen()

    def _refuse_frozen(self) -> None:
        if self.resources.refuses_frozen:
            refuse_frozen(self.resources.group)

    def _receive(self) -> bool:
        """Receive one message from init. Return whether more will follow."""
        assert self._status and self.init
        # While we wait for a sibling, the first process is expected to end.
        peer = self.launched.maker if self._awaits_sibling else self.init.pidfd
        if self.resources.refuses_frozen and peer >= 0:
            spoken = poll()
            for fd in (self._status.fileno(), peer):
                spoken.register(fd, POLLIN)
            while not spoken.poll(STILL_MS):
                self._refuse_frozen()
        try:
            data = self._messages.take(self._status.fileno(), peer)
        except ConnectionResetError:
            return False
        try:
            return self._received(int.from_bytes(data[:4], "little"))
        finally:
            self._messages.done()

    def _received(self, tag: int) -> bool:
        if tag == op.TAG_SIBLING:
            self.launched.goes_on_as(self._messages)
            self._awaits_sibling = False
        fd = self._told[tag] = Descriptor() if self._messages.fd >= 0 else NONE
        self._messages.move_fd(fd)
        return tag != op.TAG_EXEC_ROOT  # after it init waits, so that we can look into its root

    def _fail(self) -> None:
        """Raise the error of the child that failed first, if one did."""
        from minibox.engine.process.diagnosis import child_failure

        if error := child_failure(self.plan, self.children(), self._fd_of(op.TAG_EXEC_ROOT)):
            self.failed = error
            raise error

    def children(self) -> list[tuple[str, Child | Init]]:
        """The processes that were made, by actor."""
        return [(actor, child) for actor, child in ((op.MOUNTER, self.mounter), (op.INIT, self.init)) if child]

    def release(self) -> None:
        """Close descriptors, and let the processes run on: another process owns them now."""
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
        """Close descriptors, and kill and reap the processes that still run."""
        for end in self._sockets:
            end.close()
        if self.mounter:
            self.mounter.close()
        if self.init and self.init.pidfd >= 0:
            if self._awaits_sibling:  # nobody reports its end
                if self.launched.is_orphan:
                    self.launched.end_orphans()
            else:
                self.init.end(SIGKILL)
            self.init.close()
        close_descriptors(*self._userns.values())
        self._userns = {}
        for each in self._told.values():
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
        """Stop holding its ports in this process. Another process may have copies of the descriptors."""
        while self.held:
            os.close(self.held.pop())

    def close_scope(self) -> None:
        """End the process that keeps its systemd scope alive. Call it once its cgroup is gone."""
        if self.scope:
            self.scope.close()
            self.scope = None


def _filled(slots: list[int], more: dict[int, int]) -> list[int]:
    """The slots, extended by those in ``more``."""
    if not more:
        return slots
    slots = slots + [-1] * (max(more) + 1 - len(slots))
    for slot, fd in more.items():
        slots[slot] = fd
    return slots


def refuse_frozen(group: Cgroup | None) -> None:
    """Refuse a cgroup that someone else has frozen: nobody knows for how long."""
    if group and group.is_frozen():
        raise MiniboxError("container's cgroup unexpectedly frozen", "thaw it, or the one above it, first")
