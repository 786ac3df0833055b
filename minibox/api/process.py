"""A command that runs in a sandbox, as `subprocess.Popen` has it."""

from __future__ import annotations

import io
import os
from select import POLLIN, POLLOUT, poll
from time import monotonic
from typing import IO, Any, AnyStr, Generic

from minibox.base.lines import lines_of
from minibox.errors import TimeoutExpired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from minibox.engine.started import Started

# As in `subprocess`, whose own do too.
PIPE, STDOUT, DEVNULL = -1, -2, -3
SIGTERM, SIGKILL = 15, 9
READ_BYTES = 1 << 16
LAST_LINES, LAST_BYTES = 5, 4096
DRAIN_READS = 32  # more than a pipe holds

#: What may be given for a stream: None for the caller's own, a descriptor, a file, or one of the above.
Stream = int | IO[Any] | None


class Ends:
    """What is behind a command's three streams: what the caller has given, or pipes.

    Attributes:
        outside: descriptors for the command.
        ours: the other ends of its pipes; -1 where there is none.
    """

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        """
        Raises:
            OSError: no descriptor is free.
            ValueError: a stream can't be meant.
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
                raise ValueError("STDOUT can be given for stderr only" if stream == STDOUT else f"no stream {stream}")
            return stream
        else:
            return stream.fileno()
        self._theirs.append(its)
        return its

    def take(self, number: int) -> int:
        """Our end of a stream, which is the caller's to close from now on; -1 where there is none."""
        fd, self.ours[number] = self.ours[number], -1
        return fd

    def begun(self) -> None:
        """The command has its ends."""
        for fd in self._theirs:
            os.close(fd)
        self._theirs.clear()

    def close(self) -> None:
        """Close what is open yet: nobody has taken it."""
        self.begun()
        for number, fd in enumerate(self.ours):
            if fd >= 0:
                os.close(fd)
            self.ours[number] = -1


class Text:
    """Whether streams are text, and how it is encoded."""

    def __init__(self, text: bool | None, encoding: str | None, errors: str | None) -> None:
        self.encoding = encoding or ("utf-8" if text or errors else "")
        self.errors = errors or "strict"

    def decoded(self, data: bytes) -> str | bytes:
        """As `subprocess`: in text mode each line ends with a newline."""
        if not self.encoding:
            return data
        return data.decode(self.encoding, self.errors).replace("\r\n", "\n").replace("\r", "\n")

    def encoded(self, data: str | bytes) -> bytes:
        if isinstance(data, str):
            return data.encode(self.encoding or "utf-8", self.errors)
        return bytes(memoryview(data))  # of a number, bytes() makes so many zeros


