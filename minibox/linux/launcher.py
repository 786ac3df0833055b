"""The launcher: a small C process that is the parent of the containers that this process runs in the foreground.

A process starts its launcher when it first needs it. So a start takes the same time from an interpreter of any size
and from any thread. The launcher starts processes as the calling thread would: a thread with other privileges, limits
or namespaces gets another launcher, and so does a forked child. The other side of the messages is
``native/parent/launcher.c``, their layout ``native/parent/launcher.h``.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SHUT_RDWR, SOCK_SEQPACKET, socketpair
from _thread import allocate_lock
from atexit import register
from struct import Struct

from minibox._native import ffi, lib
from minibox.base.files import close_descriptors, wait_readable
from minibox.errors import suppress
from minibox.linux.executable import open_init
from minibox.linux.process import SIGKILL, Program, kill_group, open_pidfd, send_signal
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
    send,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterable

LAUNCHER_ARGV0 = "minibox-launcher"
SOCK_CLOEXEC = 0o2000000
LAUNCHERS_MAX = 4  # for callers that differ
ENDED = Struct("=iIQQ")  # struct mb_ended


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
        slots: the plan's descriptor slots, -1 for an empty one.
        op_count: the number of operations in ``buffer``.
        cgroup_fd: the directory of the v2 cgroup to start it in, or -1.
        meanwhile: called while the launcher makes it; called again if the launcher was killed.

    Raises:
        OSError: the kernel refuses.
    """
    slots = tuple(slots)
    launcher = of_caller()
    try:
        return launcher.spawn(buffer, flags, slots, op_count, cgroup_fd, meanwhile)
    except ConnectionError:  # somebody killed the launcher, and its children died with it
        _launchers.forget(launcher)
        return of_caller().spawn(buffer, flags, slots, op_count, cgroup_fd, meanwhile)


def of_caller() -> Launcher:
    """Return the launcher for the calling thread, and start it if there is none, so that the next start finds it ready.

    Raises:
        OSError: it can't be started.
    """
    return _launchers.find()


def make_ready() -> None:
    """Start a launcher if this process has none, without waiting for it.

    Raises:
        OSError: it can't be started.
    """
    if not _launchers.any():
        _launchers.find()


def close_all() -> None:
    """Make this process's launchers end as soon as they have no containers."""
    _launchers.end(at_once=False)


def end_all() -> None:
    """End this process's launchers and all their containers."""
    _launchers.end(at_once=True)


class Launcher:
    """A launcher, and the socket to it. It ends when the socket is closed and its last container has ended."""

    def __init__(self) -> None:
        """Prepare a launcher; call `start` next."""
        self._program = Program()
        self._socket: socket | None = None
        self._reaped = False

    def start(self) -> None:
        """Start the launcher.

        Raises:
            OSError: it can't be started.
        """
        self._socket, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        opened: list[int] = []
        try:
            opened.append(os.pidfd_open(os.getpid()))
            opened.append(open_init())
            # Pass the executable as descriptor 2, to keep it open: closing the last one unmounts it, which is slow.
            self._program.start(f"/proc/self/fd/{opened[-1]}", (LAUNCHER_ARGV0,), {}, (theirs.fileno(), *opened))
        finally:
            theirs.close()
            close_descriptors(*opened)

    @property
    def pid(self) -> int:
        """The launcher's process id; 0 before it was started."""
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
        except BaseException as error:
            if isinstance(error, ConnectionError):
                child.end_orphans()
            child.close()
            raise
        return child

    @property
    def pidfd(self) -> int:
        """The launcher's pidfd; `PEER_DEAD` if it was reaped."""
        return PEER_DEAD if self._reaped else self._program.pidfd

    def close(self, *, end: bool = False) -> None:
        """Close the socket. With ``end`` the launcher ends at once."""
        if self._socket:
            with suppress(OSError):  # it has ended already
                if end:
                    self._socket.send(END.to_bytes(4, "little"))
            self._socket.close()

    def reap(self, flags: int) -> bool:
        """Call waitpid(2) with ``flags``; tell whether the launcher has ended, or there is nothing to wait for."""
        try:
            self._reaped = self._reaped or not self.pid or bool(os.waitpid(self.pid, flags)[0])
        except ChildProcessError:  # other code in this process waits for all children
            self._reaped = True
        if self._reaped:
            self._program.close()
        return self._reaped


