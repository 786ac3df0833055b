"""SIGKILL at each step of a start: after the next command nothing is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, Run
from tests.container_box import WAIT_S
from tests.leaks import LEAK_PATIENCE_S, SLOWNESS, bridge_ports, snapshot
from tests.probes import requires

pytestmark = requires("root", "idmap", "command:nft")

DRIVER = Path(__file__).with_name("crash_driver.py")
OWN_IDS: tuple[str, ...] = ("-m", "64m", "--name", "victim", "--tmpfs", "/t")
HOSTS_IDS = ("--network", "none", "--userns", "host", "-t", "--rm")
KINDS = {"own ids": OWN_IDS, "host's ids": HOSTS_IDS}


class Victim:
    """Runs of one kind that are killed."""

    def __init__(self, state: Path, environment: dict[str, str], kind: str, place: Path) -> None:
        self.state, self.kind = state, kind
        self.environment = {**environment, "PYTHONPATH": str(CHECKOUT)}
        # Not below /tmp, over which the container's root is mounted for a while.
        self.fifo = place / "fifo"
        os.mkfifo(self.fifo)
        self.fifo.chmod(0o644)

    def start(self, where: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run the driver to its end."""
        # The FIFO has the same path inside, so that it can be opened on both sides of pivot_root.
        place = ("-v", f"{self.fifo.parent}:{self.fifo.parent}")
        words = [sys.executable, str(DRIVER), str(self.state / "root"), str(self.state / "run"), where, *more]
        return subprocess.run(
            [*words, *KINDS[self.kind], *place, "base", "sleep", "100"],
            env=self.environment, capture_output=True, text=True, timeout=60 * SLOWNESS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def steps(self) -> dict[str, list[str]]:
        """The names of each process's steps."""
        listed = self.start("list")
        assert listed.returncode == 0, listed.stderr
        return {actor: names for actor, *names in map(str.split, listed.stdout.splitlines())}


def places(steps: list[str]) -> list[int]:
    """Where a child may stand still and be killed with its parent.

    Not between a change of ids, which forgets the wish to die, and the die_with_parent after it,
    which looks whether the parent is dead already: standing still would keep it from that.
    """
    found, dies = [], False
    for number, name in enumerate(steps):
        if dies:
            found.append(number)
        changes = name in ("setresgid", "setresuid", "set_fs_ids") and "die_with_parent" in steps[number:]
        dies = name == "die_with_parent" or (dies and not changes)
    return found


def remains(state: Path) -> list[str]:
    """What a container has on disk."""
    root, runroot = state / "root", state / "run"
    found = [*root.glob("containers/*"), *root.glob("live/*"), *root.glob("names/*"), *root.glob("ids/*")]
    return [str(path.relative_to(state)) for path in (*found, *runroot.glob("network/*/leases/*"))]


def left(before: dict[str, set[str]], state: Path) -> list[str]:
    """What is there more than before, once the kernel has had its time; the bridge stays for the next."""
    deadline = time.monotonic() + LEAK_PATIENCE_S
    while True:
        _reap()
        now = snapshot()
        kept = ("nftables", "descriptor", "link")
        found = [f"{kind}: {thing}" for kind in now if kind not in kept for thing in now[kind] - before[kind]]
        found += [f"link: {name}" for name in bridge_ports()] + remains(state)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(params=KINDS)
def victim(request: pytest.FixtureRequest, state: Path, environment: dict[str, str], place: Path) -> Victim:
    return Victim(state, environment, request.param, place)


def test_killed_at_each_step_of_the_parents(victim: Victim, minibox: Run, state: Path) -> None:
    count = len(victim.steps()["parent"])
    assert minibox("ps", "--all", "--quiet").stdout == ""
    before = snapshot()
    for number in range(count):
        done = victim.start(f"parent:{number}")
        assert done.returncode == -signal.SIGKILL, (number, done.stderr)
        assert remains(state), "it was killed too early to have left anything"
        after = minibox("ps", "--all", "--quiet")
        assert (after.returncode, after.stdout, after.stderr) == (0, "", ""), number
        assert left(before, state) == [], f"after death at step {number} of the parent's"


@pytest.mark.parametrize("actor", ["mounter", "init"])
def test_killed_while_a_child_is_at_each_step(victim: Victim, minibox: Run, state: Path, actor: str) -> None:
    steps = victim.steps()[actor]
    if not steps:
        pytest.skip("the host's ids need no mounter")
    assert minibox("ps", "--all", "--quiet").stdout == ""
    before = snapshot()
    for number in places(steps):
        done = victim.start(f"{actor}:{number}", str(victim.fifo))
        assert done.returncode == -signal.SIGKILL, (number, done.stderr)
        after = minibox("ps", "--all", "--quiet")
        assert (after.returncode, after.stdout, after.stderr) == (0, "", ""), number
        assert left(before, state) == [], f"after death at step {number} of {actor}, {steps[number]}"


def test_the_next_run_collects_too(minibox: Run, state: Path, environment: dict[str, str], place: Path) -> None:
    victim = Victim(state, environment, "own ids", place)
    victim.steps()
    before = snapshot()
    assert victim.start("parent:4").returncode == -signal.SIGKILL
    done = minibox("run", "--rm", "--network", "none", "base", "echo", "on")
    assert (done.stdout, done.stderr) == ("on\n", "")
    assert left(before, state) == []


def test_one_that_resists_costs_no_other(minibox: Run, state: Path) -> None:
    (state / "root/live").mkdir(parents=True, exist_ok=True)
    (state / "root/live/not an id").touch()
    orphan = "0a" * 32
    (state / "root/live" / orphan).write_text("remove")
    place = state / "root/containers" / orphan
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        assert minibox("run", "--rm", "--network", "none", "base", "echo", "hi").stdout == "hi\n"
        assert place.is_dir()
    finally:
        subprocess.run(["umount", place], check=True)
    minibox("ps")
    assert not place.exists()
    (state / "root/live/not an id").unlink()


def test_a_name_is_free_again(minibox: Run, state: Path, environment: dict[str, str], place: Path) -> None:
    victim = Victim(state, environment, "own ids", place)
    assert victim.start("parent:4").returncode == -signal.SIGKILL
    done = minibox("run", "--rm", "--network", "none", "--name", "victim", "base", "echo", "mine")
    assert (done.stdout, done.stderr) == ("mine\n", "")


def test_killed_while_the_command_runs(
    minibox: Run, state: Path, minibox_command: list[str], environment: dict[str, str]
) -> None:
    before = snapshot()
    words = [*minibox_command, "run", "--rm", "base", "sh", "-c", "sleep 1000 & echo ready; sleep 1000"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout and started.stdout.readline() == "ready\n"
        started.kill()
        # It ends with the last process of the container.
        ended, _, _ = select.select([started.stdout], [], [], 50 * SLOWNESS)
        assert ended and started.stdout.read() == ""
    assert minibox("ps", "--all", "--quiet").stdout == ""
    assert left(before, state) == []


def test_a_container_to_keep_that_lost_its_owner(
    minibox: Run, state: Path, minibox_command: list[str], environment: dict[str, str]
) -> None:
    words = [
        *minibox_command,
        "run",
        "--network",
        "none",
        "--name",
        "kept",
        "base",
        "sh",
        "-c",
        "echo x > /x; echo ready; sleep 100",
    ]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout and started.stdout.readline() == "ready\n"
        deadline = time.monotonic() + WAIT_S
        while '"running"' not in minibox("ps", "--json").stdout:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started.kill()
    listed = minibox("ps", "--all")
    assert "kept" in listed.stdout and "Exited (137)" in listed.stdout, listed
    assert minibox("rm", "kept").returncode == 0
    assert remains(state) == []
