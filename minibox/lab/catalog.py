"""The labs that there are: each a folder of ``labs`` with its texts, its machine, its check and its solution."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module

from minibox.errors import UsageError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.lab.look import Machine

DIRECTORY = f"{os.path.dirname(os.path.abspath(__file__))}/labs"


@record
class Lab:
    """A lab.

    Attributes:
        number: from 1 on.
        name: one word, the name of its folder.
        title: a line.
        about: what one learns, a line.
        directory: its folder.
        options: of its machine, as keywords of `minibox.Sandbox`.
        modules: of this Python that its machine must have, wherever they lie.
        delegated: its machine has a control group of its own in which root of the machine may make others.
        program: it can't be done by hand: its check starts the student's program in a way of its own.
        before: the words of the command that starts the student's program.
        arguments: of the student's program; a name of a file of the lab stands for ``python3 -c`` and its text.
        real_host: a part of the lab of that number which breaks into the real host: see `real_host`.
    """

    number: int
    name: str
    title: str
    about: str
    directory: str
    options: dict[str, Any]
    modules: tuple[str, ...]
    delegated: bool
    program: bool
    before: tuple[str, ...]
    arguments: tuple[str, ...]
    real_host: bool

    @property
    def key(self) -> str:
        """The word that means this lab and no other."""
        return self.name if self.real_host else str(self.number)

    def text(self, name: str) -> str:
        """Return one of its texts: ``theory.md``, ``task.md``, ``machine.sh``; "" if it has none of that name."""
        try:
            with open(f"{self.directory}/{name}", encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def files(self) -> dict[str, str]:
        """Return the programs of its machine by name: the files of its folder ``machine``."""
        folder = f"{self.directory}/machine"
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        return {name: self.text(f"machine/{name}") for name in names if not name.startswith("__")}

    def hints(self) -> list[str]:
        """Return its hints, each of which tells a little more than the one before."""
        return [part.strip() for part in self.text("hints.md").split("\n---\n")]

    def solution(self) -> str:
        """Return the path of its solution."""
        return next(path for end in ("py", "sh") if os.path.exists(path := f"{self.directory}/solution.{end}"))

    def words(self) -> list[str]:
        """Return the arguments of the student's program."""
        found = []
        for word in self.arguments:
            found += ["python3", "-c", self.text(word)] if word.endswith(".py") else [word]
        return found

    def check(self) -> Callable[[Machine], None]:
        """Return its check, which raises `requirement.Missing` for the first thing that is missing."""
        found: Callable[[Machine], None] = import_module(
            f"{__package__}.labs.{os.path.basename(self.directory)}.check"
        ).check
        return found


def labs() -> tuple[Lab, ...]:
    """Return all labs, by number."""
    return tuple(lab for lab in _all() if not lab.real_host)


def parts() -> tuple[Lab, ...]:
    """Return the parts of labs that need a host of their own."""
    return tuple(lab for lab in _all() if lab.real_host)


@cache
def _all() -> tuple[Lab, ...]:
    folders = (entry for entry in os.scandir(DIRECTORY) if os.path.exists(f"{entry.path}/lab.toml"))
    return tuple(sorted((_read(entry.path) for entry in folders), key=lambda lab: (lab.number, lab.real_host)))


def find(word: str) -> Lab:
    """Return the lab of that number or name.

    Raises:
        UsageError: there is none.
    """
    for lab in _all():
        if word in (lab.key, lab.name) or (word == f"{lab.number:02}" and not lab.real_host):
            return lab
    raise UsageError(f"there is no lab {word}", "minibox lab list shows them all")


def _read(directory: str) -> Lab:
    import tomllib

    number, _, name = os.path.basename(directory).removeprefix("lab").partition("_")
    with open(f"{directory}/lab.toml", "rb") as file:
        found = tomllib.load(file)
    return Lab(
        int(number),
        name,
        found["title"],
        found["about"],
        directory,
        found.get("machine", {}),
        tuple(found.get("modules", ())),
        found.get("delegated", False),
        found.get("program", False),
        tuple(found.get("before", ())),
        tuple(found.get("arguments", ())),
        found.get("real_host", False),
    )
