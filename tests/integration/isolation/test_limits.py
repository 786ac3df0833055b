"""Limits, as who sets them sees them: they hold, and an end that they cause is told as such."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.probes import requires

pytestmark = requires("root", "cgroup")

MIB = 1 << 20
GREEDY = "head -c 34m /dev/zero | tail -c 30m | wc -c"  # tail keeps it all in memory
both_users = pytest.mark.parametrize("user_options", [(), ("--userns", "host")], ids=["own ids", "host's ids"])


def run(minibox: Run, *words: str, **keywords: object) -> tuple[int, str, str]:
    done = minibox("run", "--network", "none", *words, **keywords)
    return done.returncode, done.stdout, done.stderr


def told(done: tuple[int, str, str]) -> list[str]:
    """What minibox itself said, in the memory's words."""
    return [line for line in done[2].splitlines() if line.startswith("minibox: the container ran out of memory")]


def cgroup_file(*names: str) -> str:
    """A shell's `cat` of the first of these files below /sys/fs/cgroup that is there: v1, or v2."""
    return "cat " + " ".join(f"/sys/fs/cgroup/{name}" for name in names) + " 2>/dev/null"


@pytest.mark.kernel
@both_users
@requires("cgroup:memory")
def test_out_of_memory_is_told(minibox: Run, user_options: tuple[str, ...]) -> None:
    done = run(
        minibox, "--rm", "-m", "20m", "--memory-swap", "20m", *user_options, "base", "tail", "-c", "190m", "/dev/zero"
    )
    assert done[0] == 137
    assert done[2] == f"minibox: the container ran out of memory: its limit is {20 * MIB} bytes (--memory)\n"


@pytest.mark.kernel
@requires("cgroup:memory")
def test_out_of_memory_of_a_process_inside(minibox: Run) -> None:
    done = run(
        minibox, "--name", "greedy", "-m", "20m", "--memory-swap", "20m", "base", "sh", "-c", f"{GREEDY}; echo on"
    )
    assert done[:2] == (0, "0\non\n")
    assert told(done) and told(done)[0].endswith("; the kernel killed one of its processes")
    (state,) = json.loads(minibox("ps", "--all", "--json").stdout)
    assert state["OOMKilled"] is True and state["ExitCode"] == 0
    assert minibox("rm", "greedy").returncode == 0


@requires("cgroup:memory")
def test_enough_memory_is_not_told(minibox: Run) -> None:
    assert run(minibox, "--rm", "-m", "200m", "base", "sh", "-c", GREEDY) == (0, f"{30 * MIB}\n", "")


@pytest.mark.kernel
@requires("cgroup:memory")
def test_memory_and_swap(minibox: Run) -> None:
    script = (
        cgroup_file("memory/memory.limit_in_bytes", "memory.max")
        + "; "
        + cgroup_file("memory/memory.memsw.limit_in_bytes", "memory.swap.max")
    )
    code, out, _ = run(minibox, "--rm", "-m", "32m", "--memory-swap", "48m", "base", "sh", "-c", script)
    numbers = [int(word) for word in out.split()]
    assert numbers[0] == 32 * MIB
    assert numbers[1:] in ([48 * MIB], [16 * MIB], [])  # v1 counts both together; a kernel may lack swap accounting


@pytest.mark.kernel
@both_users
@requires("cgroup:pids")
def test_a_fork_bomb_is_contained(minibox: Run, user_options: tuple[str, ...]) -> None:
    sleep = f"sleep {100_000 + os.getpid()}"  # which nobody else on this machine does, and nobody waits for
    bomb = f"n=0; while [ $n -lt 200 ]; do {sleep} & n=$((n+1)); done; echo survived"
    code, out, err = run(minibox, "--rm", "--pids-limit", "20", *user_options, "base", "sh", "-c", bomb)
    assert (code, out) != (0, "survived\n")
    assert "fork" in err
    assert not [pid for pid in filter(str.isdigit, os.listdir("/proc")) if _command_line(pid) == sleep]


