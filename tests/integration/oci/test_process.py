"""The process of anybody's Spec on the real kernel, and its kernel settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from minibox.errors import StepError
from tests.bundles import Bundle
from tests.probes import requires

pytestmark = [requires("root")]


@pytest.fixture
def bundle(state: Path) -> Bundle:
    return Bundle(state / "bundle")


def said(bundle: Bundle, script: str, *, linux: Any = None, **process: Any) -> list[str]:
    spec = bundle.shell(script, **(linux or {}))
    spec["process"] |= process
    ended = bundle.run(spec)
    assert ended.status == 0, ended.output
    return ended.lines


def test_user_groups_and_umask(bundle: Bundle):
    user = {"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o27}
    assert said(bundle, "id -u; id -g; id -G; umask", user=user) == ["5", "6", "6 7 8", "0027"]
    assert said(bundle, "umask") == ["0022"]


def test_environment_arguments_and_directory(bundle: Bundle):
    (bundle.rootfs / "work").mkdir()
    assert said(bundle, "pwd; env", cwd="/work", env=["PATH=/bin", "A=b c"])[:1] == ["/work"]
    assert set(said(bundle, "exec env", env=["PATH=/bin", "A=b c"])) >= {"PATH=/bin", "A=b c"}
    assert said(bundle, "pwd", cwd="/made/here") == ["/made/here"]


def test_a_directory_that_leads_out_of_the_root_is_refused(bundle: Bundle):
    (bundle.rootfs / "proc").mkdir()
    (bundle.rootfs / "out").symlink_to("/proc/self/fd/9")
    spec = bundle.shell("pwd")
    spec["process"]["cwd"] = "/out"
    with pytest.raises(StepError, match="directory /out"):
        bundle.run(spec)


def test_limits(bundle: Bundle):
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
    ]
    assert said(bundle, "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc", rlimits=limits) == [
        "100",
        "200",
        "0",
        "unlimited",
    ]


def test_capabilities_of_all_five_sets(bundle: Bundle):
    names = ["CAP_KILL", "CAP_NET_RAW"]
    sets = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), names)
    lines = said(bundle, "grep Cap /proc/self/status", capabilities=sets, user={"uid": 5, "gid": 5})
    assert {line.split()[1] for line in lines} == {f"{1 << 5 | 1 << 13:016x}"}


def test_unknown_capabilities_are_left_out(bundle: Bundle):
    lines = said(bundle, "grep CapBnd /proc/self/status", capabilities={"bounding": ["CAP_KILL", "CAP_DREAM"]})
    assert lines[0].split()[1] == f"{1 << 5:016x}"


def test_new_privileges_and_oom_score(bundle: Bundle):
    script = "grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj"
    assert said(bundle, script, noNewPrivileges=True, oomScoreAdj=321) == ["NoNewPrivs:\t1", "321"]


@pytest.mark.parametrize(
    ("scheduler", "policy", "nice", "priority"),
    [
        ({"policy": "SCHED_OTHER", "nice": 5}, "0", "5", "0"),
        ({"policy": "SCHED_BATCH", "nice": -3}, "3", "-3", "0"),
        ({"policy": "SCHED_IDLE"}, "5", str(os.nice(0)), "0"),
        ({"policy": "SCHED_OTHER", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, "0", "1", "0"),
    ],
)
def test_scheduler(bundle: Bundle, scheduler: Any, policy: str, nice: str, priority: str):
    spec = bundle.spec("cut", "-d ", "-f19,40,41", "/proc/self/stat")
    spec["process"]["scheduler"] = scheduler
    assert bundle.run(spec).output.split() == [nice, priority, policy]


def test_real_time(bundle: Bundle):
    """Where the cgroup has real-time shares to give; else the kernel's refusal names the step."""
    spec = bundle.spec("cut", "-d ", "-f40,41", "/proc/self/stat")
    spec["process"]["scheduler"] = {"policy": "SCHED_FIFO", "priority": 7}
    try:
        assert bundle.run(spec).output.split() == ["7", "1"]
    except StepError as error:
        assert "scheduling policy" in str(error) and "EPERM" in str(error)


def test_io_priority(bundle: Bundle):
    spec = bundle.spec("busybox", "ionice", "-p", "1")
    spec["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    assert bundle.run(spec).output == "best-effort: prio 6\n"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="has another 32-bit name")
@pytest.mark.parametrize(("domain", "machine"), [("LINUX32", "i686"), ("LINUX", "x86_64")])
def test_personality(bundle: Bundle, domain: str, machine: str):
    assert said(bundle, "busybox uname -m", linux={"personality": {"domain": domain}}) == [machine]


@pytest.mark.skipif(not Path("/proc/self/numa_maps").exists(), reason="a kernel without NUMA")
def test_memory_policy(bundle: Bundle):
    policy = {"mode": "MPOL_BIND", "nodes": "0"}
    found = said(bundle, "busybox cut -d' ' -f2 /proc/self/numa_maps | busybox sort -u", linux={"memoryPolicy": policy})
    assert found == ["bind:0"]


def test_names_and_kernel_settings(bundle: Bundle):
    spec = bundle.shell("hostname; busybox dnsdomainname 2>&1; cat /proc/sys/kernel/domainname /proc/sys/kernel/msgmax")
    spec |= {"hostname": "box", "domainname": "example"}
    spec["linux"]["sysctl"] = {"kernel.msgmax": "12345"}
    lines = bundle.run(spec).lines
    assert lines[0] == "box" and lines[-2:] == ["example", "12345"]


def test_masked_and_readonly_paths(bundle: Bundle):
    (bundle.rootfs / "d").mkdir()
    for name in ("secret", "d/file", "fixed"):
        (bundle.rootfs / name).write_text("x\n")
    linux = {"maskedPaths": ["/secret", "/d", "/absent"], "readonlyPaths": ["/fixed", "/proc/sys", "/absent"]}
    lines = said(bundle, "cat /secret; ls /d; echo y 2>&1 > /fixed || echo refused; cat /fixed", linux=linux)
    assert lines[-2:] == ["refused", "x"] and "file" not in lines
