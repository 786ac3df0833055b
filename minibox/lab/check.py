"""Check a lab: run the student's program in a machine of its own, or look at the machine in which the student works."""

from __future__ import annotations

from contextlib import ExitStack

from minibox.errors import MiniboxError
from minibox.lab import machine as machines
from minibox.lab.answer import INSIDE, PROGRAMS, Answer, program_in
from minibox.lab.look import Machine
from minibox.lab.real_host import RealHost
from minibox.lab.requirement import Missing
from minibox.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.base.home import Home
    from minibox.lab.catalog import Lab

TRIES = 3  # for a process that ends while it is looked at


@record
class Result:
    """What a check has found.

    Attributes:
        looked_at: what was checked, in words.
        missing: what is missing, in words; "" if nothing is.
    """

    looked_at: str
    missing: str


def check(lab: Lab, home: Home, directory: str, before: dict[str, Any]) -> Result:
    """Check a lab.

    A program in the student's directory (``answer.py``, ``answer.sh``) is run in a fresh machine, and looked at when it
    has printed ``ready``. Without one, the machine that `machine.start` made is looked at.

    Args:
        before: `Machine.facts` of that machine when it began.

    Raises:
        MiniboxError: there is neither.
    """
    if name := program_in(directory):
        return Result(name, _check_program(lab, home, directory, name))
    pid = 0 if lab.program else machines.pid_of(lab, home)
    if not pid:
        what = "" if lab.program else ", nor does its machine run"
        raise MiniboxError(
            f"there is nothing to check: no answer.py or answer.sh in {directory}{what}",
            f"write one there; minibox lab start {lab.key} shows the task"
            if lab.program
            else f"write one there, or work by hand: minibox lab start {lab.key}",
        )
    looked_at = f"the processes of its machine, as there is no answer.py or answer.sh in {directory}"
    return Result(looked_at, _missing(lab, Machine(pid, before)))


def _check_program(lab: Lab, home: Home, directory: str, name: str) -> str:
    with ExitStack() as running:
        host = running.enter_context(RealHost(home)) if lab.real_host else None
        box = running.enter_context(machines.fresh(lab, home, directory))
        machine = Machine(box.pid)

        def start(words: list[str], name: str = "") -> Answer:
            answer = Answer(box, name or words[0], words)
            running.callback(answer.close)
            return answer

        def start_another(words: list[str], options: dict[str, Any], name: str) -> Answer:
            try:
                other = running.enter_context(machines.fresh(replace(lab, options=options), home, directory))
            except MiniboxError as error:
                raise Missing(f"{name} can't be started: {error}") from error
            answer = Answer(other, name, words)
            running.callback(answer.close)
            return answer

        try:
            machine.start, machine.start_another, machine.real_host = start, start_another, host
            machine.answer = start([*lab.before, PROGRAMS[name], f"{INSIDE}/{name}", *lab.words()], name)
            machine.answer.wait_ready()
            return _missing(lab, machine)
        except Missing as missing:
            return str(missing)


def _missing(lab: Lab, machine: Machine) -> str:
    for _ in range(TRIES):
        try:
            lab.check()(machine)
            return ""
        except Missing as missing:
            return str(missing)
        except (OSError, MiniboxError) as error:  # perhaps a `sleep 1` in a loop ended just then
            ended = error
    try:
        machine.init.within()
    except (OSError, MiniboxError):
        return f"the machine itself can't be looked at any more: its first process has ended ({ended})"
    return f"a process ended while it was looked at: it must stay ({ended})"
