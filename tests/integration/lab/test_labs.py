"""Each lab: its solution passes, as root and as an ordinary user; wrong attempts are told what is missing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pexpect import EOF

from minibox.lab.catalog import Lab, labs, parts
from tests.container_box import Box
from tests.probes import requires, requires_user

ATTEMPTS = Path(__file__).parent / "attempts"
MARK = "# missing: "
PASSES = "# passes"  # the first line of one that is right in another way than the solution
ATTEMPTS_MIN = 5
#: What CI runs; `make labs` runs all.
FEW = (1, 2, 5)
RUN = [lab for lab in labs() if lab.number in FEW or os.environ.get("MINIBOX_LONG")]
#: That machine is slow: CI solves one there, `make labs-vm` all.
SOLVED = [
    pytest.param(
        lab, id=lab.name, marks=[pytest.mark.kernel] if lab.number == 2 or os.environ.get("MINIBOX_LONG") else []
    )
    for lab in RUN
    if not lab.delegated
]

pytestmark = requires("root")


def attempts(lab: Lab, *, right: bool = False) -> list[Path]:
    folder = f"lab{lab.number:02}" + (f"_{lab.name}" if lab.real_host else "")
    found = sorted((ATTEMPTS / folder).glob("*.*"))
    return [path for path in found if path.read_text().startswith(PASSES) == right]


def params(*, right: bool = False) -> list[Any]:
    return [
        pytest.param(lab, path, id=f"{lab.number}-{path.stem}") for lab in RUN for path in attempts(lab, right=right)
    ]


def edited(solution: str, edit: str) -> str:
    """Return a solution with a fault. Of each part after ``@@`` the lines with ' ' and '-' are there once, and those with
    ' ' and '+' take their place.
    """
    for part in edit.split("@@\n")[1:]:
        lines = part.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in (" ", sign)) for sign in "-+")
        assert solution.count(old) == 1, part
        solution = solution.replace(old, new)
    return solution


def check(box: Box, lab: Lab, program: Path) -> dict[str, Any]:
    """Check a program, or the solution with an edit, as a student does."""
    desk = box.directory / "desk"
    desk.mkdir(exist_ok=True)
    owner = os.stat(box.directory)
    os.chown(desk, owner.st_uid, owner.st_gid)
    if program.suffix == ".edit":
        solution = Path(lab.solution())
        (desk / f"answer{solution.suffix}").write_text(edited(solution.read_text(), program.read_text()))
    else:
        shutil.copyfile(program, desk / f"answer{program.suffix}")
    progress = box.directory / "root/labs/progress.json"
    if not progress.exists():
        progress.parent.mkdir(mode=0o700, exist_ok=True)
        progress.write_text(json.dumps({"current": lab.key, "labs": {lab.key: {"directory": str(desk)}}}))
        for path in (progress.parent, progress):
            os.chown(path, owner.st_uid, owner.st_gid)
    done = box("lab", "check", lab.key, "--json")
    assert done.stderr == "", done
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["passed"] else 1)
    return found


@pytest.mark.parametrize("lab", SOLVED)
def test_the_solution_passes(any_box: Box, lab: Lab) -> None:
    assert check(any_box, lab, Path(lab.solution()))["missing"] == ""


@pytest.mark.kernel
@pytest.mark.parametrize("lab", [lab for lab in labs() if lab.delegated], ids=lambda lab: lab.name)
def test_the_solution_passes_where_root_is_needed(box: Box, lab: Lab) -> None:
    """On cgroup v1 an ordinary user can't have control groups of his own."""
    assert check(box, lab, Path(lab.solution()))["missing"] == ""


@requires_user
def test_an_ordinary_user_without_control_groups_is_told(user_box: Box) -> None:
    done = user_box("lab", "start", "8", "--dir", str(user_box.directory / "desk"))
    assert done.returncode == 0 or "cgroup" in done.stderr, done


@requires_user
@pytest.mark.parametrize(("lab", "attempt"), params())
def test_a_wrong_attempt_is_told_what_is_missing(request: pytest.FixtureRequest, lab: Lab, attempt: Path) -> None:
    user_box = request.getfixturevalue("box" if lab.delegated else "user_box")
    wanted = attempt.read_text().splitlines()[0]
    assert wanted.startswith(MARK), f"the first line of {attempt} says what is missing"
    found = check(user_box, lab, attempt)
    assert not found["passed"]
    assert wanted.removeprefix(MARK) in found["missing"]


