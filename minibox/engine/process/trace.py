"""When each step of an execution ran."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.process.execution import Execution
    from minibox.plan.operations import Op


def trace(execution: Execution) -> list[tuple[int, Op, int, int]]:
    """Return index, step, begin and end of every step: nanoseconds of one clock per actor, 0 if it was not reached."""
    operations = execution.plan.ops
    times = dict(execution.parent_times)
    for actor, child in execution.children():
        numbers = [number for number, step in enumerate(operations) if step.actor == actor]
        times.update(zip(numbers, child.times()))
    return [(number, step, *times.get(number, (0, 0))) for number, step in enumerate(operations)]
