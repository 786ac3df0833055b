"""A student's program, running in a machine of its own until it is ready to be looked at."""

from __future__ import annotations

import os
from select import POLLIN, poll
from time import monotonic

from minibox.lab.requirement import Missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.api.process import Popen
    from minibox.api.sandbox import Sandbox

PROGRAMS = {"answer.py": "python3", "answer.sh": "sh"}  # a student's program, and what runs it
READY = "ready"
READY_S = 60  # how long a program may take to get ready
POLL_MS = 50
READ_BYTES = 1 << 16
OUTPUT_BYTES_MAX = 1 << 20
LINES_SHOWN = 6
INSIDE = "/lab"  # where a machine has the student's directory


def program_in(directory: str) -> str:
    """Return the name of the program in a student's directory; "" if there is none."""
    return next((name for name in PROGRAMS if os.path.isfile(f"{directory}/{name}")), "")


class Answer:
    """A student's program. It works, prints ``ready`` on a line of its own, and stays.

    Attributes:
        name: of its file.
    """

    def __init__(self, box: Sandbox, name: str, words: Iterable[str]) -> None:
        """Start it.

        Args:
            words: its whole command.
        """
        from minibox.api.process import DEVNULL, PIPE, STDOUT

        self.name = name
        self._output = b""
        self._started: Popen[bytes] = box.popen(words, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, cwd=INSIDE)

    @property
    def pid(self) -> int:
        return self._started.pid

    def wait_ready(self) -> None:
        """Wait until it says that it is ready.

        Raises:
            Missing: it ended before, or takes too long.
        """
        deadline = monotonic() + READY_S
        ended = False
        while not self._said_ready():
            if ended:
                raise Missing(f"{self.name} ended{self._how()} before it printed {READY!r}{self._last_lines()}")
            if monotonic() > deadline:
                raise Missing(f"{self.name} did not print {READY!r} within {READY_S} s{self._last_lines()}")
            ended = self._started.poll() is not None
            self._read(0 if ended else POLL_MS)

    def wait_ended(self) -> int:
        """Wait until it has ended, and return its status.

        Raises:
            Missing: it takes too long.
        """
        deadline = monotonic() + READY_S
        while self._started.poll() is None:
            if monotonic() > deadline:
                raise Missing(f"{self.name} did not end within {READY_S} s{self._last_lines()}")
            self._read(POLL_MS)
        self._read(0)
        return self._started.returncode or 0

    def lines(self) -> list[str]:
        """Return what it has written so far."""
        return self._text().splitlines()

    def _said_ready(self) -> bool:
        return READY in (line.strip() for line in self._text().split("\n")[:-1])

    def _text(self) -> str:
        return self._output.decode(errors="replace")

    def _read(self, timeout_ms: int) -> None:
        stream = self._started.stdout
        assert stream is not None
        waiting = poll()
        waiting.register(stream, POLLIN)
        while waiting.poll(timeout_ms):
            data = os.read(stream.fileno(), READ_BYTES)
            if not data:
                if timeout_ms:
                    poll().poll(timeout_ms)  # nobody can write any more: only its end is waited for
                return
            self._output = (self._output + data)[-OUTPUT_BYTES_MAX:]
            timeout_ms = 0

    def _how(self) -> str:
        code = self._started.returncode
        if not code:
            return ""
        return f" with status {code}" if code > 0 else f" by signal {-code}"

    def _last_lines(self) -> str:
        lines = [line for line in self.lines() if line.strip() and line.strip() != READY]
        return "".join(f"\n    {line}" for line in lines[-LINES_SHOWN:])

    def close(self) -> None:
        self._started.close()
