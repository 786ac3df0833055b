"""What a student has done so far: a file in minibox's state."""

from __future__ import annotations

import json
import os
from time import time

from minibox.base.files import read_file, replace_file
from minibox.base.lock import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.base.home import Home
    from minibox.lab.catalog import Lab

BYTES_MAX = 1 << 20


class Progress:
    """What a student has done."""

    def __init__(self, home: Home) -> None:
        self._directory = f"{home.root}/labs"
        self._path = f"{self._directory}/progress.json"

    def read(self) -> dict[str, Any]:
        """Return all: ``current``, the number of the lab that was started last, and ``labs``, by number."""
        try:
            found = json.loads(read_file(self._path, BYTES_MAX))
        except (FileNotFoundError, ValueError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("labs"), dict):
            return {"current": "", "labs": {}}
        return found

    def of(self, lab: Lab) -> dict[str, Any]:
        """Return what is known of one lab."""
        found: dict[str, Any] = self.read()["labs"].get(str(lab.number), {})
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
            labs = {**found["labs"], str(lab.number): changed(found["labs"].get(str(lab.number), {}))}
            now = {"current": str(lab.number) if current else found.get("current", ""), "labs": labs}
            replace_file(self._path, json.dumps(now, indent=1).encode())
