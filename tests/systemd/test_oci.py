"""`minibox-oci --systemd-cgroup`: the scope is the container's own cgroup, as engines with systemd's driver expect it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.oci_runtime import COMMAND, Runtime
from tests.probes import requires
from tests.systemd.test_scopes import CGROUPS, MIB, ROOT, nothing_left, scopes, systemctl, wait_until

__all__ = ["nothing_left"]

pytestmark = requires("cgroup:memory", "cgroup:pids", "cgroup:cpu", "command:systemctl", "command:busybox")

SLICE = "machine.slice" if ROOT else "app.slice"
LIMITS = {
    "memory": {"limit": 32 * MIB, "swap": 48 * MIB},
    "pids": {"limit": 9},
    "cpu": {"quota": 50000, "period": 100000, "shares": 512},
}


@pytest.fixture
def runtime(state: Path, minibox: Run) -> Iterator[Runtime]:
    runtime = Runtime(state, [COMMAND, "--systemd-cgroup"])
    yield runtime
    left = runtime.left()
    runtime.remove_all()
    assert left == []


def spec_of(
    runtime: Runtime, script: str = "sleep 1000 & wait", path: str = f"{SLICE}:minibox:c1", **linux: Any
) -> Any:
    spec = runtime.bundle.shell(script, cgroupsPath=path, **linux)
    spec["linux"]["namespaces"].append({"type": "cgroup"})
    spec["mounts"] += [
        {"destination": "/sys", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ]
    if not ROOT:
        spec["linux"]["namespaces"].append({"type": "user"})
        for kind, own in (("uid", os.geteuid()), ("gid", os.getegid())):
            spec["linux"][f"{kind}Mappings"] = [{"containerID": 0, "hostID": own, "size": 1}]
    return spec


def cgroup_of(runtime: Runtime, container_id: str = "c1") -> Path:
    (line,) = Path(f"/proc/{runtime.state(container_id)['pid']}/cgroup").read_text().splitlines()
    return CGROUPS / line.removeprefix("0::/")


def shown(unit: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in systemctl("show", unit).splitlines())


def test_the_scope_has_the_limits_and_goes_with_the_container(runtime: Runtime) -> None:
    script = "cd /sys/fs/cgroup; echo $(cat memory.max memory.swap.max pids.max cpu.max /proc/self/cgroup); sleep 1000"
    runtime.create("c1", spec_of(runtime, script, resources=LIMITS))
    assert scopes() == ["minibox-c1.scope"]
    assert cgroup_of(runtime).name == "minibox-c1.scope" and cgroup_of(runtime).parent.name == SLICE
    unit = shown("minibox-c1.scope")
    assert {name: unit[name] for name in ("MemoryMax", "MemorySwapMax", "TasksMax", "CPUQuotaPerSecUSec")} == {
        "MemoryMax": str(32 * MIB), "MemorySwapMax": str(16 * MIB), "TasksMax": "9", "CPUQuotaPerSecUSec": "500ms",
    }  # fmt: skip
    assert (unit["Slice"], unit["Delegate"]) == (SLICE, "yes")
    runtime.ok("start", "c1")
    wait_until(lambda: runtime.output("c1").read_text().endswith("\n"))
    assert runtime.output("c1").read_text() == f"{32 * MIB} {16 * MIB} 9 50000 100000 0::/\n"
    runtime.ok("delete", "--force", "c1")
    wait_until(lambda: not scopes())


def test_without_a_path_it_is_named_after_the_container(runtime: Runtime) -> None:
    runtime.create("c1", spec_of(runtime, path=""))
    assert cgroup_of(runtime).name == "minibox-c1.scope"
    assert shown("minibox-c1.scope")["Slice"] == ("system.slice" if ROOT else "user.slice")
    runtime.ok("delete", "c1")


def test_its_life(runtime: Runtime) -> None:
    runtime.create("c1", spec_of(runtime))
    runtime.ok("start", "c1")
    assert runtime.ok("exec", "c1", "cat", "/proc/self/cgroup") == "0::/\n"
    runtime.ok("pause", "c1")
    assert runtime.state("c1")["status"] == "paused"
    runtime.ok("resume", "c1")
    runtime.ok("kill", "c1", "KILL")
    runtime.wait_for("c1", "stopped")
    runtime.ok("delete", "c1")


def test_limits_change_and_stay_when_systemd_reads_its_units_anew(runtime: Runtime) -> None:
    runtime.create("c1", spec_of(runtime, resources=LIMITS))
    runtime.ok("update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "7", "--cpu-quota", "25000", "c1")
    systemctl("daemon-reload")
    read = {file: (cgroup_of(runtime) / file).read_text().strip() for file in ("memory.max", "pids.max", "cpu.max")}
    assert read == {"memory.max": str(64 * MIB), "pids.max": "7", "cpu.max": "25000 100000"}
    assert shown("minibox-c1.scope")["TasksMax"] == "7"
    runtime.ok("delete", "c1")


@pytest.mark.skipif(not ROOT, reason="an ordinary user has no rules for devices")
def test_device_rules_hold_when_systemd_reads_its_units_anew(runtime: Runtime) -> None:
    devices = [{"path": "/dev/x", "type": "b", "major": 7, "minor": 200}]
    rules = {"devices": [{"allow": False, "access": "rwm"}]}
    runtime.create("c1", spec_of(runtime, resources=rules, devices=devices))
    runtime.ok("start", "c1")
    for _ in range(2):
        assert runtime.run("exec", "c1", "head", "-c", "1", "/dev/zero").returncode == 0
        assert "Operation not permitted" in runtime.run("exec", "c1", "cat", "/dev/x").stderr
        systemctl("daemon-reload")
    runtime.ok("delete", "--force", "c1")


def test_nothing_stays_of_one_that_cannot_be(runtime: Runtime) -> None:
    spec = spec_of(runtime)
    spec["process"]["args"] = ["/no/such"]
    runtime.write(spec)
    assert "/no/such" in runtime.error("create", "-b", str(runtime.bundle.path), "c1")
    runtime.write(spec_of(runtime, path="/another/form"))
    assert "slice:prefix:name" in runtime.error("create", "-b", str(runtime.bundle.path), "c1")
    wait_until(lambda: not scopes())


def test_a_scope_that_is_there_is_not_taken(runtime: Runtime) -> None:
    runtime.create("c1", spec_of(runtime))
    runtime.write(spec_of(runtime))
    assert "minibox-c1.scope" in runtime.error("create", "-b", str(runtime.bundle.path), "c2")
    assert runtime.state("c1")["status"] == "created"
    runtime.ok("delete", "c1")


def test_run_in_the_foreground(runtime: Runtime) -> None:
    runtime.write(spec_of(runtime, "cat /proc/self/cgroup; exit 4"))
    done = runtime.run("run", "-b", str(runtime.bundle.path), "c1")
    assert (done.returncode, done.stdout) == (4, "0::/\n"), done.stderr
    wait_until(lambda: not scopes())


@pytest.mark.skipif(not ROOT, reason="what an ordinary user has is his anyway")
@pytest.mark.parametrize("driver", ["systemd", "cgroupfs"])
def test_a_cgroup_that_is_seen_read_write_is_its_users(runtime: Runtime, driver: str) -> None:
    """Who may have cgroups of his own in it, and no other limits."""
    if driver == "cgroupfs":
        runtime = Runtime(runtime.directory / driver)
    script = "cd /sys/fs/cgroup; mkdir sub; echo 0 > sub/cgroup.procs; cat /proc/self/cgroup; echo max > memory.max"
    path = f"{SLICE}:minibox:c1" if driver == "systemd" else "/minibox-c1"
    spec = runtime.bundle.with_ids(spec_of(runtime, f"({script}) 2>&1", path, resources=LIMITS))
    spec["mounts"][-1]["options"] = []
    runtime.write(spec)
    done = runtime.run("run", "-b", str(runtime.bundle.path), "c1")
    assert done.returncode == 1 and done.stderr == ""
    assert done.stdout.splitlines()[0] == "0::/sub" and "Permission denied" in done.stdout
    spec["mounts"][-1]["options"] = ["ro"]
    runtime.write(spec)
    assert "Read-only file system" in runtime.run("run", "-b", str(runtime.bundle.path), "c1").stdout
