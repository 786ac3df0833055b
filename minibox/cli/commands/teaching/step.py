"""The prompt of `explain --step`: a start that stops before each step."""

from __future__ import annotations

import os
import signal

from minibox.cli.format.plan import format_plan, legible, listing_width, wrap
from minibox.cli.format.table import printable
from minibox.cli.messages import echo
from minibox.engine.walkthrough import process_facts
from minibox.engine.walkthrough.start import Quit
from minibox.errors import MiniboxError
from minibox.plan import explain as plan_explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from minibox.engine.process.execution import Execution
    from minibox.engine.walkthrough.process_facts import Facts
    from minibox.plan.compiler import Plan

HELP = """\
next, n       do this step (an empty line does so too)
to STEP       go on to a step: its number, or the name of its operation
go            go on without stops
look          show what the container's process is now
shell [CMD]   open a shell where the container's process is, or run CMD there
quit          end the start, and remove everything
"""
INDENT = "  "
HOST = "host"


class Prompt:
    """The conversation of one start.

    Its commands come from standard input, a line each, also without a terminal.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._before: dict[str, Facts] = {}
        self._ours = process_facts.facts_of(os.getpid())
        self._target = 1
        self._commands: dict[str, Callable[[Execution, str], bool]] = {
            "next": self._next, "to": self._to, "go": self._go, "look": self._look, "shell": self._shell,
            "quit": self._quit, "help": self._help,
        }  # fmt: skip

    def on_plan(self, plan: Plan) -> None:
        """Take the plan that will be executed."""
        self._rows = plan_explain.rows(plan)

    def on_stop(self, execution: Execution, number: int) -> None:
        """Stop before a step, and carry out commands until one goes on.

        Raises:
            Quit: the user wants to end the start.
        """
        if number < self._target:
            return
        self._number = number
        width = listing_width()
        self._tell(self._changes(execution), width)
        echo(format_plan([self._rows[number - 1]], width))
        with _interruptible():
            while not self._carry_out(execution, _line(f"step {number} of {len(self._rows)}> ")):
                pass

    def _tell(self, lines: list[str], width: int) -> None:
        for line in lines:
            for each in wrap(printable(legible(line)), f"{INDENT}* ", f"{INDENT * 3}", width):
                echo(each)
        if lines:
            echo()

    def _changes(self, execution: Execution) -> list[str]:
        """What has changed since the last stop."""
        now = {actor: process_facts.facts_of(child.pid) for actor, child in execution.children()}
        now[HOST] = dict(self._host())
        before, self._before = self._before, now
        lines = [f"{HOST}: {line}" for line in process_facts.changes(before.get(HOST, now[HOST]), now[HOST])]
        for actor, facts in now.items():
            if actor != HOST:
                known = before.get(actor)
                found = process_facts.changes(known, facts) if known else process_facts.birth(facts, self._ours)
                lines += [f"{actor}: {line}" for line in found]
        return lines

    def _host(self) -> Iterator[tuple[tuple[str, str], str]]:
        """What the plan makes on the host."""
        yield ("status", HOST), HOST
        for row in self._rows:
            named = row["arguments"]
            if row["operation"] == "cgroup_mkdir" and os.path.isdir(named["path"]):
                yield ("cgroup", named["path"]), ""
            elif row["operation"] in ("add_veth", "add_bridge"):
                link = named.get("veth") or named["bridge"]
                if os.path.exists(f"/sys/class/net/{link}"):
                    yield ("link", link), ""

    # ---- commands -------------------------------------------------------------------------------

    def _carry_out(self, execution: Execution, line: str) -> bool:
        """Carry out a command. Return whether the start goes on."""
        name, _, words = line.strip().partition(" ")
        found = [each for each in self._commands if each.startswith(name or "next")]
        if len(found) != 1 and name not in self._commands:
            echo(f"unknown command {printable(name)!r}; help shows them all", err=True)
            return False
        try:
            return self._commands[name if name in self._commands else found[0]](execution, words.strip())
        except MiniboxError as error:
            if isinstance(error, Quit):
                raise
            echo(f"{error}" + (f"\nhint: {error.hint}" if error.hint else ""), err=True)
            return False

    def _next(self, execution: Execution, words: str) -> bool:
        self._target = self._number + 1
        return True

    def _go(self, execution: Execution, words: str) -> bool:
        self._target = len(self._rows) + 1
        return True

    def _to(self, execution: Execution, words: str) -> bool:
        wanted = words.replace("-", "_")
        later = [row for row in self._rows if row["index"] > self._number]
        found = [row["index"] for row in later if wanted in (str(row["index"]), row["operation"])]
        if not found:
            raise MiniboxError(f"no later step is called {words!r}", self._nearest(wanted, later))
        self._target = found[0]
        return True

    def _nearest(self, wanted: str, later: list[dict[str, Any]]) -> str:
        from difflib import get_close_matches

        names = list(dict.fromkeys(row["operation"] for row in later))
        near = get_close_matches(wanted, names, 1, 0.5)
        known = f"a number up to {len(self._rows)}, or one of {', '.join(names)}"
        return f"did you mean {near[0]}? {known}" if near else known

    def _look(self, execution: Execution, words: str) -> bool:
        for actor, facts in self._before.items():
            if actor != HOST and facts:
                echo(f"{actor}:")
                self._tell(process_facts.in_words(facts), listing_width())
        if len(self._before) == 1:
            echo("there is no process yet")
        return False

    def _shell(self, execution: Execution, words: str) -> bool:
        from minibox.engine.walkthrough.shell import shell_beside

        alive = [(actor, child) for actor, child in execution.children() if self._before.get(actor)]
        if not alive:
            raise MiniboxError("open a shell: there is no process yet")
        actor = self._rows[self._number - 1]["actor"]
        pid = dict(alive).get(actor, alive[-1][1]).pid
        if os.path.samefile(f"/proc/{pid}/root", "/"):
            echo("the root directory is still the host's here: what you change in it stays", err=True)
        status = shell_beside(pid, words)
        if status:
            echo(f"the command ended with status {status}", err=True)
        return False

    def _quit(self, execution: Execution, words: str) -> bool:
        raise Quit("the start was ended")

    def _help(self, execution: Execution, words: str) -> bool:
        echo(HELP, nl=False)
        return False


class _interruptible:
    """Let Ctrl-C and other signals end the start at the prompt; during a step they are for the container."""

    def __enter__(self) -> None:
        self._before = {
            number: signal.signal(number, _interrupted) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _interrupted(number: int, _: object) -> None:
    raise Quit(f"the start was ended by {signal.Signals(number).name}")


def _line(prompt: str) -> str:
    """Read a line, byte by byte: what follows may be for a shell, or for the container. The end of input is ``quit``."""
    echo(prompt, nl=False)
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    if not os.isatty(0):
        echo(line.decode(errors="replace"))
    return line.decode(errors="replace") if line or byte else "quit"
