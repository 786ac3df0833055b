"""Run a container in the foreground: with this process's streams and terminal, and the signals it gets."""

from __future__ import annotations

from minibox.engine.process.foreground import Foreground
from minibox.engine.verdict.end_kinds import WALL_TIME
from minibox.errors import MiniboxError, kernel_says
from minibox.linux.process import SIGKILL, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.container.run import Run, Trace


def run_in_foreground(run: Run, on_trace: Trace | None = None) -> int:
    """Start a container and wait for its end. Return the exit status. The caller closes the run."""
    options = run.options
    foreground: Foreground | None = None
    try:
        foreground = Foreground(tty=options.tty, interactive=options.interactive)
        run.prepare(foreground.size, child=True)
        streams = foreground.open_streams(run.owner)
        with foreground.signals:
            execution = run.execute(streams, on_trace)
            run.note_running()
            foreground.begin(execution)
            code = foreground.follow(execution, options.stop_timeout_s, options.timeout_s)
            return _end(run, foreground, code)
    except (MiniboxError, OSError):
        raise
    except BaseException:
        run.is_interrupted = True
        raise
    finally:
        if foreground:
            foreground.close()


def _end(run: Run, foreground: Foreground, code: int) -> int:
    """Measure it, tell the user what happened, and write it down. Return the exit status."""
    options, status, lost = run.options, status_of(code), foreground.lost
    assert run.execution
    if lost:
        run.note(f"part of the container's output could not be written: {kernel_says(lost)}")
        status = status or MiniboxError.status
    run.measure(ended=True)
    if run.oom_killed:
        limit = f": its limit is {options.memory_bytes} bytes (--memory)" if options.memory_bytes else ""
        other = "" if code == -SIGKILL else "; the kernel killed one of its processes"
        run.note(f"the container ran out of memory{limit}{other}")
    if foreground.signals.timed_out:
        run.ended_for = WALL_TIME
        run.note(f"the container was killed after {options.timeout_s:g} s (--timeout)")
    run.note_end(code, status, relayed=run.execution.launched.relayed, forwarded=foreground.signals.forwarded)
    return status
