"""A Plan that stops between its steps has the same steps, one at a time."""

from __future__ import annotations

import pytest

from minibox.base.operation import PARENT, Op, parent
from minibox.errors import Unsupported
from minibox.plan import operations as op
from minibox.plan.compiler import Plan
from minibox.plan.stops import one_at_a_time, place_in, with_stops

CLONE_VM, CLONE_NEWNS = 0x100, 0x20000


def plan() -> Plan:
    return Plan(
        (
            parent("clone", 0, (), 0, why="a"),
            op.setsid("b"),
            parent("clone_mounter", CLONE_VM | CLONE_NEWNS, why="c"),
            op.by_mounter(op.chdir("/", "d")),
            parent("send", op.TAG_GO, why="e"),
            op.wait(op.TAG_GO, "f"),
            op.seccomp(b"", 0, "g"),
            op.exec_(("/x",), ("x",), (), "h"),
        ),
        0,
    )


def names(ops: tuple[Op, ...]) -> list[str]:
    return [step.name for step in ops if step.name not in ("stop", "let_go") and op.TAG_STEP not in step.args]


def test_the_steps_are_the_same() -> None:
    assert names(with_stops(plan(), after_filter=True).ops) == names(plan().ops)


def test_a_child_waits_for_its_turn_before_each_step() -> None:
    stopped = with_stops(plan(), after_filter=True)
    for actor in (op.INIT, op.MOUNTER):
        waits = [step.name == "wait" and step.args[1] == op.TAG_STEP for step in stopped.of(actor)]
        assert waits == [True, False] * (len(waits) // 2)
    let_go = [step.args[0] for step in stopped.of(PARENT) if step.name == "let_go"]
    assert let_go == [step.actor for step in plan().ops if step.actor != PARENT]


def test_the_parent_stops_before_each_step() -> None:
    stops = [step.args for step in with_stops(plan(), after_filter=True).of(PARENT) if step.name == "stop"]
    assert stops == [(number,) for number in range(1, len(plan().ops) + 1)]


def test_after_a_filter_that_may_forbid_it_nothing_waits() -> None:
    ops = with_stops(plan(), after_filter=False).ops
    assert [step.name for step in ops[-4:]] == ["let_go", "wait", "seccomp", "exec"]
    assert ops[-4].args == (op.INIT, 1)


def test_the_mounter_does_not_share_memory() -> None:
    (clone,) = (step for step in with_stops(plan(), after_filter=True).ops if step.name == "clone_mounter")
    assert clone.args == (CLONE_NEWNS,)


def test_a_child_waits_before_the_message_comes() -> None:
    ops = one_at_a_time(plan()).ops
    assert [step.name for step in ops[4:6]] == ["wait", "send"] and len(ops) == len(plan().ops)


def test_the_number_that_the_user_knows() -> None:
    stopped = with_stops(plan(), after_filter=True)
    for number, step in enumerate(plan().ops, 1):
        index = next(place for place, each in enumerate(stopped.ops) if each.why == step.why)
        assert place_in(stopped, index) == number


def test_a_start_that_continues_as_another_process() -> None:
    with pytest.raises(Unsupported):
        with_stops(Plan((op.clone_sibling("x"),), 0), after_filter=True)
