"""Containers that go on while a test looks at them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minibox.engine.state.live_file import parse
from tests.leaks import SLOWNESS

WAIT_S = 15 * SLOWNESS
#: Limits of time to try one after the other, where a program must have come so far before it: how long that takes
#: nobody knows.
EVER_LONGER_S = (0.5, 5.0 * SLOWNESS, 50.0 * SLOWNESS)


def until(true: Callable[[], object], what: str = "it happens") -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


def has_pidfd_of(pid: int, who: int) -> bool:
    """Does a process have a pidfd of another one, such as to wait for it?"""
    for fd in os.listdir(f"/proc/{who}/fdinfo"):
        try:
            with open(f"/proc/{who}/fdinfo/{fd}") as file:
                if f"Pid:\t{pid}\n" in file:
                    return True
        except FileNotFoundError:  # closed meanwhile
            continue
    return False


class Box:
    """The command, and the containers of one test.

    Attributes:
        directory: the state of the test, with `root` and `run`.
    """

    def __init__(self, command: Callable[..., Any], directory: Path) -> None:
        self._command, self.directory = command, directory

    def __call__(self, *words: str, **more: Any) -> Any:
        """Run a command; its CompletedProcess."""
        return self._command(*words, **more)

    def ok(self, *words: str, **more: Any) -> str:
        """Run a command that succeeds; what it prints, stripped."""
        done = self._command(*words, **more)
        assert done.returncode == 0, (words, done)
        printed: str = done.stdout.strip()
        return printed

    def tell(self, container: str, path: str = "/go") -> None:
        """Make a file in a container, which may end by that before `touch` has."""
        done = self._command("exec", container, "touch", path)
        assert done.returncode in (0, 137), done

    def refused(self, *words: str, status: int = 125, **more: Any) -> str:
        """Run a command that minibox refuses; the first line of why."""
        done = self._command(*words, **more)
        assert (done.returncode, done.stdout) == (status, ""), (words, done)
        why: str = done.stderr.splitlines()[0].removeprefix("minibox: ")
        return why

    def start(self, name: str, script: str, *options: str) -> str:
        """A detached container of `base` without network; its id."""
        return self.ok("run", "-d", "--network", "none", "--name", name, *options, "base", "sh", "-c", script)

    def states(self) -> dict[str, dict[str, Any]]:
        """state.json of all containers by name, as it is on disk."""
        found = {}
        for path in (self.directory / "root/containers").glob("*/state.json"):
            try:
                state = json.loads(path.read_text())
            except FileNotFoundError:  # it is being removed
                continue
            found[state["Name"]] = state
        return found

    def state(self, name: str) -> dict[str, Any]:
        return self.states()[name]

    def live(self, name: str) -> list[int]:
        """Pid of the first process, and its supervisor's."""
        record, pids = self.directory / "root/live" / self.state(name)["Id"], [0]

        def written() -> bool:
            found = parse(record.read_bytes(), str(record))
            pids[:] = [found.pid, found.supervisor]
            return found.pid > 0 or found.supervisor > 0

        until(written, "its owner, which starts it just now, has said so")
        return pids

    until = staticmethod(until)

    def until_logged(self, name: str, text: str) -> None:
        self.until(lambda: text in self("logs", name).stdout, f"{name} says {text!r}")

    def left(self) -> list[str]:
        """What there is on disk of any container, but for what is kept for the next."""
        found = [path for kind in ("containers", "live", "names", "ids")
                 for path in (self.directory / "root" / kind).glob("*")]  # fmt: skip
        return [str(path) for path in (*found, *(self.directory / "run/attach").glob("*"))]
