"""The part of lab 12 that breaks into the real host, which this machine is."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibox.lab.catalog import find
from tests.container_box import Box
from tests.integration.lab.test_labs import MARK, attempts, check
from tests.probes import requires

LAB = find("release_agent")
#: CI does one: that machine is slow. `make labs-vm` does all.
TRIED = attempts(LAB) if os.environ.get("MINIBOX_LONG") else attempts(LAB)[-1:]

pytestmark = requires("root")


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """One of these tests at a time, whichever worker has it: the host is there once."""
    fd = os.open("/sys", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield
    os.close(fd)


def children_of_the_kernel() -> list[str]:
    return [entry for entry in os.listdir("/proc") if entry.isdigit() and is_program_of_the_kernel(entry)]


def is_program_of_the_kernel(pid: str) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[1] == "2" and bool(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False


def hierarchies() -> str:
    return "".join(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "name=lab12" in line)


def test_the_solution_passes_and_leaves_nothing(box: Box) -> None:
    assert check(box, LAB, Path(LAB.solution()))["missing"] == ""
    assert children_of_the_kernel() == [], "what the kernel has started is ended"
    assert hierarchies() == ""


@pytest.mark.parametrize("attempt", TRIED, ids=[path.stem for path in TRIED])
def test_a_wrong_attempt_is_told_what_is_missing(box: Box, attempt: Path) -> None:
    wanted = attempt.read_text().splitlines()[0].removeprefix(MARK)
    assert wanted in check(box, LAB, attempt)["missing"]
    assert (children_of_the_kernel(), hierarchies()) == ([], "")


def test_it_needs_no_machine(box: Box) -> None:
    said = box.ok("lab", "start", "release_agent", "--dir", str(box.directory / "desk"))
    assert "# Lab 12: Break out by release_agent" in said and "minibox shell" not in said
    assert box("ps", "-aq").stdout == ""
    assert box("lab", "check").stderr.startswith("minibox: there is nothing to check: no answer.py or answer.sh in ")
