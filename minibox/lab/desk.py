"""A student's desk: what the commands of `minibox lab` do for one user."""

from __future__ import annotations

import os

from minibox.base.paths import absolute
from minibox.errors import MiniboxError, UsageError, trying
from minibox.lab import check as checks
from minibox.lab import machine as machines
from minibox.lab.catalog import find, labs, parts
from minibox.lab.look import Machine
from minibox.lab.progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.base.home import Home
    from minibox.lab.catalog import Lab

FOLDER = "minibox-labs"  # in the student's home


class Desk:
    """The labs of one user, under one home of minibox."""

    def __init__(self, home: Home, storage_driver: str, on_note: Callable[[str], None]) -> None:
        self._home, self._storage_driver, self._on_note = home, storage_driver, on_note
        self._progress = Progress(home)

    def lab(self, word: str) -> Lab:
        """Return the lab of that number or name; for "" the one that was started last.

        Raises:
            UsageError: there is none.
        """
        current = word or self._progress.read().get("current")
        if not current:
            raise UsageError("no lab was started yet", "say which: minibox lab list shows them all")
        return find(str(current))

    def start(self, lab: Lab, directory: str | None) -> str:
        """Start a lab's machine, unless it runs or the lab is on the real host. Return the lab's text.

        Raises:
            UsageError: its machine runs with another directory.
        """
        known = self._progress.of(lab)
        place = absolute(directory) if directory else self._directory(lab)
        running = machines.pid_of(lab, self._home)
        if running and known.get("directory") not in (None, place):
            raise UsageError(
                f"the machine of lab {lab.key} runs with {known['directory']}",
                f"end it: minibox lab reset {lab.key}",
            )
        with trying(MiniboxError, f"make your directory {place}", "say another: --dir DIR"):
            os.makedirs(place, exist_ok=True)
        if lab.real_host:
            self._progress.started(lab, place, {})
        elif not running:
            machines.start(lab, self._home, place, self._storage_driver, self._on_note)
            running = machines.pid_of(lab, self._home)
            self._progress.started(lab, place, Machine(running).before)
        else:
            self._progress.started(lab, place, known.get("before", {}))
        title = f"# Lab {lab.number}: {lab.title}"
        where = f"Your directory is {place}, in the {'container' if lab.real_host else 'machine'} /lab. `minibox lab check` looks at what you did."
        return "\n\n".join([title, lab.text("theory.md").strip(), "## Task", lab.text("task.md").strip(), where])

    def shell(self, lab: Lab) -> int:
        """Open a shell in a lab's machine, and return its status."""
        from minibox.engine.container.exec import ExecOptions, exec_
        from minibox.engine.container.shell import best_shell_command

        return exec_(self._home, machines.name_of(lab), ExecOptions(best_shell_command(), interactive=True, tty=True))

    def machine_name(self, lab: Lab) -> str:
        return machines.name_of(lab)

    def check(self, lab: Lab) -> checks.Result:
        """Check a lab, and note the result."""
        known = self._progress.of(lab)
        result = checks.check(lab, self._home, self._directory(lab), known.get("before", {}))
        self._progress.checked(lab, result.missing)
        return result

    def hint(self, lab: Lab) -> str:
        """Return the next hint, with its number; the last one again when there are no more."""
        hints = lab.hints()
        number = min(self._progress.of(lab).get("hints", 0) + 1, len(hints))
        self._progress.hinted(lab, number)
        return f"hint {number} of {len(hints)}: {hints[number - 1]}"

    def solution(self, lab: Lab) -> str:
        """Return a solution's text."""
        self._progress.solution_shown(lab)
        with open(lab.solution(), encoding="utf-8") as file:
            return file.read()

    def reset(self, lab: Lab) -> None:
        """End a lab's machine, and forget what is known of it except the student's directory."""
        machines.stop(lab, self._home)
        self._progress.forget(lab)

    def report(self) -> dict[str, Any]:
        """Return what this user has done: ``labs`` has a row for each, ``parts`` those of labs that were begun apart."""
        import pwd

        rows = [self._row(lab) for lab in labs()]
        begun = [row for row in map(self._row, parts()) if row["state"] != "not started"]
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = str(os.getuid())
        passed = sum(row["state"] == "passed" for row in rows)
        return {"user": user, "passed": passed, "of": len(rows), "labs": rows, "parts": begun}

    def _row(self, lab: Lab) -> dict[str, Any]:
        known = self._progress.of(lab)
        state = "passed" if "passed_at" in known else "started" if known.keys() - {"directory"} else "not started"
        return {
            "lab": lab.number,
            "name": lab.name,
            "title": lab.title,
            "state": state,
            "started_at": known.get("started_at"),
            "passed_at": known.get("passed_at"),
            "checks": known.get("checks", 0),
            "hints": known.get("hints", 0),
            "solution_shown": known.get("solution_shown", False),
            "missing": known.get("missing", ""),
            "running": not lab.real_host and bool(machines.pid_of(lab, self._home)),
        }

    def _directory(self, lab: Lab) -> str:
        known = self._progress.of(lab).get("directory")
        return str(known or absolute(os.path.expanduser(f"~/{FOLDER}/{os.path.basename(lab.directory)}")))