def _command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


@pytest.mark.kernel
@requires("cgroup:cpu")
def test_cpus(minibox: Run) -> None:
    """A fifth of a CPU is about a fifth of the wall time as CPU time, and it has to wait for more again and again."""
    stat = cgroup_file("cpu/cpu.stat", "cpu.stat")
    work = (
        f"until {stat} | grep -qE 'nr_throttled [0-9]{{2}}'; do i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done; done"
    )
    script = f"cat /proc/uptime; {work}; cat /proc/uptime; times"
    code, out, err = run(minibox, "--rm", "--cpus", "0.2", "base", "sh", "-c", script)
    begin_s, end_s = (float(line.split()[0]) for line in out.splitlines()[:2])
    used_s = sum(int(minutes) * 60 + float(seconds) for minutes, seconds in re.findall(r"(\d+)m([\d.]+)s", out))
    assert 0 < used_s < 0.2 * (end_s - begin_s) + 0.2, (out, err)


@pytest.mark.kernel
@requires("cgroup:cpu")
def test_cpu_shares(minibox: Run) -> None:
    script = cgroup_file("cpu/cpu.shares", "cpu.weight")
    code, out, err = run(minibox, "--rm", "--cpu-shares", "512", "base", "sh", "-c", script)
    assert out in ("512\n", "20\n", "59\n"), err  # the two conversions to a weight that are in use


@pytest.mark.kernel
@requires("cgroup:cpuset")
def test_cpuset(minibox: Run) -> None:
    code, out, err = run(
        minibox, "--rm", "--cpuset-cpus", "0", "base", "grep", "Cpus_allowed_list", "/proc/self/status"
    )
    assert out == "Cpus_allowed_list:\t0\n", err


def test_ulimits(minibox: Run) -> None:
    words = ("--ulimit", "nofile=100:200", "--ulimit", "core=0", "base", "sh", "-c")
    script = "ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc"
    assert run(minibox, "--rm", *words, script) == (0, "100\n200\n0\n0\n", "")


def test_oom_score(minibox: Run) -> None:
    assert run(minibox, "--rm", "--oom-score-adj", "321", "base", "cat", "/proc/self/oom_score_adj")[1] == "321\n"


def test_shm_size(minibox: Run) -> None:
    code, out, err = run(minibox, "--rm", "--shm-size", "3m", "base", "df", "-k", "/dev/shm")
    assert out.splitlines()[-1].split()[1] == "3072", err


def test_sysctl(minibox: Run) -> None:
    # Not one of net.core: Linux 6.1 shows those to the host's user namespace only.
    words = ("--sysctl", "net.ipv4.tcp_syn_retries=4", "base", "cat", "/proc/sys/net/ipv4/tcp_syn_retries")
    assert run(minibox, "--rm", *words) == (0, "4\n", "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("-m", "1m"), "memory limit of 1048576 bytes is too small"),
        (("--cpus", "10000"), "10000 CPUs are out of range"),
        (("--cpuset-cpus", "4000"), "4000"),
        (("--memory-swap", "1g"), "--memory-swap needs a memory limit"),
        (("--ulimit", "nofile=9:1"), "the soft limit is above the hard limit"),
        (("--ulimit", "nofile=99999999999"), "nofile"),
        (("--cpu-shares", "1"), "invalid cpu shares 1"),
        (("--sysctl", "kernel.panic=1"), "kernel.panic"),
        (("--sysctl", "net.core.nothing=1"), "net.core.nothing"),
    ],
)
def test_what_can_not_be_given_is_said(minibox: Run, options: tuple[str, ...], says: str) -> None:
    code, out, err = run(minibox, "--rm", *options, "base", "true")
    assert (code, out) == (125, "")
    first, *rest = err.splitlines()
    assert first.startswith("minibox: ") and says in first.replace("/", "."), err
    assert all(line.startswith(("hint: ", "      ")) for line in rest), err
