"""A command in a sandbox, with the interface of `subprocess.Popen`."""

from __future__ import annotations

import io
import os
from select import POLLIN, POLLOUT, poll
from time import monotonic
from typing import IO, Any, AnyStr, Generic

from minibox.api.ownership import Owned, anywhere
from minibox.base.files import POLL_MOST_S, close_descriptors
from minibox.base.lines import lines_of
from minibox.errors import TimeoutExpired, suppress
from minibox.linux.process import SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from minibox.engine.process.command import Command
    from minibox.outcome import Verdict

# The same values as in `subprocess`, so you can use those, too.
PIPE, STDOUT, DEVNULL = -1, -2, -3
READ_BYTES = 1 << 16
LAST_LINES, LAST_BYTES = 5, 4096
DRAIN_READS = 32  # more than a pipe holds

#: A stream argument: None for the caller's own stream, a descriptor, a file, or PIPE, STDOUT or DEVNULL.
Stream = int | IO[Any] | None


class Ends:
    """The descriptors behind a command's three streams: the caller's, or pipes.

    Attributes:
        outside: the command's descriptors.
        ours: our ends of its pipes; -1 where there is no pipe.
    """

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        """
        Raises:
            OSError: no descriptor is free.
            ValueError: a stream argument is invalid.
        """
        self._theirs: list[int] = []
        self.ours = [-1, -1, -1]
        try:
            found: list[int] = []
            for number, stream in enumerate((stdin, stdout, stderr)):
                found.append(found[1] if number == 2 and stream == STDOUT else self._end(number, stream))
        except BaseException:
            self.close()
            raise
        self.outside: tuple[int, int, int] = (found[0], found[1], found[2])

    def _end(self, number: int, stream: Stream) -> int:
        if stream is None:
            return number
        if stream == PIPE:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self.ours[number], its = (writer, reader) if number == 0 else (reader, writer)
        elif stream == DEVNULL:
            its = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        elif isinstance(stream, int):
            if stream < 0:
                raise ValueError("only stderr can be STDOUT" if stream == STDOUT else f"invalid stream {stream}")
            return stream
        else:
            return stream.fileno()
        self._theirs.append(its)
        return its

    def take(self, number: int) -> int:
        """Return our end of a stream, which the caller must close; -1 if there is none."""
        fd, self.ours[number] = self.ours[number], -1
        return fd

    def begun(self) -> None:
        """Close the command's ends in this process: the command has started with its own copies."""
        close_descriptors(*self._theirs)
        self._theirs.clear()

    def close(self) -> None:
        """Close all ends that nobody has taken."""
        self.begun()
        for number, fd in enumerate(self.ours):
            if fd >= 0:
                os.close(fd)
            self.ours[number] = -1


class Text:
    """Encodes and decodes streams in text mode; leaves bytes alone otherwise."""

    def __init__(self, text: bool | None, encoding: str | None, errors: str | None) -> None:
        self.encoding = encoding or ("utf-8" if text or errors else "")
        self.errors = errors or "strict"

    def decoded(self, data: bytes) -> str | bytes:
        """Decode output. Like `subprocess`, text mode turns CR LF and CR into newlines."""
        if not self.encoding:
            return data
        return data.decode(self.encoding, self.errors).replace("\r\n", "\n").replace("\r", "\n")

    def encoded(self, data: str | bytes) -> bytes:
        if isinstance(data, str):
            return data.encode(self.encoding or "utf-8", self.errors)
        return bytes(memoryview(data))


