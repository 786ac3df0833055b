"""A command that runs in a container of the calling program: its process, its streams and its end."""

from __future__ import annotations

from _thread import allocate_lock
from select import POLLIN, poll
from time import monotonic

from minibox.engine.host.interrupts import uninterrupted
from minibox.linux.process import Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.engine.process.execution import Execution
    from minibox.engine.process.streams import Streams


class Started:
    """One command, from the moment it runs. All of it may be called from any thread.

    Attributes:
        pid: of its process, as the host sees it.
        returncode: the exit status, or the negative number of the signal that ended it; None while nobody has
            waited for its end.
        wall_s: how long it ran, in seconds.
        own_cpu_ns, own_memory_bytes: when it has ended: the processor time of it and of all that it has waited for, and
            the most memory that one of them had. Those that it has not waited for aren't in it.
    """

    def __init__(self, execution: Execution, streams: Streams, on_end: Callable[[], None]) -> None:
        """
        Args:
            on_end: called once, when it has ended.
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
        """Of its process; -1 once it was waited for."""
        return self._process.fileno()

    @property
    def wall_s(self) -> float:
        return monotonic() - self._began if self.returncode is None else self._wall_s

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for its end, and copy what it has still written; its return code, None when it runs on.

        Args:
            timeout_s: 0: only look.
        """
        if self.returncode is None and self.has_ended(timeout_s):
            return self.reap()
        return self.returncode

    def has_ended(self, timeout_s: float | None = None) -> bool:
        """As `wait`, but leave its return code, and what it has still written, to `reap`."""
        process = self._process  # which stays open here: another thread may see the end before this one
        if self.returncode is not None:
            return True
        ended = poll()
        ended.register(process.fileno(), POLLIN)
        return bool(ended.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))

    def reap(self) -> int:
        """Take its return code, as soon as it has ended."""
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
        """Send a signal; when it has ended that is no error."""
        with self._lock:
            if self.returncode is None:
                self._init.send_signal(number)

    def kill_session(self) -> None:
        """SIGKILL for it, and for its children that haven't begun a session of their own."""
        with self._lock:
            if self.returncode is None:
                self._init.kill_group()  # it began a session

    def end(self) -> None:
        """Kill it, and wait for its end."""
        self.kill_session()
        self.reap()
