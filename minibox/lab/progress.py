"""What a student has done so far: a file in minibox's state."""

from __future__ import annotations

import os
from time import time

from minibox.base.codec import FileKind, plain
from minibox.base.files import replace_file
from minibox.base.lock import Lock
from minibox.base.shape import moment
from minibox.errors import Damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.base.home import Home
    from minibox.lab.catalog import Lab

_LAB = {
    "directory?": str,
    "before?": {"hostname?": str, "mounts?": [str], "pids?": [int]},
    "started_at?": moment,
    "passed_at?": moment,
    "checks?": int,
    "hints?": int,
    "solution_shown?": bool,
    "missing?": str,
}
PROGRESS = FileKind("progress", {"current": str, "labs": {str: _LAB}}, before=plain)
ANEW = "it holds how far you are in the labs; to begin anew, remove it: your answers stay"


class Progress:
    """What a student has done."""

    def __init__(self, home: Home) -> None:
        self._directory = f"{home.root}/labs"
        self._path = f"{self._directory}/progress.json"

    def read(self) -> dict[str, Any]:
        """Return all: ``current``, the key of the lab that was started last, and ``labs``, by key.

        Raises:
            Unreadable: the file is damaged.
        """
        try:
            return PROGRESS.read(self._path)
        except FileNotFoundError:
            return {"current": "", "labs": {}}
        except Damaged as error:
            raise Damaged(self._path, error.why, ANEW) from None

    def of(self, lab: Lab) -> dict[str, Any]:
        """Return what is known of one lab."""
        found: dict[str, Any] = self.read()["labs"].get(lab.key, {})
        return found

    def started(self, lab: Lab, directory: str, before: dict[str, Any]) -> None:
        self._change(lab, lambda now: {**now, "started_at": now.get("started_at", time()), "directory": directory,
                                       "before": before}, current=True)  # fmt: skip

    def checked(self, lab: Lab, missing: str) -> None:
        def changed(now: dict[str, Any]) -> dict[str, Any]:
            passed = {} if missing else {"passed_at": now.get("passed_at", time())}
            return {**now, "checks": now.get("checks", 0) + 1, "missing": missing, **passed}

        self._change(lab, changed)

    def hinted(self, lab: Lab, number: int) -> None:
        self._change(lab, lambda now: {**now, "hints": max(number, now.get("hints", 0))})

    def solution_shown(self, lab: Lab) -> None:
        self._change(lab, lambda now: {**now, "solution_shown": True})

    def forget(self, lab: Lab) -> None:
        self._change(lab, lambda now: {"directory": now["directory"]} if "directory" in now else {})

    def _change(self, lab: Lab, changed: Callable[[dict[str, Any]], dict[str, Any]], current: bool = False) -> None:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        with Lock(self._directory):
            found = self.read()
            labs = {**found["labs"], lab.key: changed(found["labs"].get(lab.key, {}))}
            now = {"current": lab.key if current else found.get("current", ""), "labs": labs}
            replace_file(self._path, PROGRESS.encode(now))
