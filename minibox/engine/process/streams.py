"""A foreground container's standard streams, and the threads that copy those we can't hand over directly.

The container gets the caller's pipes directly, because that is fastest. For everything else (a terminal, a file, a
socket) it gets a pipe, and a thread copies. Otherwise the container's users couldn't open /dev/stdout, since they may
have no permission for the caller's file, and the container could use a terminal's dangerous ioctls.
"""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread
from errno import ECONNRESET, EINVAL, EIO, EPIPE
from fcntl import F_DUPFD_CLOEXEC, F_SETPIPE_SZ, fcntl
from select import POLLIN, POLLOUT, epoll, poll

from minibox.base.files import close_descriptors, wait_readable
from minibox.engine.process.signals import block
from minibox.errors import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.engine.process.detach_keys import DetachKeys
    from minibox.engine.process.output_limit import OutputLimit

CHUNK = 1 << 20  # the size of one splice and of our pipes: the largest allowed without privilege
TTY_CHUNK = 1 << 16


class StandardDescriptors:
    """Open /dev/null at 0, 1 and 2 where the caller has closed them, until `close`.

    Otherwise the next file opened would become standard input or output.
    """

    def __init__(self) -> None:
        self._fds: list[int] = []
        while (fd := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) < 3:
            self._fds.append(fd)
        os.close(fd)

    def close(self) -> None:
        """Close them again."""
        close_descriptors(*self._fds)
        self._fds.clear()


