"""A Plan that stops between its steps, for `minibox explain --step`: the same steps, with some in between."""

from __future__ import annotations

from minibox.base.operation import parent
from minibox.errors import Unsupported
from minibox.plan import operations as op
from minibox.plan.compiler import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.plan.operations import Op

CLONE_VM = 0x100
WHY = "you are asked to go on"


def one_at_a_time(plan: Plan) -> Plan:
    """Return a plan in which a child waits for a message before the parent sends it, not after.

    Otherwise it would come while the child waits for its turn.
    """
    ops = list(plan.ops)
    for at, step in enumerate(ops):
        if at and step.name == "wait" and ops[at - 1].name == "send" and ops[at - 1].args == step.args[1:]:
            ops[at - 1], ops[at] = step, ops[at - 1]
    return Plan(tuple(ops), plan.flags)


def with_stops(plan: Plan, *, after_filter: bool) -> Plan:
    """Return a plan that stops before each step of one in which one acts at a time.

    Before each step the parent asks; a child's step waits until the parent has asked, and the parent waits until it is
    done, so that only one of them acts at a time.

    Args:
        after_filter: the system call filter allows a child to wait. Otherwise the last stop is before it.

    Raises:
        Unsupported: a process of the plan continues as another one.
    """
    if any(step.name == "clone_sibling" for step in plan.ops):
        raise Unsupported("stop in a start that joins namespaces")
    return Plan(tuple(_steps(plan, after_filter)), plan.flags)


def place_in(stopped: Plan, index: int) -> int:
    """Return which step of the plan without stops an index of one with stops belongs to, from 1."""
    stops = [step.args[0] for step in stopped.ops[: index + 1] if step.name == "stop"]
    number = stops[-1] if stops else 0
    assert isinstance(number, int)
    return number


def _steps(plan: Plan, after_filter: bool) -> Iterator[Op]:
    free = False
    for number, step in enumerate(plan.ops, 1):
        if free:
            yield step
            continue
        yield parent("stop", number, why=WHY)
        if step.actor != op.PARENT:
            free = step.name in ("seccomp", "seccomp_listener") and not after_filter
            # It waits for what the parent does in one of the next steps.
            waits = step.name == "wait" or free
            yield parent("let_go", step.actor, int(waits), why="its turn")
            yield op.Op("wait", (op.STATUS, op.TAG_STEP), "until the parent lets it go on", step.actor)
        yield _apart(step)


def _apart(step: Op) -> Op:
    """A process that shares our memory would stop us as well."""
    if step.name != "clone_mounter":
        return step
    (flags,) = step.args
    assert isinstance(flags, int)
    return op.Op(step.name, (flags & ~CLONE_VM,), step.why, step.actor)
