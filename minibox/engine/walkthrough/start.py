"""Start a container step by step: the same start, with a Plan that stops before each step."""

from __future__ import annotations

import os

from minibox.engine.container.foreground_run import run_in_foreground
from minibox.engine.container.start import new_run
from minibox.engine.process.streams import StandardDescriptors
from minibox.engine.spec.compile import prepare
from minibox.errors import MiniboxError, StepError, UsageError, suppress
from minibox.linux.process import SIGKILL
from minibox.plan.stops import one_at_a_time, place_in, with_stops
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.base.home import Home
    from minibox.engine.container.run import Note
    from minibox.engine.container.start import Pull
    from minibox.engine.process.execution import Execution
    from minibox.engine.spec.compile import CompiledRun
    from minibox.engine.spec.options import RunOptions
    from minibox.plan.compiler import Plan


class Quit(MiniboxError):
    """The user has ended a start before its end."""


def run_step_by_step(
    home: Home,
    options: RunOptions,
    on_plan: Callable[[Plan], None],
    on_stop: Callable[[Execution, int], None],
    *,
    storage_driver: str = "",
    on_note: Note | None = None,
    pull: Pull | None = None,
) -> int:
    """Run a container in the foreground, with stops in its start. Return its exit status.

    Args:
        on_plan: called once with the plan, without the stops.
        on_stop: called before each of its steps with the step's number, from 1. Raise `Quit` to end the start.

    Raises:
        UsageError: the options want a container in the background.
        Quit: ``on_stop`` raised it. Nothing is left behind.
        MiniboxError: as `start.run`.
    """
    for given, name in ((options.detach, "--detach"), (options.restart, "--restart")):
        if given:
            raise UsageError(f"a start with stops is in the foreground, without {name}", f"leave out {name}")
    made: list[Plan] = []

    def compiled(*words: Any, **named: Any) -> CompiledRun:
        found = prepare(*words, **named)
        plan = one_at_a_time(found.plan)
        stopped = with_stops(plan, after_filter=found.start.denies_keys or not found.start.seccomp)
        made[:] = [plan, stopped]
        on_plan(plan)
        return replace(found, plan=stopped)

    ends = StandardDescriptors()
    try:
        run = new_run(home, replace(options, no_healthcheck=True), storage_driver, on_note, pull)
        run.compile, run.on_stop = compiled, on_stop
        try:
            return run_in_foreground(run)
        except StepError as error:
            raise _renumbered(error, *made) from None
        finally:
            _end_mounter(run.execution)
            run.close()
    finally:
        ends.close()


def _renumbered(error: StepError, plan: Plan, stopped: Plan) -> StepError:
    """The error with the number of the step in the plan that the user knows."""
    number = place_in(stopped, error.index)
    told = f"step {error.index + 1} of {len(stopped.ops)}"
    message = str(error).replace(told, f"step {number} of {len(plan.ops)}")
    return StepError(message, error.hint, index=number - 1, errno=error.errno)


def _end_mounter(execution: Execution | None) -> None:
    """End the mounter, which is our child here, and doesn't share our memory."""
    if execution and execution.mounter:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(execution.mounter.pid, SIGKILL)
            os.waitpid(execution.mounter.pid, 0)
