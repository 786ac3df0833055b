"""update: limits that change under a running container, hold, and are there after its next start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from minibox.linux import cgroup
from tests.conftest import Run
from tests.container_box import Box
from tests.probes import requires, requires_user

pytestmark = requires("root", "cgroup:memory")

MIB = 1 << 20
HOLD = "head -c 30000000 /dev/zero >/dev/shm/held; echo ready; exec sleep 100"  # nobody can take that back


def value(container_id: str, v1: tuple[str, str], v2: str) -> str:
    """What a file of a container's cgroup says, by its names on v1 (controller, file) and on v2."""
    group = cgroup.find(cgroup.detect(), f"minibox-{container_id}")
    controller, file = v1
    path = f"{group.v1[controller]}/{file}" if controller in group.v1 else f"{group.v2}/{v2}"
    return Path(path).read_text().strip()


def memory(container_id: str) -> str:
    return value(container_id, ("memory", "memory.limit_in_bytes"), "memory.max")


def swap(container_id: str) -> str | None:
    """None on a kernel that doesn't count it."""
    try:
        return value(container_id, ("memory", "memory.memsw.limit_in_bytes"), "memory.swap.max")
    except FileNotFoundError:
        return None


def pids(container_id: str) -> str:
    return value(container_id, ("pids", "pids.max"), "pids.max")


@pytest.mark.kernel
def test_limits_change_at_once_and_last(box: Box) -> None:
    container_id = box.start("web", "sleep 100 & echo both; exec sleep 100", "-m", "64m")
    box.until_logged("web", "both")
    assert memory(container_id) == str(64 * MIB)
    for size in (512, 16, 48):  # up, down and up: v1 wants its two files in another order each time
        assert box.ok("update", "-m", f"{size}m", "web") == "web"
        assert memory(container_id) == str(size * MIB)
        assert swap(container_id) in (None, str(2 * size * MIB), str(size * MIB))  # v1 counts both together
    assert box.ok("update", "--pids-limit", "20", "--cpus", "0.5", "--cpuset-cpus", "0", "web") == "web"
    assert pids(container_id) == "20"
    assert value(container_id, ("cpu", "cpu.cfs_quota_us"), "cpu.max").split()[0] == "50000"
    assert value(container_id, ("cpuset", "cpuset.cpus"), "cpuset.cpus") == "0"
    assert value(container_id, ("pids", "pids.current"), "pids.current") == "2", "all of its processes are counted"
    box.ok("restart", "-t", "0", "web")
    assert (memory(container_id), pids(container_id)) == (str(48 * MIB), "20")
    assert box.ok("inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", "web") == f"{48 * MIB} 500000000"


def test_quota_reservation_and_memory_nodes(box: Box) -> None:
    container_id = box.start("web", "exec sleep 100", "--cpu-quota", "50000", "--memory-reservation", "32m")
    reservation = ("memory", "memory.soft_limit_in_bytes"), "memory.low"
    quota = ("cpu", "cpu.cfs_quota_us"), "cpu.max"
    assert value(container_id, *reservation) == str(32 * MIB)
    assert value(container_id, *quota).split()[0] == "50000"
    box.ok("update", "--cpu-period", "20000", "--cpu-quota", "10000", "--memory-reservation", "16m", "web")
    box.ok("update", "--cpuset-mems", "0", "web")
    assert value(container_id, *reservation) == str(16 * MIB)
    assert value(container_id, *quota).split()[0] == "10000"
    assert value(container_id, ("cpu", "cpu.cfs_period_us"), "cpu.max").split()[-1] == "20000"
    assert value(container_id, ("cpuset", "cpuset.mems"), "cpuset.mems") == "0"
    assert "can't be combined with --cpu-quota" in box.refused("update", "--cpus", "0.5", "web")
    form = "{{with .HostConfig}}{{.CpuPeriod}} {{.CpuQuota}} {{.MemoryReservation}} {{.CpusetMems}}{{end}}"
    assert box.ok("inspect", "-f", form, "web") == f"20000 10000 {16 * MIB} 0"
    box.ok("update", "--cpu-quota", "0", "--cpu-period", "0", "--memory-reservation", "0", "--cpuset-mems", "", "web")
    assert value(container_id, *quota).split()[0] in ("-1", "max")
    left = value(container_id, *reservation)
    assert left == "0" or int(left) > 1 << 60