@requires_user
@pytest.mark.parametrize(("lab", "attempt"), params(right=True))
def test_another_right_answer_passes(request: pytest.FixtureRequest, lab: Lab, attempt: Path) -> None:
    user_box = request.getfixturevalue("box" if lab.delegated else "user_box")
    assert check(user_box, lab, attempt)["missing"] == ""


@pytest.mark.parametrize("lab", [*labs(), *parts()], ids=lambda lab: lab.name)
def test_each_lab_is_whole(lab: Lab) -> None:
    for name in ("theory.md", "task.md"):
        assert lab.text(name).strip(), name
    assert "Read: " in lab.text("theory.md"), "it names its manual pages"
    assert len(lab.hints()) >= 2 and all(lab.hints())
    assert callable(lab.check())
    assert len(attempts(lab)) >= ATTEMPTS_MIN


def test_a_student_works_by_hand(box: Box) -> None:
    """The machine of `start` runs on, and `check` looks at it; `reset` ends it, and leaves the student's files."""
    desk = box.directory / "desk"
    said = box.ok("lab", "start", "2", "--dir", str(desk))
    assert "Lab 2" in said and "## Task" in said and str(desk) in said
    first = box("lab", "check")
    assert (first.returncode, "CLONE_NEWPID" in first.stdout) == (1, True)
    by_hand = "unshare --uts --pid --fork sh -c 'hostname inside; touch /lab/named; exec sleep 1000'"
    box.ok("exec", "-d", "lab-2", "sh", "-c", by_hand)
    box.until(lambda: (desk / "named").exists())
    alone = box("lab", "check")
    assert (alone.returncode, "alone" in alone.stdout) == (1, True)
    join = "nsenter --target $(pgrep -x sleep) --uts --pid sh -c 'touch /lab/joined; exec sleep 1000'"
    box.ok("exec", "-d", "lab-2", "sh", "-c", join)
    box.until(lambda: (desk / "joined").exists())
    assert "passed" in box.ok("lab", "check")
    report = json.loads(box.ok("lab", "report", "--json"))
    (row,) = [row for row in report["labs"] if row["lab"] == 2]
    assert (row["state"], row["checks"], row["running"], report["passed"]) == ("passed", 3, True, 1)
    box.ok("lab", "reset")
    assert sorted(path.name for path in desk.iterdir()) == ["joined", "named"]
    assert "lab-2" not in box.ok("ps", "-a")


@pytest.mark.parametrize("number", ["8", "9"])
def test_an_answer_given_by_hand_passes(box: Box, number: str) -> None:
    """The machine's own processes, such as lab 9's world, are found there, too."""
    desk = box.directory / "desk"
    box.ok("lab", "start", number, "--dir", str(desk))
    (attempt,) = attempts(labs()[int(number) - 1], right=True)
    (desk / "by_hand").write_text(attempt.read_text().replace("echo ready", "touch /lab/ready"))
    box.ok("exec", "-d", f"lab-{number}", "sh", "/lab/by_hand")
    box.until(lambda: (desk / "ready").exists())
    assert "passed" in box.ok("lab", "check")


def test_a_shell_in_the_machine(box: Box, terminal: Callable[..., Any]) -> None:
    """On a terminal `start` opens one; it sees the student's directory, and the machine outlives it."""
    desk = box.directory / "desk"
    shell = terminal("lab", "start", "1", "--dir", str(desk))
    shell.expect_exact("lab1:/lab# ")  # the prompt
    shell.sendline("echo from $(hostname) > /lab/note; exit 7")
    shell.expect_exact(EOF)
    shell.wait()
    assert (shell.exitstatus, (desk / "note").read_text()) == (7, "from lab1\n")
    assert "running" in box.ok("lab", "status")
    assert box.ok("exec", "lab-1", "cat", "/lab/note") == "from lab1"


def test_lists_fit_a_terminal(box: Box, terminal: Callable[..., Any], environment: dict[str, str]) -> None:
    """Without one, all is there."""
    del environment["COLUMNS"]
    box.ok("lab", "start", "2", "--dir", str(box.directory / "desk"))
    missing = json.loads(box("lab", "check", "--json").stdout)["missing"]
    assert len(missing) > 80 and missing in box.ok("lab", "status") and "a host name, and pids" in box.ok("lab", "list")
    for words in (("list",), ("status",), ("start", "2", "--no-shell"), ("hint", "1")):
        shown = terminal("lab", *words)
        shown.expect_exact(EOF)
        lines = shown.before.replace("\r", "").splitlines()
        assert max(len(line) for line in lines if str(box.directory) not in line) <= 80, words


