"""A command that the calling program runs in a container: its process, its streams and its end."""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

from minibox.base.files import wait_readable
from minibox.engine.host.interrupts import uninterrupted
from minibox.linux.process import Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.engine.process.execution import Execution
    from minibox.engine.process.streams import Streams


class Command:
    """A running command. You can call all methods from any thread.

    Attributes:
        pid: its process, as the host sees it.
        returncode: the exit status, or the negative number of the signal that ended it; None until you have waited
            for its end.
        wall_s: how long it ran, in seconds.
        own_cpu_ns, own_memory_bytes: after its end, the processor time of the process and its children, and the most
            memory that one of them used. Children that it didn't wait for aren't counted.
    """

    def __init__(self, execution: Execution, streams: Streams, on_end: Callable[[], None]) -> None:
        """
        Args:
            on_end: called once, after its end.
        """
        self._init, self._streams, self._on_end = execution.launched, streams, on_end
        self._lock = allocate_lock()
        self._began = monotonic()
        self.pid: int = self._init.pid
        self._process = Descriptor.copy_of(self._init.pidfd)
        self.returncode: int | None = None
        self._wall_s = 0.0
        self.own_cpu_ns = self.own_memory_bytes = self.relayed = 0

    @property
    def pidfd(self) -> int:
        """A pidfd of its process; -1 after `reap`."""
        return self._process.fileno()

    @property
    def wall_s(self) -> float:
        return monotonic() - self._began if self.returncode is None else self._wall_s

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for its end and copy the rest of its output. Return its return code, None if it still runs.

        Args:
            timeout_s: 0 doesn't wait; None waits for ever.
        """
        if self.returncode is None and self.has_ended(timeout_s):
            return self.reap()
        return self.returncode

    def has_ended(self, timeout_s: float | None = None) -> bool:
        """Like `wait`, but leave its return code and the rest of its output to `reap`."""
        process = self._process  # keep it open: another thread may reap the process meanwhile
        if self.returncode is not None:
            return True
        return wait_readable(process.fileno(), timeout_s)

    def reap(self) -> int:
        """Wait for its end and return its return code."""
        return uninterrupted(self._reap)

    def _reap(self) -> int:
        with self._lock:
            if self.returncode is None:
                code = self._init.wait()
                self._wall_s = monotonic() - self._began
                self.own_cpu_ns, self.own_memory_bytes = self._init.usage()
                self.relayed = self._init.relayed
                self._streams.finish()
                self._on_end()
                self.returncode = code
                self._process = Descriptor()
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal. If the command has ended, nothing happens."""
        with self._lock:
            if self.returncode is None:
                self._init.send_signal(number)

    def kill_session(self) -> None:
        """Send SIGKILL to it and to its children, except those that have started their own session."""
        with self._lock:
            if self.returncode is None:
                self._init.kill_group()  # it leads a session

    def end(self) -> None:
        """Kill it and wait for its end."""
        self.kill_session()
        self.reap()
