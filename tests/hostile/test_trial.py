"""try: what root applies below a directory whose owner moves symlinks into its way meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from minibox.engine.trial import kept
from minibox.engine.trial.run import apply
from minibox.errors import MiniboxError
from minibox.record import replace
from tests.conftest import AS_USER, Run
from tests.container_box import until
from tests.isolation import USER_ID
from tests.probes import requires

PAIRS = 40  # as in exchange.c
MAKE = f"for n in $(seq 0 {PAIRS - 1}); do mkdir -m 700 d$n; echo applied > d$n/new; mkdir -m 700 d$n/inner; echo applied > d$n/inner/new; done"


@requires("root", "user", "command:cc")
def test_apply_writes_nowhere_else(
    minibox: Run, state: Path, attacker: Callable[[str], Path], rounds: Callable[[int], range]
) -> None:
    theirs, outside = state / "theirs", state / "outside"
    outside.mkdir(mode=0o755)
    (outside / "inner").mkdir(mode=0o755)
    theirs.mkdir()
    os.chown(theirs, USER_ID, USER_ID)
    done = minibox("try", "--keep", "sh", "-ec", MAKE, cwd=str(theirs))
    assert done.returncode == 0, done.stderr
    [row] = json.loads(minibox("tried", "--json").stdout)
    trial = kept.read(str(state / "root"), row["Name"])
    parts = [
        replace(trial, found=tuple(each for each in trial.found if f"{each.path}/".startswith(f"{theirs}/d{number}/")))
        for number in range(PAIRS)
    ]
    assert all(len(part.found) == 4 for part in parts)
    program = shutil.copy(attacker("exchange"), state)  # where the user may reach it
    exchange = subprocess.Popen([program, theirs, outside], **AS_USER)
    try:
        until(lambda: len(os.listdir(theirs)) == 2 * PAIRS)
        applied = refused = 0
        for _ in rounds(6):
            for part in parts:
                try:
                    apply(part, privileged=False)
                    applied += 1
                except MiniboxError:
                    refused += 1
        assert exchange.poll() is None
    finally:
        exchange.kill()
        exchange.wait()
    assert applied and refused, "both happen, or nothing was tried"
    assert os.listdir(outside) == ["inner"] and os.listdir(outside / "inner") == []
    assert {path.stat().st_mode & 0o777 for path in (outside, outside / "inner")} == {0o755}
