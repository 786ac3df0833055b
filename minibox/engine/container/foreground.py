"""Run a container in the foreground: with this process's streams and terminal, and the signals it gets."""

from __future__ import annotations

from minibox.engine.container.foreground_run import ForegroundRun
from minibox.engine.process.signals import SignalForwarder
from minibox.engine.process.streams import Streams
from minibox.engine.verdict.end_kinds import WALL_TIME
from minibox.errors import MiniboxError, kernel_says
from minibox.linux.process import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.container.launch import Launch, Trace
    from minibox.engine.process.terminal import Terminal


class Foreground:
    """One container, from its claim to its end."""

    def __init__(self, launch: Launch, *, new: bool = True) -> None:
        """
        Args:
            new: it has no root file system yet.
        """
        self._launch, self._options = launch, launch.options
        self._run = ForegroundRun(launch, new=new)
        self._terminal: Terminal | None = None
        self._streams: Streams | None = None

    def run(self, on_trace: Trace | None) -> int:
        """Start it and wait for its end. Return the exit status."""
        options, launch = self._options, self._launch
        if options.tty:
            from minibox.engine.process.terminal import Terminal

            self._terminal = Terminal(options.interactive)
        self._run.prepare(self._terminal.size() if self._terminal else None)
        self._streams = Streams(interactive=options.interactive, tty=options.tty, owner=launch.owner)
        with SignalForwarder() as forwarding:
            self._run.execute(self._streams.fds, on_trace)
            return self._wait(forwarding)

    def _wait(self, forwarding: SignalForwarder) -> int:
        """Copy, forward signals and wait. Return the exit status."""
        launch, execution = self._launch, self._launch.execution
        assert execution and self._streams
        init = execution.launched
        if self._terminal:
            self._terminal.enter_raw()
        self._streams.begin(execution.pty_master)
        self._run.note_running()
        forwarding.wait(
            init.pidfd,
            init.send_signal,
            self._terminal,
            execution.pty_master,
            self._options.stop_timeout_s,
            self._options.timeout_s,
        )
        code = init.wait()
        lost = self._streams.finish()
        if self._terminal:
            self._terminal.restore()
        status = code if code >= 0 else 128 - code
        if lost:
            launch.note(f"part of the container's output could not be written: {kernel_says(lost)}")
            status = status or MiniboxError.status
        self._run.measure(ended=True)
        if self._run.oom_killed:
            launch.note(self._memory_note(code))
        if forwarding.timed_out:
            self._run.ended_for = WALL_TIME
            launch.note(f"the container was killed after {self._options.timeout_s:g} s (--timeout)")
        self._run.note_end(code, status, relayed=init.relayed, forwarded=forwarding.forwarded)
        return status

    def _memory_note(self, code: int) -> str:
        limit = self._options.memory_bytes
        return (
            "the container ran out of memory"
            + (f": its limit is {limit} bytes (--memory)" if limit else "")
            + ("" if code == -SIGKILL else "; the kernel killed one of its processes")
        )

    def close(self) -> None:
        """Clean up after the container. Its files are kept for `commit` and `start`, except with --rm."""
        try:
            self._run.close()
        finally:
            if self._streams:
                self._streams.close()
            if self._terminal:
                self._terminal.restore()
