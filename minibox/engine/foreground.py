"""A container in the foreground: a child of this process, which ends when this process does."""

from __future__ import annotations

from time import time

from minibox.engine import removal, state
from minibox.engine.guard import Guard
from minibox.engine.launch import IdFile
from minibox.engine.prepare import INIT
from minibox.engine.signals import Forwarding
from minibox.engine.streams import Streams
from minibox.errors import CommandNotExecutable, CommandNotFound, MiniboxError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.launch import Launch, Trace
    from minibox.engine.terminal import Terminal

SIGKILL = 9
ORPHANS_LOOKED_AT = 8


class Foreground:
    """One container, from its claim to its end."""

    def __init__(self, launch: Launch, *, new: bool = True) -> None:
        """``new``: it has no root file system yet."""
        self._launch, self._options = launch, launch.options
        self._new = new
        self._terminal: Terminal | None = None
        self._streams: Streams | None = None
        self._guard: Guard | None = None
        self._keep = not new  # its files outlive it
        self._began = time()

    def run(self, on_trace: Trace | None) -> int:
        """Start it and wait for its end; the exit status."""
        options, launch = self._options, self._launch
        if options.tty:
            from minibox.engine.terminal import Terminal

            self._terminal = Terminal(options.interactive)
        launch.prepare(self._terminal.size() if self._terminal else None, new=self._new, once=options.rm)
        self._streams = Streams(interactive=options.interactive, tty=options.tty, owner=launch.owner)
        with IdFile(options.cidfile, launch.claim.id):
            try:
                with Forwarding() as forwarding:
                    launch.execute(self._streams.fds, on_trace)
                    self._keep = self._keep or not options.rm
                    return self._wait(forwarding)
            except (CommandNotFound, CommandNotExecutable) as error:
                self._keep = self._keep or not options.rm
                if self._keep:
                    self._write_state(Status="created", ExitCode=error.status, Error=str(error), Hint=error.hint)
                if self._new and self._keep:
                    launch.happened("create")
                raise

    def _wait(self, forwarding: Forwarding) -> int:
        """Copy, forward signals, wait; the exit status."""
        launch, execution = self._launch, self._launch.execution
        assert execution and execution.init and self._streams
        init = execution.init
        launch.happened(*(("create", "start") if self._new else ("start",)))
        if self._terminal:
            self._terminal.enter_raw()
        self._streams.begin(execution.pty_master)
        self._guard = Guard(INIT, init.pidfd, launch.claim.id)
        launch.claim.note_process(init.pid, launch.prepared.spec["process"]["args"], launch.joinable())
        removal.collect(launch.root, launch.runroot, ORPHANS_LOOKED_AT)
        if self._keep:
            self._write_state(Status="running", Pid=init.pid)
        forwarding.wait(
            init.pidfd,
            init.send_signal,
            self._terminal,
            execution.pty_master,
            self._options.stop_timeout_s,
            self._options.timeout_s,
        )
        code = init.wait()
        assert code is not None
        lost = self._streams.finish()
        if self._terminal:
            self._terminal.restore()
        status = code if code >= 0 else 128 - code
        if lost:
            launch.note(f"the container's output could not all be written: {kernel_says(lost)}")
            status = status or MiniboxError.status
        killed = execution.cgroup is not None and execution.cgroup.oom_kills() > 0
        if killed:
            launch.note(self._memory_note(code))
        if forwarding.timed_out:
            launch.note(f"the container was killed after {self._options.timeout_s:g} s (--timeout)")
        launch.claim.note_ended(status)
        if self._keep:
            usage = execution.cgroup.usage() if execution.cgroup else None
            self._write_end(
                ExitCode=status,
                Signal=max(0, -code),
                OOMKilled=killed,
                MemoryPeak=usage.memory_peak_bytes if usage else None,
                TimedOut=forwarding.timed_out,
                Forwarded=forwarding.forwarded,
                Finished=time(),
            )
        ends = ("oom", "die") if killed else ("die",)
        launch.happened(*ends, *(() if self._keep else ("destroy",)), exitCode=str(status))
        return status

    def _memory_note(self, code: int) -> str:
        limit = self._options.memory_bytes
        return (
            "the container ran out of memory"
            + (f": its limit is {limit} bytes (--memory)" if limit else "")
            + ("" if code == -SIGKILL else "; the kernel killed a process of it")
        )

    def _write_state(self, **fields: object) -> None:
        state.write(
            self._launch.root, {**self._launch.record(), "Created": self._began, "Started": self._began, **fields}
        )

    def _write_end(self, **fields: object) -> None:
        """It may have got another name meanwhile."""
        launch = self._launch
        state.change(launch.root, launch.claim.id, lambda found: {**found, **fields, "Pid": 0, "Status": "exited"})

    def close(self) -> None:
        """Remove what the container had, or keep its files as they are for `commit` and `start`."""
        try:
            self._launch.close(keep=self._keep)
        finally:
            if self._guard:
                self._guard.close()
            if self._streams:
                self._streams.close()
            if self._terminal:
                self._terminal.restore()
