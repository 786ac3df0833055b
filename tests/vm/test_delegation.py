"""Limits for an ordinary user: on cgroup v2 they hold where root, or systemd, has given him a cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import AS_USER, Run
from tests.probes import requires
from tests.running_container import running

pytestmark = requires("user", "cgroup:memory", "cgroup:pids", "cgroup:cpu", "cgroup:cpuset")

MIB = 1 << 20
RUN = ("run", "--rm", "--network", "none")


def test_memory(minibox_user: Run, delegated: Path) -> None:
    limit = ("--memory", "20m", "--memory-swap", "20m")
    done = minibox_user(*RUN, *limit, "base", "tail", "-c", "190m", "/dev/zero")
    assert done.returncode == 137
    assert done.stderr == f"minibox: the container ran out of memory: its limit is {20 * MIB} bytes (--memory)\n"


def test_processes(minibox_user: Run, delegated: Path) -> None:
    bomb = "n=0; while [ $n -lt 100 ]; do sleep 20 & n=$((n+1)); done; echo survived"
    done = minibox_user(*RUN, "--pids-limit", "10", "base", "sh", "-c", bomb)
    assert (done.returncode, done.stdout) != (0, "survived\n")
    assert "fork" in done.stderr


def test_what_was_set_is_seen_inside_and_can_not_be_changed(minibox_user: Run, delegated: Path) -> None:
    limits = ("--memory", "32m", "--memory-swap", "48m", "--pids-limit", "9", "--cpuset-cpus", "1")
    script = """cd /sys/fs/cgroup; cat memory.max memory.swap.max pids.max cpuset.cpus.effective
                for file in memory.max pids.max cgroup.procs; do (echo 1 >$file) 2>/dev/null && echo "wrote $file"; done
                cat /proc/self/cgroup"""
    done = minibox_user(*RUN, *limits, "base", "sh", "-c", script)
    assert done.stdout.split() == [str(32 * MIB), str(16 * MIB), "9", "1", "0::/"], done.stderr


@pytest.mark.parametrize("option", [("--cpus", "0.5"), ("--cpu-shares", "512")])
def test_a_controller_that_was_not_given(minibox_user: Run, delegated: Path, option: tuple[str, str]) -> None:
    done = minibox_user(*RUN, *option, "base", "true")
    assert done.returncode == 125
    error, hint = done.stderr.splitlines()
    assert error.endswith(f": the cpu controller is not delegated to {delegated}")
    assert hint.startswith("hint: as root: ") and "cpu" in hint


def test_no_cgroup_at_all(minibox_user: Run) -> None:
    assert minibox_user(*RUN, "base", "true").returncode == 0
    done = minibox_user(*RUN, "--memory", "32m", "base", "true")
    assert done.returncode == 125
    error, hint = done.stderr.splitlines()
    assert error.startswith("minibox: memory limit: no cgroup is delegated to this user (ours is /")
    assert "loginctl enable-linger" in hint


def test_what_a_killed_minibox_left_goes_with_the_next_command(
    minibox_user: Run, user_command: list[str], user_environment: dict[str, str], delegated: Path
) -> None:
    limits = ("--network", "none", "--memory", "32m")
    with running(user_command, user_environment, *limits, **AS_USER) as box:
        assert list(delegated.glob("minibox-*"))
        box.process.kill()
        box.process.wait()
    assert list(delegated.glob("minibox-*")), "nobody was there to remove it"
    assert minibox_user(*RUN, "base", "true").returncode == 0
    assert not list(delegated.glob("minibox-*"))
