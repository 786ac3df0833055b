"""The labs that need the most of the host, done by an ordinary user on cgroup v2: whose control groups systemd gives him."""

from __future__ import annotations

from pathlib import Path

import pytest

from minibox.lab.catalog import Lab, find
from tests.conftest import Run
from tests.container_box import Box
from tests.integration.conftest import box
from tests.integration.lab.test_labs import check
from tests.systemd.test_scopes import ROOT, nothing_left

__all__ = ["box", "nothing_left"]

LABS = ("cgroups", "network", "breakout", "bundle")


@pytest.mark.skipif(ROOT, reason="root's are checked by `make labs-vm`")
@pytest.mark.parametrize("lab", [*map(find, LABS)], ids=LABS)
def test_the_solution_passes(box: Box, lab: Lab) -> None:
    assert check(box, lab, Path(lab.solution()))["missing"] == ""


@pytest.mark.skipif(ROOT, reason="root's are checked by `make labs-vm`")
def test_the_machine_of_start_is_in_a_scope_of_its_own(box: Box, minibox: Run) -> None:
    """It ends with the machine: see `nothing_left`."""
    box.ok("lab", "start", "8", "--dir", str(box.directory / "desk"))
    assert minibox("exec", "lab-8", "cat", "/sys/fs/cgroup/cgroup.controllers").stdout.split() == [
        "cpu",
        "memory",
        "pids",
    ]
    box.ok("lab", "reset", "8")