class Handle(Owned):
    """What the handle of a running command offers here and in `minibox.aio`: `Popen` and `minibox.aio.Process`."""

    _started: Command
    _judge: Callable[[], Verdict]
    _verdict: Verdict | None = None

    @property
    def verdict(self) -> Verdict | None:
        """How the command ended, such as ``"out-of-memory"``; None until someone has waited for its end."""
        if self._verdict is None and self._started.returncode is not None:
            self._verdict = self._judge()
        return self._verdict

    @property
    @anywhere
    def pid(self) -> int:
        """The process id in the caller's PID namespace."""
        return self._started.pid

    @property
    @anywhere
    def returncode(self) -> int | None:
        """The exit status, or the negative number of the signal that ended it; None until someone has waited for its end."""
        return self._started.returncode

    def send_signal(self, signal: int) -> None:
        """Send a signal. Does nothing if the command has ended."""
        self._started.send_signal(signal)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._started.send_signal(SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the command and to its children, except those that started their own session."""
        self._started.kill_session()


class Popen(Handle, Generic[AnyStr]):
    """A running command. `Sandbox.popen` returns one. A ``with`` block waits for it at the end.

    Attributes:
        args: the command.
        stdin, stdout, stderr: files for this process's ends of its pipes; None where there is no pipe.
    """

    def __init__(self, args: tuple[str, ...], text: Text, bufsize: int = -1) -> None:
        """Don't call this; use `Sandbox.popen`. Nothing is started before `begin`."""
        self.args = args
        self._text, self._bufsize = text, bufsize
        self.stdin: IO[AnyStr] | None = None
        self.stdout: IO[AnyStr] | None = None
        self.stderr: IO[AnyStr] | None = None
        self._input: memoryview | None = None
        self._output: dict[int, list[bytes]] = {}

    @anywhere
    def begin(self, start: Callable[[tuple[int, int, int]], Command], streams: tuple[Stream, Stream, Stream]) -> None:
        """Call ``start`` with the descriptors of the streams. If this fails, call `abandon`."""
        ends = Ends(*streams)
        try:
            self._started = start(ends.outside)
            ends.begun()
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                if (fd := ends.take(number)) >= 0:
                    setattr(self, name, self._file(fd, "wb" if number == 0 else "rb", self._bufsize))
        finally:
            ends.close()

    @anywhere
    def abandon(self) -> None:
        """Close the files, and kill the command if it was started."""
        self.close()
        if hasattr(self, "_started"):
            self._started.end()

    def _file(self, fd: int, mode: str, bufsize: int) -> IO[Any]:
        file = open(fd, mode, 0 if bufsize == 0 else -1 if bufsize == 1 else bufsize)
        if not self._text.encoding:
            return file
        line_buffered = mode == "wb" and bufsize == 1
        return io.TextIOWrapper(
            file,
            self._text.encoding,
            self._text.errors,
            line_buffering=line_buffered,
            write_through=mode == "wb" and bufsize == 0,
        )

    def poll(self) -> int | None:
        """Return the return code, or None while the command runs."""
        return self._started.wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the command has ended, and return its return code.

        Raises:
            TimeoutExpired: it did not end within ``timeout`` seconds.
        """
        code = self._started.wait(timeout)
        if code is None:
            raise TimeoutExpired(self.args, timeout or 0.0)
        return code

    def communicate(
        self, input: AnyStr | None = None, timeout: float | None = None
    ) -> tuple[AnyStr | Any, AnyStr | Any]:
        """Write ``input``, read all output, and wait until the command has ended.

        Returns:
            Its standard output and standard error; None for a stream that isn't a pipe.

        Raises:
            TimeoutExpired: it did not end within ``timeout`` seconds. You can call this again and lose no output.
        """
        output = self._exchange_all(input, timeout)
        self.wait()
        return output

    def _exchange_all(self, input: AnyStr | None, timeout: float | None) -> tuple[AnyStr | Any, AnyStr | Any]:
        """As `communicate`, but leave the return code to `wait`."""
        deadline = None if timeout is None else monotonic() + timeout
        if self._input is None:
            self._input = memoryview(self._text.encoded(input) if input else b"")
        self._flush_input()
        done = self._exchange(deadline)
        if not done or not self._started.has_ended(None if deadline is None else deadline - monotonic()):
            assert timeout is not None
            raise TimeoutExpired(self.args, timeout, *self.output())
        return self.output()

    def _flush_input(self) -> None:
        """Send what the caller has written to ``stdin`` itself; without further input, close it."""
        if self.stdin is None or self.stdin.closed:
            return
        with suppress(BrokenPipeError):
            self.stdin.flush()
            if self._input:
                os.set_blocking(self.stdin.fileno(), False)
            else:
                self.stdin.close()

    def _exchange(self, deadline: float | None) -> bool:
        """Write and read until all pipes are closed. Returns False if the deadline passes first."""
        waiting = poll()
        files: dict[int, IO[Any]] = {}
        for file, events in ((self.stdin, POLLOUT), (self.stdout, POLLIN), (self.stderr, POLLIN)):
            if file is not None and not file.closed:
                files[file.fileno()] = file
                waiting.register(file, events)
        while files:
            left_s = None if deadline is None else deadline - monotonic()
            if left_s is not None and left_s < 0:
                return False
            for fd, event in waiting.poll(None if left_s is None else min(left_s, POLL_MOST_S) * 1000):
                move = self._write if event & POLLOUT or files[fd] is self.stdin else self._read
                if not move(fd):
                    waiting.unregister(fd)
                    _close(files.pop(fd))
        return True

    def _write(self, fd: int) -> bool:
        """Write some of the input. Returns whether more is left."""
        assert self._input is not None
        try:
            self._input = self._input[os.write(fd, self._input) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            return False
        return bool(self._input)

    def _read(self, fd: int) -> bool:
        number = 1 if self.stdout is not None and not self.stdout.closed and self.stdout.fileno() == fd else 2
        data = os.read(fd, READ_BYTES)
        if data:
            self._output.setdefault(number, []).append(data)
        return bool(data)

    @anywhere
    def pipes(self) -> list[int]:
        """Return the inodes of the pipes of its output, as far as they are open here."""
        files = [file for file in (self.stdout, self.stderr) if file is not None and not file.closed]
        return [os.fstat(file.fileno()).st_ino for file in files]

    @anywhere
    def drain(self) -> None:
        """Read what an ended command has left in its pipes, but don't wait for children that still write."""
        for file in (self.stdout, self.stderr):
            if file is None or file.closed:
                continue
            waiting = poll()
            waiting.register(file, POLLIN)
            for _ in range(DRAIN_READS):
                if not waiting.poll(0) or not self._read(file.fileno()):
                    break

    @anywhere
    def output(self) -> tuple[Any, Any]:
        """Return what `communicate` has read so far."""
        found: list[Any] = []
        for number, file in ((1, self.stdout), (2, self.stderr)):
            found.append(None if file is None else self._text.decoded(b"".join(self._output.get(number, ()))))
        return found[0], found[1]

    @anywhere
    def close(self) -> None:
        """Close the files. The command keeps running."""
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                _close(file)

    def __repr__(self) -> str:
        code = self.returncode
        return f"<minibox.Popen {list(self.args)} {f'pid {self.pid}' if code is None else f'returncode {code}'}>"

    def __enter__(self) -> Popen[AnyStr]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if self._is_parents():
            return
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.kill()
        self.wait()


def _close(file: IO[Any]) -> None:
    with suppress(BrokenPipeError):
        file.close()


def finish(command: Popen[Any], input: Any, timeout: float | None, kill: Callable[[], None]) -> tuple[Any, Any]:
    """Exchange data with the command until it has ended; `Popen.wait` is left to do. On any error it is killed.

    Returns:
        Its output, as `Popen.communicate`.

    Raises:
        TimeoutExpired: with all output up to then.
    """
    try:
        return command._exchange_all(input, timeout)
    except TimeoutExpired as error:
        kill()
        command.wait()
        command.drain()
        raise TimeoutExpired(command.args, error.timeout, *command.output()) from None
    except BaseException:
        kill()
        command.wait()
        raise
    finally:
        command.close()


def last_words(out: Any, err: Any) -> tuple[str, ...]:
    """Return the last captured lines: of standard error, or if that is empty, of standard output."""
    for data in (err, out):
        if data:
            text = data if isinstance(data, str) else data[-LAST_BYTES:].decode(errors="replace")
            return tuple(lines_of(text[-LAST_BYTES:])[-LAST_LINES:])
    return ()
