"""The launcher: the small C process that is the parent of what this one runs in the foreground.

A process has one, started when it is first needed, and so a start costs the same from an interpreter of
any size and from any thread. It starts things as the calling thread would: a thread that has other
privileges, limits or namespaces than the one before gets another launcher, and so has a child by fork.
The other side of the messages is ``native/launcher.c``, their layout ``native/launcher.h``.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SHUT_RDWR, SOCK_SEQPACKET, socketpair
from _thread import allocate_lock
from atexit import register
from struct import Struct

from minibox._native import ffi, lib
from minibox.linux.executable import open_init
from minibox.linux.process import Program, kill_group
from minibox.linux.requests import (
    ANSWER_BYTES,
    END,
    GOES_ON_AS,
    LET_GO,
    PEER_DEAD,
    SPAWN,
    SPAWN_HELPER,
    Messages,
    RequestedChild,
    has_ended,
    send,
    wait_for_end,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterable

LAUNCHER_ARGV0 = "minibox-launcher"
SOCK_CLOEXEC = 0o2000000
LAUNCHERS_MAX = 4  # for callers that differ
ENDED = Struct("=iIQQ")  # struct mb_ended
SIGKILL = 9


def spawn(
    buffer: bytes | bytearray,
    flags: int,
    slots: Iterable[int],
    op_count: int,
    cgroup_fd: int = -1,
    meanwhile: Callable[[], None] = lambda: None,
) -> LaunchedChild:
    """Make a container's first process.

    Args:
        buffer: an encoded plan.
        flags: CLONE_NEW* of clone3(2).
        slots: its descriptor slots, -1 for an empty one.
        op_count: operations in ``buffer``.
        cgroup_fd: directory of the cgroup v2 it is born in, or -1.
        meanwhile: called while the launcher makes it; again where that was killed.

    Raises:
        OSError: the kernel refuses.
    """
    slots = tuple(slots)
    launcher = of_caller()
    try:
        return launcher.spawn(buffer, flags, slots, op_count, cgroup_fd, meanwhile)
    except ConnectionError:  # somebody has killed it, and what it had made is dead too
        _launchers.forget(launcher)
        return of_caller().spawn(buffer, flags, slots, op_count, cgroup_fd, meanwhile)


def of_caller() -> Launcher:
    """The launcher for the calling thread, started where there is none yet: a start that comes finds it ready.

    Raises:
        OSError: it can't be started.
    """
    return _launchers.find()


def make_ready() -> None:
    """Begin to start a launcher where this process has none.

    Raises:
        OSError: it can't be started.
    """
    if not _launchers.any():
        _launchers.find()


def close_all() -> None:
    """Have the launchers of this process end as soon as they have nothing to look after."""
    _launchers.end(at_once=False)


def end_all() -> None:
    """End the launchers of this process, with all that they look after."""
    _launchers.end(at_once=True)


class Launcher:
    """One launcher, and the socket to it. It ends when that is closed and no container of it is left."""

    def __init__(self) -> None:
        """`start` follows."""
        self._program = Program()
        self._socket: socket | None = None
        self._reaped = False

    def start(self) -> None:
        """Start it.

        Raises:
            OSError: it can't be started.
        """
        self._socket, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        opened: list[int] = []
        try:
            opened.append(os.pidfd_open(os.getpid()))
            opened.append(open_init())
            # The executable is 2 there: its last user closes a mount, which takes a while.
            self._program.start(f"/proc/self/fd/{opened[-1]}", (LAUNCHER_ARGV0,), {}, (theirs.fileno(), *opened))
        finally:
            theirs.close()
            for fd in opened:
                os.close(fd)

    @property
    def pid(self) -> int:
        """0 before it was started."""
        return self._program.pid

    def spawn(
        self,
        buffer: bytes | bytearray,
        flags: int,
        slots: Iterable[int],
        op_count: int,
        cgroup_fd: int,
        meanwhile: Callable[[], None],
    ) -> LaunchedChild:
        """See `spawn`.

        Raises:
            ConnectionError: the launcher has died.
        """
        assert self._socket
        child = LaunchedChild(buffer, op_count, self)
        try:
            child.ask_for(self._socket, flags, slots, cgroup_fd)
            meanwhile()
            child.take_answer()
        except BaseException:
            child.close()
            raise
        return child

    @property
    def pidfd(self) -> int:
        """`PEER_DEAD` when it was reaped."""
        return PEER_DEAD if self._reaped else self._program.pidfd

    def close(self, *, end: bool = False) -> None:
        """Close the socket; with ``end`` it ends at once."""
        if self._socket:
            try:
                if end:
                    self._socket.send(END.to_bytes(4, "little"))
            except OSError:
                pass  # it has
            self._socket.close()

    def reap(self, flags: int) -> bool:
        """Wait for its end as waitpid(2) does with ``flags``; whether it has come, or there is nothing to wait for."""
        try:
            self._reaped = self._reaped or not self.pid or bool(os.waitpid(self.pid, flags)[0])
        except ChildProcessError:  # somebody waits for all children of this process
            self._reaped = True
        if self._reaped:
            self._program.close()
        return self._reaped


class LaunchedChild(RequestedChild):
    """A process of the launcher's: it is killed when this object is closed before its end, or this process ends.

    Any thread may wait for it, and several at once.
    """

    def __init__(self, buffer: bytes | bytearray, op_count: int, launcher: Launcher) -> None:
        super().__init__(buffer, op_count)
        self._launcher, self._messages = launcher, Messages()
        self._owner = os.getpid()
        self._connection: socket | None = None
        self._lock = allocate_lock()
        self._ended: tuple[int, int, int, int] | None = None  # status as of wait(2), microseconds, KiB, relayed

    def ask_for(self, control: socket, flags: int, slots: Iterable[int], cgroup_fd: int) -> None:
        """Have it made by the launcher at the other end of ``control``; `take_answer` follows."""
        self._connection, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        try:
            message, fds = self.request(SPAWN, flags, slots, cgroup_fd)
            send(control, message, [theirs.fileno(), *fds])
        finally:
            theirs.close()

    def take_answer(self) -> None:
        """Wait until it is made."""
        self.made(self._messages, self._answer())

    def spawn_helper(
        self, buffer: bytes | bytearray, flags: int, slots: Iterable[int], op_count: int
    ) -> RequestedChild:
        """Make a process that is sent SIGTERM when the container has ended."""
        assert self._connection
        helper = RequestedChild(buffer, op_count)
        try:
            send(self._connection, *helper.request(SPAWN_HELPER, flags, slots, -1))
            helper.made(self._messages, self._answer())
        except BaseException:
            helper.close()
            raise
        return helper

    def goes_on_as(self, messages: Messages) -> None:
        """It ends, and a sibling takes its place, whose pidfd came along with a message."""
        assert self._connection
        send(self._connection, GOES_ON_AS.to_bytes(4, "little"), [messages.fd])
        messages.move_fd(self._process)
        with open(f"/proc/self/fdinfo/{self.pidfd}", encoding="ascii") as file:
            self.pid = next(int(line[4:]) for line in file if line.startswith("Pid:"))

    @property
    def maker(self) -> int:
        """Pidfd of the process that made it."""
        return self._launcher.pidfd

    def wait(self) -> int:
        """Wait for its end; the exit status, or the negative signal number, as `subprocess`. Again: the same."""
        with self._lock:
            while self._ended is None:
                try:
                    self._take()
                except ConnectionError:  # the launcher was killed, which the container may not have heard of
                    self.send_signal(SIGKILL)
                    wait_for_end(self.pidfd)
                    self._reap_orphan()
                    self._ended = SIGKILL, 0, 0, 0
        status = self._ended[0]
        return -(status & 0x7F) if status & 0x7F else status >> 8

    def _reap_orphan(self) -> None:
        """Its maker is dead, and it is this process's child, where that adopts orphans (as process 1, or a subreaper): as a
        zombie it would hold up the end of the container that it was executed in."""
        if self.maker >= 0:
            wait_for_end(self.maker)
        try:
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass

    def usage(self) -> tuple[int, int]:
        """What it has used, after `wait`: CPU time in ns, of it and all that it has waited for; the largest's memory
        in bytes."""
        assert self._ended
        return self._ended[1] * 1000, self._ended[2] << 10

    @property
    def relayed(self) -> int:
        """The signal that ended the command of an init of ours, which has exited for it; 0 for none."""
        assert self._ended
        return self._ended[3]

    def end(self, signal_number: int) -> int:
        """Send a signal unless it has ended, and wait."""
        if self._ended is None:
            self.send_signal(signal_number)
        return self.wait()

    def kill_group(self) -> None:
        """SIGKILL for all of its process group, of which it is the leader."""
        if kill_group(self.pidfd) or has_ended(self.pidfd):
            return
        try:
            os.killpg(self.pid, SIGKILL)  # an older kernel, and the number is its own for as long as it runs
        except ProcessLookupError:
            pass

    def let_go(self) -> None:
        """Leave it to itself: it goes on when this object is closed, and this process ends."""
        assert self._connection
        send(self._connection, LET_GO.to_bytes(4, "little"), [])
        self._answer()
        self._messages.done()

    def close(self) -> None:
        """Free all; a child by fork only its copy."""
        if self._connection:
            if os.getpid() == self._owner:
                try:
                    self._connection.shutdown(SHUT_RDWR)  # such a child may hold a copy
                except OSError:
                    pass  # the launcher has died
            self._connection.close()
            self._connection = None
        super().close()

    def _answer(self) -> bytes:
        """The answer to a request, which stays in the messages."""
        while len(data := self._take()) != ANSWER_BYTES:
            pass
        return data

    def _take(self) -> bytes:
        """The next message; its end, which may come at any time, is noted before it counts as taken."""
        assert self._connection
        data = self._messages.take(self._connection.fileno(), self.maker)
        if len(data) == ENDED.size:
            status, relayed, microseconds, kibibytes = ENDED.unpack(data)
            self._ended = status, microseconds, kibibytes, relayed
            self._messages.done()
        return data


class _Launchers:
    """Those of this process, by the callers that they start things for."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = allocate_lock()
        self._of: dict[bytes, Launcher] = {}  # each from before its start
        self._closed: list[Launcher] = []  # that may have containers still

    def find(self) -> Launcher:
        numbers = ffi.new("struct mb_caller *")
        lib.mb_caller(numbers)
        caller = bytes(ffi.buffer(numbers))
        found = self._of.get(caller)
        if found and found.pid:
            return found
        with self._lock:
            found = self._of.setdefault(caller, Launcher())
            if not found.pid:
                found.start()
                while len(self._of) > LAUNCHERS_MAX:
                    self._close(next(iter(self._of)))
                self._reap_closed()
            return found

    def any(self) -> bool:
        return any(launcher.pid for launcher in list(self._of.values()))

    def forget(self, launcher: Launcher) -> None:
        with self._lock:
            for caller in [caller for caller, each in self._of.items() if each is launcher]:
                self._close(caller)
            self._reap_closed()

    def end(self, *, at_once: bool) -> None:
        with self._lock:
            for caller, launcher in list(self._of.items()):
                self._close(caller, end=at_once)
                if at_once:
                    launcher.reap(0)
            self._reap_closed()

    def _close(self, caller: bytes, *, end: bool = False) -> None:
        launcher = self._of[caller]
        self._closed.append(launcher)  # twice is fine
        launcher.close(end=end)
        self._of.pop(caller)

    def _reap_closed(self) -> None:
        self._closed = [launcher for launcher in self._closed if not launcher.reap(os.WNOHANG)]

    def forked(self) -> None:
        """In a child by fork: its parent's are none of its own."""
        for launcher in self._of.values():
            launcher.close()
        self._begin()  # another thread may have held the lock


_launchers = _Launchers()
os.register_at_fork(after_in_child=_launchers.forked)
register(end_all)