class LaunchedChild(RequestedChild):
    """A child of the launcher. It is killed if this object is closed before its end, or if this process ends.

    Several threads may wait for it at once.
    """

    def __init__(self, buffer: bytes | bytearray, op_count: int, launcher: Launcher) -> None:
        super().__init__(buffer, op_count)
        self._launcher, self._messages = launcher, Messages()
        self._owner = os.getpid()
        self._connection: socket | None = None
        self._lock = allocate_lock()
        self._ended: tuple[int, int, int, int] | None = None  # status as of wait(2), microseconds, KiB, relayed

    def ask_for(self, control: socket, flags: int, slots: Iterable[int], cgroup_fd: int) -> None:
        """Ask the launcher at the other end of ``control`` to make it; call `take_answer` next."""
        self._connection, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        try:
            message, fds = self.request(SPAWN, flags, slots, cgroup_fd)
            send(control, message, [theirs.fileno(), *fds])
        finally:
            theirs.close()

    def take_answer(self) -> None:
        """Wait until the launcher has made it."""
        self.made(self._messages, self._answer())

    def spawn_helper(
        self, buffer: bytes | bytearray, flags: int, slots: Iterable[int], op_count: int
    ) -> RequestedChild:
        """Make a process that gets SIGTERM when the container has ended."""
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
        """Continue with a sibling that replaces this process, which ends. ``messages`` has the sibling's pidfd."""
        assert self._connection
        try:
            send(self._connection, GOES_ON_AS.to_bytes(4, "little"), [messages.fd])
        except ConnectionError:
            self.end_orphans()
            raise
        self._record.first = self._record.sibling = 0  # these numbers may become other processes'
        messages.move_fd(self._process)
        with open(f"/proc/self/fdinfo/{self.pidfd}", encoding="ascii") as file:
            self.pid = next(int(line[4:]) for line in file if line.startswith("Pid:"))

    @property
    def maker(self) -> int:
        """The pidfd of the process that made it."""
        return self._launcher.pidfd

    def wait(self) -> int:
        """Wait for its end; return the exit status, or the negative signal number, like `subprocess`. Repeatable."""
        with self._lock:
            while self._ended is None:
                try:
                    self._take()
                except ConnectionError:
                    self.end_orphans()
                    self._ended = SIGKILL, 0, 0, 0
        status = self._ended[0]
        return -(status & 0x7F) if status & 0x7F else status >> 8

    @property
    def is_orphan(self) -> bool:
        """Was the launcher killed?"""
        return self.maker < 0 or wait_readable(self.maker, 0)

    def end_orphans(self) -> None:
        """After the launcher was killed: kill the process and the sibling that it may have made, and reap them.

        As process 1 or a subreaper this process has become their parent: their zombies would hold up the end of the
        container that they were executed in.
        """
        if self.maker >= 0:
            wait_readable(self.maker)
        if self.pidfd >= 0:
            _end_orphan(self.pidfd)
        elif self._record.first:
            _end_orphan_of_pid(self._record.first)
        if self._record.sibling:  # no later one can come now
            _end_orphan_of_pid(self._record.sibling)

    def usage(self) -> tuple[int, int]:
        """Return what it used, after `wait`: the CPU time in ns of it and its reaped children, and the peak memory in
        bytes of the largest of them."""
        assert self._ended
        return self._ended[1] * 1000, self._ended[2] << 10

    @property
    def relayed(self) -> int:
        """The signal that ended the command, if our init ran it and reported that with its exit; 0 for none."""
        assert self._ended
        return self._ended[3]

    def end(self, signal_number: int) -> int:
        """Send a signal unless it has ended, and wait for its end."""
        if self._ended is None:
            self.send_signal(signal_number)
        return self.wait()

    def kill_group(self) -> None:
        """Send SIGKILL to its process group, of which it is the leader."""
        if kill_group(self.pidfd) or wait_readable(self.pidfd, 0):
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, SIGKILL)  # an older kernel; while it runs, the number can't be reused

    def let_go(self) -> None:
        """Let it run on after this object is closed or this process ends."""
        assert self._connection
        send(self._connection, LET_GO.to_bytes(4, "little"), [])
        self._answer()
        self._messages.done()

    def close(self) -> None:
        """Free everything; a forked child frees only its own copy."""
        if self._connection:
            if os.getpid() == self._owner:
                with suppress(OSError):  # the launcher has died
                    self._connection.shutdown(SHUT_RDWR)  # a forked child may hold a copy
            self._connection.close()
            self._connection = None
        super().close()

    def _answer(self) -> bytes:
        """Wait for the answer to a request. It stays in the messages."""
        while len(data := self._take()) != ANSWER_BYTES:
            pass
        return data

    def _take(self) -> bytes:
        """Return the next message. If it reports the end, which may come any time, record that before removing it."""
        assert self._connection
        data = self._messages.take(self._connection.fileno(), self.maker)
        if len(data) == ENDED.size:
            status, relayed, microseconds, kibibytes = ENDED.unpack(data)
            self._ended = status, microseconds, kibibytes, relayed
            self._messages.done()
        return data


def _end_orphan_of_pid(pid: int) -> None:
    pidfd = open_pidfd(pid)
    if pidfd >= 0:
        _end_orphan(pidfd)
        os.close(pidfd)


def _end_orphan(pidfd: int) -> None:
    send_signal(pidfd, SIGKILL)
    wait_readable(pidfd)
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        pass  # another process is its parent now


class _Launchers:
    """The launchers of this process, by the kind of caller that they work for."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = allocate_lock()
        self._of: dict[bytes, Launcher] = {}  # a launcher is in here before it starts
        self._closed: list[Launcher] = []  # closed ones, which may still have containers

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
        """Forget the parent's launchers, in a forked child."""
        for launcher in self._of.values():
            launcher.close()
        self._begin()  # another thread may have held the lock


_launchers = _Launchers()
os.register_at_fork(after_in_child=_launchers.forked)
register(end_all)
