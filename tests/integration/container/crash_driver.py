"""A run that is killed on its way: ``crash_driver.py ROOT RUNROOT WHERE OPTIONS...``, started by test_crash.py.

WHERE is ``parent:K``, to be killed when the parent begins its step K (counted from 0), or ``init:K``
or ``mounter:K FIFO``: before its step K that process is made to stand still, by opening a FIFO that
nobody writes, and then the parent is killed. ``list`` prints the steps of each.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minibox.base.home import Home
from minibox.cli.run_options import parse
from minibox.engine.container.start import run
from minibox.engine.process.steps import STEPS
from minibox.engine.spec import compile
from minibox.linux.process import parent_of
from minibox.plan import operations as op
from minibox.plan.compiler import Plan, compile_plan

SLOT = 15  # that no step uses


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_parent_step(number: int) -> None:
    """Wrap what executes the steps of a plan."""
    seen = 0

    def wrap(execute: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any) -> Any:
            nonlocal seen
            if seen == number:
                die()
            seen += 1
            return execute(*args)

        return step

    for name, execute in STEPS.items():
        STEPS[name] = wrap(execute)


def stop_at_child_step(actor: str, number: int, fifo: str) -> None:
    """Put a step that stands still before step ``number`` of ``actor``, and die when it does."""

    def compiled(*args: Any) -> Plan:
        plan = compile_plan(*args)
        places = [index for index, step in enumerate(plan.ops) if step.actor == actor]
        stop = op.Op("open", (fifo, os.O_RDONLY, SLOT), "to be killed here", actor)
        at = places[number]
        return Plan((*plan.ops[:at], stop, *plan.ops[at:]), plan.flags)

    setattr(compile, "compile_plan", compiled)  # noqa: B010
    threading.Thread(target=wait_and_die, daemon=True).start()


def wait_and_die() -> None:
    while not any(stands_still(pid) for pid in os.listdir("/proc") if pid.isdigit()):
        time.sleep(0.002)
    die()


def stands_still(pid: str) -> bool:
    """Is it a child of ours, or of our launcher, that opens a FIFO?"""
    try:
        ours = os.getpid() in (parent_of(int(pid)), parent_of(parent_of(int(pid))))
        return ours and Path(f"/proc/{pid}/wchan").read_text() == "wait_for_partner"
    except OSError:
        return False


def count(*args: Any) -> Plan:
    """Print the names of the steps of each process, and end."""
    plan = compile_plan(*args)
    for actor in (op.PARENT, op.MOUNTER, op.INIT):
        print(actor, *(step.name for step in plan.of(actor)))
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    root, runroot, where, *words = sys.argv[1:]
    actor, _, number = where.partition(":")
    if actor == "list":
        setattr(compile, "compile_plan", count)  # noqa: B010
    elif actor == "parent":
        die_at_parent_step(int(number))
    else:
        stop_at_child_step(actor, int(number), words.pop(0))
    options = parse(words)
    assert options
    sys.exit(run(Home(root, runroot), options))


if __name__ == "__main__":
    main()