def test_hints_come_one_by_one(box: Box) -> None:
    said = [box.ok("lab", "hint", "process") for _ in range(4)]
    assert [line.partition(":")[0] for line in said] == ["hint 1 of 3", "hint 2 of 3", "hint 3 of 3", "hint 3 of 3"]
    assert "signal.pause" in box.ok("lab", "solution", "1")
    (row,) = [row for row in json.loads(box.ok("lab", "report", "--json"))["labs"] if row["lab"] == 1]
    assert (row["hints"], row["solution_shown"], row["state"]) == (3, True, "started")


def test_what_there_is_not_is_said(box: Box) -> None:
    assert box.refused("lab", "check") == "no lab was started yet"
    assert box.refused("lab", "start", "99") == "there is no lab 99"
    for lab, hint in (("1", "or work by hand: minibox lab start 1"), ("12", "minibox lab start 12 shows the task")):
        done = box("lab", "check", lab)
        assert done.stderr.startswith("minibox: there is nothing to check: no answer.py or answer.sh in ")
        assert done.stderr.strip().endswith(hint)


@requires_user
def test_the_part_for_a_real_host_refuses_an_ordinary_user(user_box: Box) -> None:
    desk = user_box.directory / "desk"
    said = user_box.ok("lab", "start", "release_agent", "--dir", str(desk))
    assert "Break out by release_agent" in said and user_box("ps", "-aq").stdout == ""
    (desk / "answer.sh").write_text("echo ready; sleep infinity")
    assert user_box.refused("lab", "check").startswith("this part of the lab breaks into the real host, and ")
    report = json.loads(user_box.ok("lab", "report", "--json"))
    assert (report["of"], [row["name"] for row in report["parts"]]) == (14, ["release_agent"])
    assert user_box.ok("lab", "list").splitlines()[13].split()[:2] == ["12", "release_agent"]


@pytest.mark.parametrize(
    "damage",
    [
        '{"current": "2", "labs": {"1": "x"}}',
        '{"current": "2", "labs": {"2": {"checks": "many"}}}',
        '{"cur',
        "",
        "[]",
        "null",
    ],
)
def test_damaged_progress_is_told_and_not_overwritten(box: Box, damage: str) -> None:
    """A report on it would say that nothing was done."""
    box.ok("lab", "hint", "1")
    path = box.directory / "root/labs/progress.json"
    path.write_text(damage)
    for words in (
        ("report", "--json"),
        ("status",),
        ("hint", "1"),
        ("check",),
        ("start", "1"),
        ("solution", "1"),
        ("reset", "1"),
    ):
        done = box("lab", *words)
        error, hint = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (125, ""), words
        assert error.startswith(f"minibox: {path} is damaged: ") and "to begin anew, remove it" in hint
    assert path.read_text() == damage
    path.unlink()
    assert json.loads(box.ok("lab", "report", "--json"))["passed"] == 0


def test_a_breakout_ends_at_the_machine(box: Box) -> None:
    """What lab 12 breaks into is the lab's machine: the files of the real host are as before."""
    before = {path: sorted(os.listdir(path)) for path in ("/", "/root", "/run", "/opt", "/srv")}
    (lab,) = (lab for lab in labs() if lab.name == "breakout")
    assert check(box, lab, Path(lab.solution()))["passed"]
    assert {path: sorted(os.listdir(path)) for path in before} == before


def test_root_of_a_machine_writes_nothing_of_the_host(any_box: Box) -> None:
    """He may make the mounts of the host's programs writable, and yet not write them: he is nobody there."""
    desk = any_box.directory / "desk"
    any_box.ok("lab", "start", "1", "--dir", str(desk))
    script = "mount -o remount,bind,rw /usr && echo remounted; touch /usr/minibox-lab || echo refused; cat /dev/kmsg /proc/kcore | head -c 1"
    done = any_box("exec", "lab-1", "sh", "-c", script)
    assert done.stdout in ("remounted\nrefused\n", "refused\n"), done
    assert not os.path.exists("/usr/minibox-lab")
