"""The power is cut at random moments while commands run: what they had promised by then is kept."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Run
from tests.power import Machine, booted, busy_machine, copied
from tests.probes import requires

__all__ = ["busy_machine"]
pytestmark = requires("root", "command:mkfs.ext4", "command:mkfs.xfs")

COMMANDS, CUTS = 12, 4
COMMAND_S = 0.3  # what one takes, about
KILLED = "Exited (137)"


class Life:
    """Commands by chance, one after the other, and what they promise.

    Attributes:
        words: of each command, from before it begins.
        touched: the containers that it is about.
        states: of each container, as after a boot: at first, and after each command that has returned.
        wanted: the containers that a boot starts, likewise.
    """

    def __init__(self, machine: Machine, chance: random.Random) -> None:
        self._machine, self._chance = machine, chance
        self.words: list[tuple[str, ...]] = []
        self.touched: list[set[str]] = []
        self.states: list[dict[str, str]] = [{}]
        self.wanted: list[set[str]] = [set()]

    def go_on(self) -> None:
        """Execute all of them."""
        for number in range(COMMANDS):
            self._command(f"c{number}")

    def _command(self, new: str) -> None:
        states, wanted, status = dict(self.states[-1]), set(self.wanted[-1]), 0
        kind = self._chance.choice(
            ["run", "run", "always", "remove", "remove", "rename"] if states else ["run", "always"]
        )
        old = self._chance.choice(sorted(states) or [""])
        if kind == "run":
            status = self._chance.randrange(100)
            words: tuple[str, ...] = ("run", "--network", "none", "--name", new, "base", "sh", "-c", f"exit {status}")
            states[new] = f"Exited ({status})"
        elif kind == "always":
            words = ("run", "-d", "--network", "none", "--restart", "always", "--name", new, "base", "sleep", "1000")
            states[new] = KILLED
            wanted.add(new)
        elif kind == "remove":
            words = ("rm", "-f", old)
            del states[old]
            wanted.discard(old)
        else:
            words = ("rename", old, new)
            states[new] = states.pop(old)
            wanted = {new if name == old else name for name in wanted}
        self.words.append(words)
        self.touched.append({old, new})
        self._machine(*words, status=status)
        self.states.append(states)
        self.wanted.append(wanted)


def cut(life: Life, machine: Machine) -> tuple[Path, int, int]:
    """The disk of this moment; how many commands had returned before it, and how many had begun after it."""
    returned = len(life.wanted) - 1
    copy = copied(machine, "always")
    return copy, returned, len(life.touched)


def test_what_was_promised_before_a_cut_is_kept(
    minibox: Run, busy_machine: Machine, rounds: Callable[[int], range]
) -> None:
    """Of containers that the commands under way aren't about: each is there as it was, and none that was removed is."""
    for seed in rounds(1):
        chance = random.Random(seed)
        life = Life(busy_machine, chance)
        thread = threading.Thread(target=life.go_on)
        thread.start()
        cuts = []
        for _ in range(CUTS):
            time.sleep(chance.uniform(0, 2 * COMMAND_S * COMMANDS / CUTS))
            cuts.append(cut(life, busy_machine))
        thread.join()
        assert len(life.wanted) == COMMANDS + 1, life.words[-1]
        for copy, returned, begun in cuts:
            about = set().union(*life.touched[returned:begun])
            with booted(minibox, copy) as found:
                states = {name: state for name, state in found.states().items() if name not in about}
                kept = {name: state for name, state in life.states[returned].items() if name not in about}
                assert states == kept, (seed, life.words[:begun], returned)
                assert found.wanted() - about == life.wanted[returned] - about, (seed, life.words[:begun], returned)
                found("container", "prune", "-f")
                assert found.states() == {}
        if names := busy_machine("ps", "-aq").split():
            busy_machine("rm", "-f", *names)
