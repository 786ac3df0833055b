"""What is there of containers and of this process, for tests that interrupt what makes containers in it."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import minibox
from minibox.base.home import Home
from minibox.engine.container import collection
from minibox.engine.files import background_removal
from tests.container_box import until
from tests.leaks import reap_name_servers


class Remains:
    """What is there of containers, and of this process."""

    def __init__(self, state: Path) -> None:
        self._root, self._runroot = state / "root", state / "run"
        minibox.run("base", ["true"])  # what this process has for good
        with minibox.Sandbox("base") as box:
            box.write_file("/x", b"x")
        self._before = self._now()

    def _now(self) -> tuple[list[str], list[str], list[str]]:
        background_removal.finish()
        reap_name_servers()
        collection.collect(Home(str(self._root), str(self._runroot)))
        files = [str(path) for kind in ("containers", "live", "names", "ids", "layers/active")
                 for path in (self._root / kind).glob("*")]  # fmt: skip
        fds = []
        for number in os.listdir("/proc/self/fd"):
            try:
                fds.append(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
            except FileNotFoundError:
                pass
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        states = [Path(f"/proc/{pid}/stat").read_text().split()[1:3] for pid in children]
        names = [(name, "is a zombie" if state == "Z" else "lives") for name, state in states]
        return files, sorted(fds), sorted(map(str, names))

    def check(self, what: object) -> None:
        """As before ``what``."""
        last: list[Any] = []

        def same() -> bool:
            last[:] = self._now()
            return tuple(last) == self._before or gc.collect() < 0  # what is in cycles goes

        try:
            until(same)
        except AssertionError:
            raise AssertionError(f"after {what}:\n{last}, before:\n{self._before}") from None
