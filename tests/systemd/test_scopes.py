"""A container's cgroup by systemd: what was asked for holds, systemd knows of it, and nothing stays.

Whoever runs these tests is in a login session. An ordinary user gets this without asking for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.leaks import SLOWNESS
from tests.probes import requires
from tests.running_container import running

pytestmark = requires("cgroup:memory", "cgroup:pids", "cgroup:cpu", "command:systemctl")

MIB = 1 << 20
ROOT = os.geteuid() == 0
SYSTEMD = ("--cgroup-manager", "systemd")
RUN = ("run", "--rm", "--network", "none", *(SYSTEMD if ROOT else ()))
SLICE = "machine.slice" if ROOT else "app.slice"
MANAGER = [] if ROOT else ["--user"]
CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    wait_until(lambda: not scopes() and not list(CGROUPS.rglob("minibox-*")))


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10 * SLOWNESS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def systemctl(*words: str) -> str:
    environment = {**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}"}
    done = subprocess.run(
        ["systemctl", *MANAGER, *words], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def scopes() -> list[str]:
    return [unit["unit"] for unit in json.loads(systemctl("list-units", "--all", "--output=json", "minibox-*"))]


def test_limits_hold_and_systemd_knows_of_them(minibox_command: list[str], environment: dict[str, str]) -> None:
    limits = ("--memory", "32m", "--memory-swap", "48m", "--pids-limit", "9", "--cpus", "0.5", "--cpu-shares", "512")
    script = "cd /sys/fs/cgroup; echo $(cat memory.max memory.swap.max pids.max cpu.max cpu.weight /proc/self/cgroup)"
    with running(minibox_command, environment, *RUN[2:], *limits, script=script) as box:
        assert box.first_line == f"{32 * MIB} {16 * MIB} 9 50000 100000 59 0::/\n"
        (unit,) = scopes()
        shown = dict(line.split("=", 1) for line in systemctl("show", unit).splitlines())
    assert {name: shown[name] for name in ("MemoryMax", "MemorySwapMax", "TasksMax", "CPUWeight")} == {
        "MemoryMax": str(32 * MIB), "MemorySwapMax": str(16 * MIB), "TasksMax": "10", "CPUWeight": "59",
    }  # fmt: skip
    assert (shown["CPUQuotaPerSecUSec"], shown["Slice"], shown["Delegate"]) == ("500ms", SLICE, "yes")


def test_limits_change_while_it_runs(minibox: Run, minibox_command: list[str], environment: dict[str, str]) -> None:
    limits = ("--memory", "32m", "--memory-swap", "32m", "--name", "lab")
    changes = ("--memory", "64m", "--memory-swap", "64m", "--pids-limit", "7", "--cpus", "0.25")
    with running(minibox_command, environment, *RUN[2:], *limits):
        done = minibox("update", *changes, "lab")
        assert (done.returncode, done.stderr) == (0, ""), done
        (unit,) = scopes()
        shown = dict(line.split("=", 1) for line in systemctl("show", unit).splitlines())
        (group,) = (path for path in CGROUPS.rglob("minibox-*") if path.suffix != ".scope")
        written = {file: (group / file).read_text().strip() for file in ("memory.max", "pids.max", "cpu.max")}
        assert minibox("stats", "--no-stream", "--format", "{{.MemUsage}}").stdout.endswith("/ 64MiB\n")
        for command in ("pause", "unpause"):
            assert minibox(command, "lab").returncode == 0, command
        minibox("update", "--cpus", "0", "--pids-limit", "-1", "lab")
        assert (group / "cpu.max").read_text().startswith("max") and (group / "pids.max").read_text() == "max\n"
        assert "CPUQuotaPerSecUSec=infinity" in systemctl("show", unit).splitlines()
    assert (shown["MemoryMax"], shown["TasksMax"], shown["CPUQuotaPerSecUSec"]) == (str(64 * MIB), "8", "250ms")
    assert written == {"memory.max": str(64 * MIB), "pids.max": "7", "cpu.max": "25000 100000"}


def test_out_of_memory_is_told(minibox: Run) -> None:
    done = minibox(*RUN, "--memory", "20m", "--memory-swap", "20m", "base", "tail", "-c", "190m", "/dev/zero")
    assert done.returncode == 137
    assert done.stderr == f"minibox: the container ran out of memory: its limit is {20 * MIB} bytes (--memory)\n"


def holders() -> list[str]:
    return [pid for path in CGROUPS.rglob("holder/cgroup.procs") for pid in path.read_text().split()]


def test_the_scope_of_a_detached_container_is_held_until_its_end(minibox: Run) -> None:
    started = minibox("run", "-d", "--name", "web", "--memory", "32m", *RUN[2:], "base", "sleep", "1000")
    assert started.returncode == 0, started.stderr
    assert len(scopes()) == len(holders()) == 1
    seen = minibox("exec", "web", "cat", "/sys/fs/cgroup/memory.max", "/proc/self/cgroup")
    assert seen.stdout == f"{32 * MIB}\n0::/\n", seen.stderr
    restarted = minibox("restart", "-t", "0", "web")
    assert restarted.returncode == 0, restarted.stderr
    assert len(scopes()) == len(holders()) == 1
    assert minibox("rm", "-f", "web").returncode == 0
    wait_until(lambda: not holders())


def test_a_command_in_a_sandbox_is_under_its_limits(environment: dict[str, str]) -> None:
    program = """if True:
        import minibox
        with minibox.Sandbox("base", memory="32m") as box:
            command = ["cat", "/sys/fs/cgroup/memory.max", "/proc/self/cgroup"]
            print(box.run(command, capture_output=True, text=True, check=True).stdout, end="")
    """
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == f"{32 * MIB}\n0::/\n", done.stderr


def test_out_of_memory_is_told_of_a_detached_container(minibox: Run) -> None:
    limits = ("--memory", "20m", "--memory-swap", "20m")
    command = ("base", "tail", "-c", "190m", "/dev/zero")
    assert minibox("run", "-d", "--name", "web", *limits, *RUN[2:], *command).returncode == 0
    assert minibox("wait", "web").stdout == "137\n"
    assert minibox("inspect", "-f", "{{.State.OOMKilled}}", "web").stdout == "true\n"
    wait_until(lambda: not holders())
    assert minibox("rm", "web").returncode == 0


def test_a_fork_bomb_is_contained(minibox: Run) -> None:
    bomb = "n=0; while [ $n -lt 100 ]; do sleep 20 & n=$((n+1)); done; echo survived"
    done = minibox(*RUN, "--pids-limit", "10", "base", "sh", "-c", bomb)
    assert (done.returncode, done.stdout) != (0, "survived\n")
    assert "fork" in done.stderr


def test_limits_stay_when_systemd_reads_its_units_anew(minibox_command: list[str], environment: dict[str, str]) -> None:
    script = "cat /sys/fs/cgroup/cpu.max; read line; cat /sys/fs/cgroup/cpu.max"
    with running(minibox_command, environment, *RUN[2:], "--cpus", "0.5", script=script) as box:
        systemctl("daemon-reload")
        assert box.process.stdin and box.process.stdout
        box.process.stdin.write("\n")
        box.process.stdin.flush()
        assert box.process.stdout.readline() == box.first_line == "50000 100000\n"


def test_nothing_stays_of_a_killed_minibox(
    minibox: Run, minibox_command: list[str], environment: dict[str, str]
) -> None:
    with running(minibox_command, environment, *RUN[2:], "--memory", "32m") as box:
        assert scopes()
        box.process.kill()
        box.process.wait()
    wait_until(lambda: not scopes())
    assert minibox(*RUN, "base", "true").returncode == 0


def test_an_error_of_systemds_is_told_and_nothing_started(minibox: Run) -> None:
    done = minibox(*RUN, "--memory", "32m", "--cpuset-cpus", "0-4095", "base", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("minibox: set of CPUs: ")


def test_explain_shows_the_command(minibox: Run) -> None:
    done = minibox("explain", *RUN, "--memory", "32m", "base", "true")
    assert "systemd-run --scope --unit=minibox-" in done.stdout
    assert "-p MemoryMax=33554432" in done.stdout


@pytest.mark.skipif(ROOT, reason="root may make cgroups where he wants")
def test_without_systemd_an_ordinary_user_is_refused_a_limit(minibox: Run) -> None:
    done = minibox(*RUN, "--cgroup-manager", "cgroupfs", "--memory", "32m", "base", "true")
    assert done.returncode == 125
    assert "no cgroup is delegated to this user" in done.stderr
    assert "cgroups" in minibox("doctor").stdout


@pytest.mark.skipif(not ROOT, reason="an ordinary user has no other")
def test_root_is_quicker_by_himself_and_so_he_is_by_default(minibox: Run) -> None:
    done = minibox("run", "--rm", "--network", "none", "--memory", "32m", "base", "sh", "-c", "sleep 1 & wait")
    assert done.returncode == 0
    assert "systemd" not in minibox("explain", "run", "--memory", "32m", "base", "true").stdout
