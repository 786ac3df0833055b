"""A class on one machine: many students at once, and a minibox that only root can read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minibox.lab.catalog import find
from tests.conftest import CHECKOUT
from tests.container_box import Box
from tests.leaks import SLOWNESS
from tests.probes import requires, requires_user

STUDENTS = 30 if os.environ.get("MINIBOX_LONG") else 3
FIRST_ID = 61000
WAIT_S = 600 * SLOWNESS

pytestmark = requires("root")


class Student:
    """An ordinary user of his own, without subordinate ids."""

    def __init__(
        self, number: int, directory: Path, seed: Path, command: list[str], environment: dict[str, str]
    ) -> None:
        self.directory, self._id, self._command = directory, FIRST_ID + number, command
        self.desk = directory / "desk"
        self.desk.mkdir(parents=True)
        subprocess.run(["cp", "-a", str(seed), str(directory / "root")], check=True)
        (directory / "run").mkdir(mode=0o700)
        subprocess.run(["chown", "-R", f"{self._id}:{self._id}", str(directory)], check=True)
        places = {"MINIBOX_ROOT": str(directory / "root"), "MINIBOX_RUNROOT": str(directory / "run")}
        own = {"HOME": str(directory), "USER": f"student{number}", "XDG_RUNTIME_DIR": str(directory / "run")}
        self._environment = {**environment, **places, **own}

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, *words], env=self._environment, user=self._id, group=self._id, extra_groups=[], cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.fixture
def students(
    session_directory: Path, user_seed: Path, user_command: list[str], user_environment: dict[str, str]
) -> Iterator[list[Student]]:
    place = session_directory / "class"
    made = [
        Student(number, place / str(number), user_seed, user_command, user_environment) for number in range(STUDENTS)
    ]
    yield made
    at_once(made, "rm", "-f", "-a")
    shutil.rmtree(place)


def at_once(students: list[Student], *words: str) -> list[tuple[int, str, str]]:
    """Run a command for all of them at the same time; each one's status and output."""
    running = [student.begin(*words) for student in students]
    ended = [each.communicate(timeout=WAIT_S) for each in running]
    return [(each.returncode, out, err) for each, (out, err) in zip(running, ended)]


@requires_user
@pytest.mark.usefixtures("orphans")
def test_a_class_works_at_once_and_nobody_sees_another(students: list[Student]) -> None:
    solution = Path(find("2").solution())
    for student in students:
        shutil.copyfile(solution, student.desk / "answer.py")
    for student, (status, out, err) in zip(students, at_once_each(students, "lab", "start", "2", "--dir")):
        assert status == 0 and str(student.desk) in out, err
    for status, out, err in at_once(students, "lab", "check", "--json"):
        assert (status, json.loads(out or "{}").get("missing")) == (0, ""), err
    # Each machine has its own processes alone: its init, and the one that looks.
    look = "for each in /proc/[0-9]*; do cat $each/comm 2>/dev/null; done | sort -u | tr '\\n' ' '"
    for status, out, err in at_once(students, "exec", "lab-2", "sh", "-c", look):
        assert status == 0, err
        assert set(out.split()) <= {"init", "minibox-init", "sh", "cat", "sort", "tr"}, out
    for status, out, err in at_once(students, "lab", "report", "--json"):
        assert (status, json.loads(out)["passed"]) == (0, 1), err


def at_once_each(students: list[Student], *words: str) -> list[tuple[int, str, str]]:
    """As `at_once`, with each one's own directory as the last word."""
    running = [student.begin(*words, str(student.desk)) for student in students]
    ended = [each.communicate(timeout=WAIT_S) for each in running]
    return [(each.returncode, out, err) for each, (out, err) in zip(running, ended)]


def test_modules_that_only_root_can_read_are_copied(box: Box, environment: dict[str, str]) -> None:
    private, desk = box.directory / "private", box.directory / "desk"
    shutil.copytree(CHECKOUT / "minibox", private / "minibox", ignore=shutil.ignore_patterns("__pycache__"))
    private.chmod(0o700)
    desk.mkdir()
    shutil.copyfile(find("2").solution(), desk / "answer.py")
    program = [sys.executable, "-m", "minibox", "lab"]
    own: dict[str, Any] = {"env": {**environment, "PYTHONPATH": str(private)}, "capture_output": True, "text": True}
    started = subprocess.run([*program, "start", "2", "--dir", str(desk)], check=False, cwd=private, **own)
    assert started.returncode == 0, started.stderr
    (first, outside, _), *_ = [
        tuple(map(int, line.split())) for line in box.ok("exec", "lab-2", "cat", "/proc/self/uid_map").splitlines()
    ]
    assert first == 0 and outside != 0, "root of the machine, with all capabilities, is nobody on the host"
    where = "import minibox.linux; print(minibox.linux.__file__)"
    assert box.ok("exec", "lab-2", "python3", "-c", where) == str(private / "minibox/linux/__init__.py")
    done = subprocess.run([*program, "check"], check=False, cwd=private, **own)
    assert (done.returncode, done.stdout) == (0, "lab 2: passed (answer.py)\n"), done.stderr