class Popen(Generic[AnyStr]):
    """A command that runs; `Sandbox.popen` makes one. Used as a context it is waited for at the end.

    Attributes:
        args: the command.
        stdin, stdout, stderr: files for the other ends of its pipes; None where there is none.
    """

    _started: Started

    def __init__(self, args: tuple[str, ...], text: Text, bufsize: int = -1) -> None:
        """`begin` follows."""
        self.args = args
        self._text, self._bufsize = text, bufsize
        self.stdin: IO[AnyStr] | None = None
        self.stdout: IO[AnyStr] | None = None
        self.stderr: IO[AnyStr] | None = None
        self._input: memoryview | None = None
        self._output: dict[int, list[bytes]] = {}

    def begin(self, start: Callable[[tuple[int, int, int]], Started], streams: tuple[Stream, Stream, Stream]) -> None:
        """Start it, with descriptors of its streams; when this fails `abandon` follows."""
        ends = Ends(*streams)
        try:
            self._started = start(ends.outside)
            ends.begun()
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                if (fd := ends.take(number)) >= 0:
                    setattr(self, name, self._file(fd, "wb" if number == 0 else "rb", self._bufsize))
        finally:
            ends.close()

    def abandon(self) -> None:
        """Nobody has it: kill it, if it was started."""
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

    @property
    def pid(self) -> int:
        """Its process id, as the caller sees it."""
        return self._started.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or the negative number of the signal that ended it; None while nobody has looked."""
        return self._started.returncode

    def poll(self) -> int | None:
        """Its return code; None while it runs."""
        return self._started.wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; its return code.

        Raises:
            TimeoutExpired: it has not ended after ``timeout`` seconds.
        """
        code = self._started.wait(timeout)
        if code is None:
            raise TimeoutExpired(self.args, timeout or 0.0)
        return code

    def communicate(
        self, input: AnyStr | None = None, timeout: float | None = None
    ) -> tuple[AnyStr | Any, AnyStr | Any]:
        """Write ``input``, read until the end of its output, and wait for its end.

        Returns:
            What it wrote to standard output and standard error; None for what is no pipe.

        Raises:
            TimeoutExpired: it has not ended after ``timeout`` seconds. It can be called again, and loses nothing.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if self._input is None:
            self._input = memoryview(self._text.encoded(input) if input else b"")
        self._flush_input()
        done = self._exchange(deadline)
        if not done or self._started.wait(None if deadline is None else deadline - monotonic()) is None:
            assert timeout is not None
            raise TimeoutExpired(self.args, timeout, *self.output())
        return self.output()

    def _flush_input(self) -> None:
        """What was written to the file itself comes first; no input is the end."""
        if self.stdin is None or self.stdin.closed:
            return
        try:
            self.stdin.flush()
            if self._input:
                os.set_blocking(self.stdin.fileno(), False)
            else:
                self.stdin.close()
        except BrokenPipeError:
            pass

    def _exchange(self, deadline: float | None) -> bool:
        """Write and read until all pipes are at their end; whether that was before the deadline."""
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
            for fd, event in waiting.poll(None if left_s is None else left_s * 1000):
                move = self._write if event & POLLOUT or files[fd] is self.stdin else self._read
                if not move(fd):
                    waiting.unregister(fd)
                    _close(files.pop(fd))
        return True

    def _write(self, fd: int) -> bool:
        """Write some of the input; whether there is more to write."""
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

    def drain(self) -> None:
        """Read what is in its pipes, when it has ended: not what survivors write yet."""
        for file in (self.stdout, self.stderr):
            if file is None or file.closed:
                continue
            waiting = poll()
            waiting.register(file, POLLIN)
            for _ in range(DRAIN_READS):
                if not waiting.poll(0) or not self._read(file.fileno()):
                    break

    def output(self) -> tuple[Any, Any]:
        """What was read so far by `communicate`."""
        found: list[Any] = []
        for number, file in ((1, self.stdout), (2, self.stderr)):
            found.append(None if file is None else self._text.decoded(b"".join(self._output.get(number, ()))))
        return found[0], found[1]

    def send_signal(self, signal: int) -> None:
        """Send a signal; when it has ended that is no error."""
        self._started.send_signal(signal)

    def terminate(self) -> None:
        """SIGTERM."""
        self._started.send_signal(SIGTERM)

    def kill(self) -> None:
        """SIGKILL, for its children too, those that have not begun a session of their own."""
        self._started.kill_session()

    def close(self) -> None:
        """Close the files; the command goes on."""
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
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.kill()
        self.wait()


def _close(file: IO[Any]) -> None:
    try:
        file.close()
    except BrokenPipeError:
        pass


def finish(command: Popen[Any], input: Any, timeout: float | None, kill: Callable[[], None]) -> tuple[Any, Any]:
    """`communicate`, and whatever goes wrong, the command is no more.

    Raises:
        TimeoutExpired: with all that it has written.
    """
    try:
        return command.communicate(input, timeout)
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
    """The last lines of what was captured: of standard error, or else of standard output."""
    for data in (err, out):
        if data:
            text = data if isinstance(data, str) else data[-LAST_BYTES:].decode(errors="replace")
            return tuple(lines_of(text[-LAST_BYTES:])[-LAST_LINES:])
    return ()