def test_the_weight_of_block_io(box: Box) -> None:
    container_id = box.start("web", "exec sleep 100", "-m", "64m")

    def weights() -> set[str]:
        group = cgroup.find(cgroup.detect(), f"minibox-{container_id}")
        directory = Path(group.v1.get("blkio", group.v2))
        names = ("blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight")
        return {text for name in names if (directory / name).exists() for text in [(directory / name).read_text()]}

    done = box("update", "--blkio-weight", "500", "web")
    if done.returncode:  # a kernel without BFQ and io.cost, or without the controller
        assert done.returncode == 125 and ("block I/O" in done.stderr or "io controller" in done.stderr)
        return
    given = weights()
    assert given
    box.ok("update", "--blkio-weight", "0", "web")
    assert weights() != given
    box.ok("update", "--blkio-weight", "500", "web")
    assert weights() == given


def test_0_takes_a_limit_away(box: Box) -> None:
    container_id = box.start("web", "exec sleep 100", "-m", "64m", "--pids-limit", "5", "--cpus", "0.5",
                             "--cpuset-cpus", "0")  # fmt: skip
    box.ok("update", "-m", "0", "--pids-limit", "-1", "--cpus", "0", "--cpuset-cpus", "", "web")
    limit = memory(container_id)
    assert limit == "max" or int(limit) > 1 << 60
    assert pids(container_id) == "max"
    assert value(container_id, ("cpu", "cpu.cfs_quota_us"), "cpu.max").split()[0] in ("-1", "max")
    everything = set(os.sched_getaffinity(0))
    assert "0" != value(container_id, ("cpuset", "cpuset.cpus"), "cpuset.cpus") or everything == {0}


def test_less_than_is_used_is_refused_and_nobody_is_killed(box: Box) -> None:
    container_id = box.start("web", HOLD, "-m", "64m", "--memory-swap", "64m")
    box.until_logged("web", "ready")
    why = box.refused("update", "--pids-limit", "7", "-m", "10m", "--memory-swap", "10m", "web")
    assert "memory limit of 10485760 bytes" in why and "the container uses" in why
    assert memory(container_id) == str(64 * MIB)
    assert box.state("web")["Options"]["memory_bytes"] == 64 * MIB
    assert "pids_limit" not in box.state("web")["Options"], "all or nothing"
    assert box.state("web")["Status"] == "running" and box.ok("exec", "web", "echo", "alive") == "alive"


@pytest.mark.kernel
def test_a_new_limit_holds_for_those_that_run_already(box: Box) -> None:
    box.start("web", "exec 2>&1; while :; do sleep 0.05; test -e /go && (sleep 9 & sleep 9 & sleep 9 & sleep 9) ; done")
    box.ok("update", "--pids-limit", "4", "web")
    box.tell("web")
    box.until_logged("web", "fork")


def test_a_container_in_the_foreground_leaves_nothing_of_it(box: Box) -> None:
    from tests.running_container import running  # it runs until its standard input ends

    command = [str(Path(sys.executable).parent / "minibox")]
    environment = {"MINIBOX_ROOT": str(box.directory / "root"), "MINIBOX_RUNROOT": str(box.directory / "run"),
                   "PATH": os.environ["PATH"]}  # fmt: skip
    with running(command, environment, "--network", "none", "--name", "lab"):
        assert box.ok("update", "--pids-limit", "9", "lab") == "lab"
        container_id = box.ok("ps", "-q", "--no-trunc")
        assert pids(container_id) == "9"
    assert not cgroup.find(cgroup.detect(), f"minibox-{container_id}").directories


def test_what_makes_no_sense(box: Box) -> None:
    box.ok("create", "--network", "none", "--name", "web", "base", "true")
    assert "too small" in box.refused("update", "-m", "1k", "web")
    assert "nothing to change" in box.refused("update", "web")
    assert "restart policy" in box.refused("update", "--restart", "sometimes", "web")
    assert "there is no container" in box.refused("update", "-m", "64m", "nobody")
    box.ok("update", "-m", "64m", "--restart", "on-failure:3", "web")  # it doesn't run: for its next start
    assert box.state("web")["Options"]["restart"] == "on-failure:3"


@requires_user
def test_an_ordinary_users_container_may_have_no_cgroup(minibox_user: Run) -> None:
    assert minibox_user("run", "-d", "--network", "none", "--name", "web", "base", "sleep", "100").returncode == 0
    try:
        done = minibox_user("update", "-m", "64m", "web")
        # Where systemd or a delegated cgroup gives him one, it works.
        assert done.returncode == 0 or "has no cgroup" in done.stderr, done
        assert ("--cgroup-manager systemd" in done.stderr) == bool(done.returncode)
        assert minibox_user("update", "--restart", "always", "web").returncode == 0
    finally:
        minibox_user("rm", "-f", "web")