class Streams:
    """The three streams of one container.

    Attributes:
        fds: what the container's process gets as 0, 1 and 2. `begin` closes this process's copies.
    """

    def __init__(
        self,
        *,
        interactive: bool,
        tty: bool,
        owner: tuple[int, int],
        detaching: DetachableInput | None = None,
        outside: tuple[int, int, int] = (0, 1, 2),
        output_limit: OutputLimit | None = None,
        socket: bool = False,
    ) -> None:
        """Open the streams.

        Args:
            interactive: pass standard input on; otherwise it is /dev/null.
            tty: the container gets a terminal instead.
            owner: the host's uid and gid of the container's process, so that it can reopen its streams.
            detaching: watches for the detach keys. Call `abandon` after the user has detached.
            outside: the caller's streams, which must stay open while this object is used. Not for a terminal.
            output_limit: how much the container may write to standard output and error together.
            socket: standard input is a socket made for the container, used in both directions.
        """
        self._output_limit, self._socket = output_limit, socket
        self._outside = outside
        self._detaching = detaching
        self.fds: tuple[int, int, int] = (-1, -1, -1)
        self._tty = tty
        self._interactive = interactive
        self._ours: list[int] = []  # closed once the container has them
        self._given: tuple[int, int] | None = None  # source and target of its input
        self._copies: list[tuple[int, int]] = []  # sources and targets of its output
        self._done: list[Copy] = []
        self._input: Copy | None = None
        if not tty:
            pipes: list[int] = []
            self.fds = (self._stdin(pipes), *self._stdouts(pipes))
            for fd in pipes:
                _give(fd, owner)

    def _stdin(self, pipes: list[int]) -> int:
        """Open its standard input. If it is a pipe, add it to ``pipes``."""
        if not self._interactive:
            return self._null()
        stdin = self._outside[0]
        is_pipe = not self._socket and _is_pipe(stdin)
        if self._socket or is_pipe or _is_null(stdin):
            kept = self._keep(stdin)
        else:
            kept, writer = self._pipe()
            self._given, is_pipe = (stdin, writer), True
        if is_pipe:
            pipes.append(kept)
        return kept

    def _stdouts(self, pipes: list[int]) -> tuple[int, int]:
        made: dict[tuple[int, int], int] = {}  # if both are the same file, use one pipe, so that lines stay in order
        result = []
        for fd in self._outside[1:]:
            is_pipe = not self._output_limit and _is_pipe(fd)
            if is_pipe or _is_null(fd):
                result.append(self._keep(fd))
                pipes += result[-1:] if is_pipe else []
                continue
            status = os.fstat(fd)
            key = status.st_dev, status.st_ino
            if key not in made:
                reader, made[key] = self._pipe()
                pipes.append(made[key])
                self._copies.append((reader, self._keep(fd) if self._output_limit else fd))
            result.append(made[key])
        return result[0], result[1]

    def _keep(self, fd: int) -> int:
        self._ours.append(fcntl(fd, F_DUPFD_CLOEXEC, 3))
        return self._ours[-1]

    def _null(self) -> int:
        self._ours.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        return self._ours[-1]

    def _pipe(self) -> tuple[int, int]:
        """Make a pipe. The caller decides which end is the container's."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):  # the user's quota for pipes is used up: a smaller pipe is only slower
            fcntl(writer, F_SETPIPE_SZ, CHUNK)
        self._ours += [reader, writer]
        return reader, writer

    def begin(self, pty_master: int = -1) -> None:
        """Start copying. The container's process must have its ends by now."""
        if self._tty:
            if self._interactive:
                move = self._detaching.move if self._detaching else None
                self._input = Copy(0, os.dup(pty_master), close_source=False, close_target=True, move=move)
            if self._detaching:
                self._done.append(Copy(pty_master, os.dup(1), close_source=False, close_target=True))
            else:
                self._done.append(Copy(pty_master, 1, close_source=False))
            return
        outside = {fd for pair in (*self._copies, self._given or ()) for fd in pair}
        if self._given:
            self._input = Copy(*self._given, close_source=False, close_target=True)
        allowed = self._output_limit.move if self._output_limit else None
        for source, target in self._copies:
            read_to_its_end = bool(self._output_limit) and _is_pipe(
                target
            )  # the process at the other end reads to the end, so we needn't wait
            copy = Copy(source, target, close_target=bool(allowed), move=allowed, ends=not read_to_its_end)
            if not read_to_its_end:
                self._done.append(copy)
        for fd in self._ours:
            if fd not in outside:
                os.close(fd)
        self._ours.clear()

    def finish(self) -> OSError | None:
        """Copy what the command left in its pipes, and stop. Call it after the command has ended.

        It doesn't wait for the end of the pipes: a process that the command left behind may keep them open.

        Returns:
            Why the output couldn't be written, for example a full disk. A closed reader isn't an error.
        """
        for copy in self._done:
            copy.drain()
        return self.abandon()

    def abandon(self) -> OSError | None:
        """Stop copying at once, and drop what is left. Returns the same as `finish`."""
        for copy in self._done:
            copy.stop()
        error = next((copy.error for copy in self._done if copy.error), None)
        if self._input:
            self._input.stop()
        self._done.clear()
        self._input = None
        return error

    def close(self) -> None:
        """Close the streams if they were never used."""
        close_descriptors(*self._ours)
        self._ours.clear()
        self.finish()


class DetachableInput:
    """Copy what the user types, until the detach keys."""

    def __init__(self, keys: DetachKeys) -> None:
        self._keys = keys
        self._left = os.eventfd(0, os.EFD_CLOEXEC)
        self._either = epoll()

    def or_ended(self, pidfd: int) -> int:
        """A descriptor that becomes readable when the user detaches or the process ends."""
        self._either.register(self._left, POLLIN)
        self._either.register(pidfd, POLLIN)
        return self._either.fileno()

    def move(self, source: int, target: int) -> int:
        """Read what the user typed and write it to the container. Return the size read, 0 at the end."""
        data = os.read(source, TTY_CHUNK)
        size = len(data)
        data, detach = self._keys.feed(data)
        write_all(target, data)
        if detach:
            os.eventfd_write(self._left, 1)
        return 0 if detach else size

    def has_detached(self) -> bool:
        """Has the user detached?"""
        return wait_readable(self._left, 0)

    def close(self) -> None:
        self._either.close()
        os.close(self._left)


