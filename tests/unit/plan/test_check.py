"""What a Spec may not say, and in which words it is refused; and what its scheduling compiles to."""

from __future__ import annotations

from typing import Any

import pytest

from minibox.errors import ConfigError
from minibox.plan import operations as op
from minibox.plan.compiler import compile_plan
from minibox.plan.exec import Joined, compile_exec
from minibox.plan.rootfs import Rootfs
from minibox.plan.scheduling import ATTRIBUTES
from minibox.plan.start import Start

ALL = [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network")]


def spec(*, process: Any = None, linux: Any = None) -> Any:
    return {
        "ociVersion": "1.2.0",
        "process": {"cwd": "/", "args": ["/bin/true"]} | (process or {}),
        "root": {"path": "/b/rootfs"},
        "linux": {"namespaces": ALL} | (linux or {}),
    }


@pytest.mark.parametrize(
    ("process", "says"),
    [
        ({"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2}, "process.rlimits contains RLIMIT_CPU twice"),
        ({"oomScoreAdj": 1001}, "process.oomScoreAdj 1001 is not from -1000 to 1000"),
        ({"rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}, "unknown limit 'RLIMIT_X'"),
        ({"scheduler": {"policy": "SCHED_X"}}, "unknown process.scheduler.policy 'SCHED_X'"),
        ({"scheduler": {"policy": "SCHED_RR", "flags": ["X"]}}, "unknown flag 'X' of process.scheduler"),
        ({"scheduler": {"policy": "SCHED_OTHER", "nice": 20}}, "nice 20"),
        ({"scheduler": {"policy": "SCHED_DEADLINE", "runtime": -1}}, "a time of -1 ns"),
        ({"ioPriority": {"class": "X"}}, "unknown class 'X' of process.ioPriority"),
        ({"ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 8}}, "process.ioPriority.priority 8"),
    ],
)
def test_processes_that_are_refused(process: Any, says: str):
    with pytest.raises(ConfigError, match=says):
        compile_plan(spec(process=process), Rootfs(path="/b/rootfs"), Start())


@pytest.mark.parametrize(
    ("linux", "says"),
    [
        ({"mountLabel": 'a:b:"c'}, "linux.mountLabel 'a:b:\"c' contains a quotation mark"),
        ({"intelRdt": {"closID": "x"}}, "linux.intelRdt: minibox doesn't support resctrl"),
        ({"intelRdt": {}}, "linux.intelRdt: minibox doesn't support resctrl"),
        ({"personality": {"domain": "BSD"}}, "unknown linux.personality.domain 'BSD'"),
        ({"personality": {"domain": "LINUX", "flags": ["X"]}}, "linux.personality.flags contains 'X'"),
        ({"maskedPaths": ["proc"]}, "linux.maskedPaths has 'proc', which is not absolute"),
        ({"readonlyPaths": ["proc"]}, "linux.readonlyPaths has 'proc', which is not absolute"),
        ({"sysctl": {"vm.swappiness": "1"}}, "vm.swappiness belongs to no namespace"),
        ({"sysctl": {"kernel.hostname": "x"}}, "kernel.hostname belongs to no namespace"),
        ({"sysctl": {"net.ipv4.ip_forward": "1"}, "namespaces": ALL[:4]}, "needs a network namespace"),
        ({"sysctl": {"kernel/shmmax": "1"}, "namespaces": ALL[:1]}, "needs a ipc namespace"),
        ({"devices": [{"path": "/dev/x", "type": "z"}]}, "unknown type 'z' of the device /dev/x"),
        ({"devices": [{"path": "/dev/x", "type": "c", "major": 1}]}, "the device /dev/x has no major and minor number"),
        ({"netDevices": {"eth5": {}}, "namespaces": ALL[:1]}, "linux.netDevices needs a network namespace"),
        ({"rootfsPropagation": "sideways"}, "unknown rootfsPropagation 'sideways'"),
    ],
)
def test_what_is_refused_of_linux(linux: Any, says: str):
    with pytest.raises(ConfigError, match=says):
        compile_plan(spec(linux=linux), Rootfs(path="/b/rootfs"), Start())


def test_scheduling():
    from struct import pack

    process = {
        "scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RECLAIM"], "runtime": 1, "deadline": 2, "period": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
    }  # fmt: skip
    plan = compile_plan(spec(process=process, linux={"personality": {"domain": "LINUX32"}}), Rootfs(path="/b"), Start())
    found = {step.name: step.args for step in plan.of(op.INIT)}
    assert found["scheduler"] == (pack(ATTRIBUTES, 48, 6, 2, 0, 0, 1, 2, 3),)
    assert found["io_priority"] == (3 << 13,)
    assert found["personality"] == (8,)


@pytest.mark.parametrize(
    ("policy", "args"),
    [
        ({"mode": "MPOL_DEFAULT"}, (0, b"")),
        ({"mode": "MPOL_BIND", "nodes": "0-1,64"}, (2, (1 << 64 | 3).to_bytes(16, "little"))),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, (0x8003, b"\x01" + bytes(7))),
    ],
)
def test_a_memory_policy(policy: Any, args: Any):
    plan = compile_plan(spec(linux={"memoryPolicy": policy}), Rootfs(path="/b"), Start())
    assert [step.args for step in plan.of(op.INIT) if step.name == "memory_policy"] == [args]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"mode": "MPOL_WISH"}, "unknown mode 'MPOL_WISH'"),
        ({"mode": "MPOL_BIND", "flags": ["X"]}, "unknown flag 'X'"),
        ({"mode": "MPOL_BIND", "nodes": "1-0"}, "'1-0' is not a list of memory nodes"),
        ({"mode": "MPOL_BIND", "nodes": "1024"}, "is not a list of memory nodes"),
    ],
)
def test_memory_policies_that_mean_nothing(policy: Any, says: str):
    with pytest.raises(ConfigError, match=says):
        compile_plan(spec(linux={"memoryPolicy": policy}), Rootfs(path="/b"), Start())


def test_processors_of_an_exec():
    process: Any = {"cwd": "/", "args": ["a"], "execCPUAffinity": {"initial": "0-1", "final": "64,2"}}
    steps = [(step.name, *step.args) for step in compile_exec(process, Joined(0), Start(cgroups=("memory:/a",))).ops]
    at = steps.index(("write_fd", op.FIRST_CGROUP, b"0"))
    assert steps[at - 1] == ("cpu_affinity", (3).to_bytes(8, "little"))
    assert steps[at + 1] == ("cpu_affinity", (1 << 64 | 4).to_bytes(16, "little"))
    process["execCPUAffinity"] = {"final": "3-1"}
    with pytest.raises(ConfigError, match="process.execCPUAffinity.final '3-1' is not a list of CPUs"):
        compile_exec(process, Joined(0), Start())
