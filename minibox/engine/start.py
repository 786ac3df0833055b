"""Execute a Plan: run the parent's steps here and the children's in C, until the command runs.

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
    from minibox.linux.launcher import LaunchedChild
    from minibox.linux.supervisor import SupervisedChild
    from minibox.oci.runtime import Spec
    from minibox.plan.compiler import Plan
    from minibox.plan.operations import Op

    Init = LaunchedChild | SupervisedChild
    Spawn = Callable[..., Init]
    Made = TypeVar("Made")

SOCK_CLOEXEC = 0o2000000
SIGKILL = 9
GATE_POLL_MS = 1
STILL_MS = 500  # of silence, until `Resources.still_waiting` is asked
DYING_MS = 100  # between the end of who made it and its own
JOIN_TRIES = 8
TIOCGPTPEER = 0x5441  # ioctl_tty(2), Linux 4.13


@record
class Resources:
    """What the parent's steps work with.

    Attributes:
        spec: the Spec that the plan was compiled from: its id mappings.
        streams: descriptors of the container's standard input, output and error.
        owner: the host's uid and gid of the container's process.
        make_cgroup: makes the container's cgroup with its limits.
        write_id_maps: maps ids for a pid, where the caller has only his own to give.
        wire: gives the network namespace of the container's first process its links.
        reserve_ports, publish: take the ports that are published, and lead them to the container.
        spawn: makes that process; None: by this process's launcher.
        meanwhile: called while it is made, or before.
        joined_pidfd: of the first process of a container that is joined.
        joined_pid: its pid: where its cgroup can have no process, it is joined in the one that it is in.
        joined_root: its root directory, where that is not its mount namespace's.
        note_root: is told of the mount that is the root of a pid's container, in a mount namespace that others are in.
        gate: what `gate.make_gate` gave, for a container that waits before its exec.
        take_listener: hands on the listener of a pid's seccomp filter; it is closed afterwards.
        run_hooks: runs the hooks prestart and createRuntime for the container of a pid.
        still_waiting: is called while init says nothing for a while, and raises what is a reason to give up.
        hook_outputs: what hooks that it runs itself write to, and their errors; -1 for /dev/null.
        hook_state: its state, of a pid and a status, for the hooks that it runs itself.
        kept_fds: descriptors that stay open in the container: 3 and those after it.
    """

    spec: Spec
    streams: tuple[int, int, int]
    owner: tuple[int, int]
    make_cgroup: Callable[[], Cgroup]
    write_id_maps: Callable[[int, Spec], None]
    wire: Callable[[Init], None]
    reserve_ports: Callable[[], None] = lambda: None
    publish: Callable[[], None] = lambda: None
    spawn: Spawn | None = None
    meanwhile: Callable[[], None] = lambda: None
    joined_pidfd: int = -1
    joined_pid: int = 0
    joined_root: int = -1
    note_root: Callable[[int, int], None] = lambda pid, fd: None
    gate: tuple[int, int] = (-1, -1)
    take_listener: Callable[[int, int], None] = lambda pid, fd: None
    run_hooks: Callable[[int], None] = lambda _: None
    still_waiting: Callable[[], None] | None = None
    hook_outputs: tuple[int, int] = (-1, -1)
    hook_state: Callable[[int, str], Mapping[str, Any]] = lambda pid, status: {}
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

    After `run` the command runs, or waits at its gate: ``init`` is its process. Whoever made the
    execution calls `close`; a command that still runs is killed by it.

    Attributes:
        pty_master: the master of its terminal; -1 where it has none.
        disk_fd: the directory of the container's own layer, where that is in memory (`plan.disk`); else -1.
    """

    def __init__(self, plan: Plan, resources: Resources) -> None:
        self.plan = plan
        self.resources = resources
        self.init: Init | None = None
        self.mounter: Child | None = None
        self.cgroup: Cgroup | None = None
        self._pty, self._disk, self._root = Descriptor(), Descriptor(), Descriptor()
        self._messages = Messages()
        self._userns: dict[int, int] = {}
        self._has_sibling = self._root_noted = self._mounted = self._created = False
        self._status: socket | None = None
        self._sockets: list[socket] = []
        self._parent_times: dict[int, tuple[int, int]] = {}
        self.failed: MiniboxError | None = None

    def run(self) -> None:
        """Execute all steps: those before the gate, if there is one.

        Raises:
            StepError: a step failed; the message says which.
            ExecFailed: the last one did.
            MiniboxError: a step of the parent's failed.
        """
        try:
            self._run_steps()
        except (StepError, ExecFailed):
            raise
        except (OSError, MiniboxError):
            # A process of it may have died meanwhile, and what was asked of it with it: then that is the news.
            failed = any(child and child.progress()[0] == FAILED for child in (self.mounter, self.init))
            if failed or (self.init and (has_ended(self.init.pidfd, DYING_MS) or has_left(self.init.pid))):
                self._fail()
            raise

    def _run_steps(self) -> None:
        from time import monotonic_ns

        for index, step in enumerate(self.plan.ops):
            if step.actor == op.PARENT:
                begin = monotonic_ns()
                getattr(self, "_" + step.name)(*step.args)
                self._parent_times[index] = begin, monotonic_ns()
        self._wait_exec()

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

    # ---- the parent's steps -------------------------------------------------------------------

    def _reserve_ports(self, _ports: tuple[str, ...]) -> None:
        self.resources.reserve_ports()

    def _publish(self, _ports: tuple[str, ...]) -> None:
        self.resources.publish()

    def _create_cgroup(self, _name: str) -> None:
        self.cgroup = self.resources.make_cgroup()

    def _make_userns(self, slot: int, uid_map: str, gid_map: str) -> None:
        from minibox.engine.mapping import user_namespace

        self._userns[slot] = user_namespace(uid_map, gid_map)

    def _clone(self, flags: int) -> None:
        self._status, status = self._socketpair()
        self._channel, channel = self._socketpair()
        opened: list[int] = []
        try:
            cgroup_fd = -1
            tasks: list[int] = []
            if self.cgroup:
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

    def _take_sibling(self) -> None:
        while not self._has_sibling and self._receive():
            pass

    def _take_root(self) -> None:
        while not self._root_noted and self._receive():
            pass

    def _open_joined(self) -> int:
        """The cgroup that the process is in whose container is joined: it may be below the container's. It moves, too."""
        assert self.cgroup
        try:
            return self.cgroup.open_v2(self.cgroup.below(self.resources.joined_pid))
        except FileNotFoundError:
            return self.cgroup.open_v2()

    def _join_cgroup(self) -> None:
        assert self.init and self.cgroup
        try:
            self.cgroup.join(self.init.pid)
        except MiniboxError:
            below = self.cgroup.below(self.resources.joined_pid) if self.resources.joined_pid else ""
            if not below:
                raise
            self.cgroup.join(self.init.pid, below)

    def _write_id_maps(self) -> None:
        assert self.init
        self.resources.write_id_maps(self.init.pid, self.resources.spec)

    def _oom_score_adj(self, value: int) -> None:
        assert self.init
        try:
            with open(f"/proc/{self.init.pid}/oom_score_adj", "wb", 0) as file:
                file.write(b"%d" % value)
        except OSError as error:
            raise MiniboxError(
                f"set the OOM score of the container's process to {value}: {kernel_says(error)}"
            ) from error

    def _clone_mounter(self, flags: int) -> None:
        assert self.init
        _, status = self._socketpair()
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

    def _network(self, _mode: str) -> None:
        assert self.init
        self.resources.wire(self.init)

    def _send(self, tag: int) -> None:
        self._send_message(tag)

    def _send_message(self, tag: int, fd: int = -1) -> None:
        assert self._status
        rides = [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(4, "little"))] if fd >= 0 else []
        try:
            self._status.sendmsg([tag.to_bytes(4, "little") + bytes(4)], rides)
        except OSError as error:
            if error.errno not in (EPIPE, ECONNRESET):  # it has died: _wait_exec finds out of what
                raise

    def _run_hooks(self) -> None:
        while not self._mounted and self._receive():
            pass
        if not self._mounted:
            return  # it has died: _wait_exec finds out of what
        from minibox.engine.hooks import state_file

        assert self.init
        self.resources.run_hooks(self.init.pid)
        for status in ("creating", "created"):
            fd = state_file(self.resources.hook_state(self.init.pid, status))
            try:
                self._send_message(0, fd)
            finally:
                os.close(fd)

    def _take_terminal(self) -> None:
        from fcntl import ioctl

        while self.pty_master < 0:
            if not self._receive():
                return  # init has died: _wait_exec finds out of what
        peer = ioctl(self.pty_master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            os.fchown(peer, self.resources.owner[0], -1)
        except PermissionError:
            pass  # an ordinary user can't give files away, not even to an id of his own
        finally:
            os.close(peer)

    # ---- below --------------------------------------------------------------------------------

    def _socketpair(self) -> tuple[socket, socket]:
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

    def _wait_exec(self) -> None:
        """Wait until the command runs or a child has failed; take what init sends on the way."""
        assert self._status and self.init
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
            self.resources.take_listener(self.init.pid, self._messages.fd)
        elif tag == op.TAG_ROOT:
            self.resources.note_root(self.init.pid, self._messages.fd)
            self._root_noted = True
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
        for actor, child in ((op.MOUNTER, self.mounter), (op.INIT, self.init)):
            if child is None:
                continue
            state, index, errno, detail = child.progress()
            if state == DONE:
                continue
            steps = [(number, step) for number, step in enumerate(self.plan.ops) if step.actor == actor]
            number, step = steps[index]
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

    def trace(self) -> list[tuple[int, Op, int, int]]:
        """Index, step, begin and end (ns of one clock an actor, 0 when not reached) of every step."""
        times = dict(self._parent_times)
        for actor, child in ((op.MOUNTER, self.mounter), (op.INIT, self.init)):
            if child:
                numbers = [number for number, step in enumerate(self.plan.ops) if step.actor == actor]
                times.update(zip(numbers, child.times()))
        return [(number, step, *times.get(number, (0, 0))) for number, step in enumerate(self.plan.ops)]

    def release(self) -> None:
        """Free descriptors; what runs is somebody else's."""
        if self.init is not None:
            self.init.let_go()
            self.init.close()
            self.init = None
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
        for each in (self._pty, self._disk, self._root):
            each.close()
        self._messages.done()


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

    return CgroupRefused(
        f"start a process in the cgroup {group}: {kernel_says(error)}", CGROUP_HINTS[error.errno or EBUSY]
    )


def _clone_refused(error: OSError, flags: int) -> MiniboxError:
    from minibox.plan.explain import clone_error

    return clone_error(error, flags)