class Copy:
    """A thread that copies from one descriptor to another."""

    def __init__(
        self,
        source: int,
        target: int,
        *,
        close_source: bool = True,
        close_target: bool = False,
        move: Callable[[int, int], int] | None = None,
        ends: bool = True,
    ) -> None:
        """Start the thread.

        Args:
            ends: you will call `drain` or `stop` to end it; otherwise it ends at the end of its source.
            close_source: close the source at the end, so that the writer notices.
            close_target: close the target at the end, so that the reader notices.
            move: reads a chunk and writes it, instead of our own function; returns its size, 0 at the end.
        """
        self._source, self._target, self._move = source, target, move
        self.error: OSError | None = None
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC) if ends else -1
        self._draining = False
        self._left = 2 * CHUNK  # the most that `drain` copies: a full pipe, and what is on its way already
        self._close_source, self._close_target = close_source, close_target
        self._running = allocate_lock()
        self._running.acquire()
        start_new_thread(self._run, ())

    def _run(self) -> None:
        block()
        try:
            # Don't splice to a file: splice(2) reads the file's position before it waits for data, and so overwrites
            # what the caller's other programs write meanwhile.
            splices = not _is_file(self._target) and (_is_pipe(self._source) or _is_pipe(self._target))
            move = self._move or (_splice if splices else _read_write)
            while self._ready():
                try:
                    moved = move(self._source, self._target)
                    if not moved:
                        break
                    self._left -= moved if self._draining else 0
                except BlockingIOError:  # the caller's other programs may set O_NONBLOCK on a shared file
                    _wait_for(self._source, POLLIN)
                    _wait_for(self._target, POLLOUT)
                except OSError as error:
                    if error.errno == EINVAL and move is _splice:  # some files can't be spliced to, as with O_APPEND
                        move = _read_write
                        continue
                    if error.errno not in (
                        EPIPE,
                        ECONNRESET,
                        EIO,
                    ):  # the reader, or the terminal's other end, is closed
                        self.error = error
                    break
        finally:
            if self._close_source:
                os.close(self._source)
            if self._close_target:
                os.close(self._target)
            self._running.release()

    def _ready(self) -> bool:
        if self._stop_fd < 0:
            return True
        waiting = poll()
        waiting.register(self._source, POLLIN)
        waiting.register(self._stop_fd, POLLIN)
        ready = [fd for fd, _ in waiting.poll()]
        return self._stop_fd not in ready or (self._draining and self._left > 0 and self._source in ready)

    def drain(self) -> None:
        """Copy what is in the source now, then stop, even if there are still writers."""
        self._draining = True
        self.stop()

    def stop(self) -> None:
        """Stop at once, even if the source has more. You can call it twice."""
        if self._stop_fd < 0:
            return
        os.eventfd_write(self._stop_fd, 1)
        self._running.acquire()
        self._running.release()
        os.close(self._stop_fd)
        self._stop_fd = -1


def _splice(source: int, target: int) -> int:
    return os.splice(source, target, CHUNK)


def _read_write(source: int, target: int) -> int:
    data = os.read(source, TTY_CHUNK)
    write_all(target, data)
    return len(data)


def write_all(target: int, data: bytes) -> None:
    """Write all of ``data``. The file may have O_NONBLOCK set."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(target, view) :]
        except BlockingIOError:
            _wait_for(target, POLLOUT)


def _wait_for(fd: int, event: int) -> None:
    waiting = poll()
    waiting.register(fd, event)
    waiting.poll()


def _is_pipe(fd: int) -> bool:
    """Is it an anonymous pipe? A FIFO with a name counts as a file."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:[")
    except OSError:
        return False


def _is_file(fd: int) -> bool:
    return os.fstat(fd).st_mode & 0o170000 == 0o100000


def _give(fd: int, owner: tuple[int, int]) -> None:
    with suppress(PermissionError):  # without root we can't: then the container's other users can't reopen /dev/stdout
        os.fchown(fd, *owner)


def _is_null(fd: int) -> bool:
    return os.fstat(fd).st_rdev == os.makedev(1, 3)
