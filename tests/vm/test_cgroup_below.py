"""A container whose processes are in cgroups below its own, as an init system's are: from then on none can be in its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.container_box import Box
from tests.leaks import CGROUP_ROOT
from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = requires("root", "cgroup:memory", "cgroup:pids")
MIB = 1 << 20
#: As systemd does on cgroup v2: itself into a cgroup below, and controllers for those that follow.
INIT = """
cd /sys/fs/cgroup
mkdir init.scope system.slice
echo 1 >init.scope/cgroup.procs
echo +memory +pids >cgroup.subtree_control
(echo 0 >system.slice/cgroup.procs; exec sleep 1000) &
echo ready
exec sleep 1000
"""


@pytest.fixture
def begun(box: Box) -> Path:
    """The cgroup of such a container, `cc`."""
    container_id = box.start("cc", INIT, "--privileged", "--memory", "64m")
    box.until_logged("cc", "ready")
    found = CGROUP_ROOT / f"minibox-{container_id}"
    assert (found / "cgroup.procs").read_text() == "" and (found / "cgroup.subtree_control").read_text().split()
    return found


def test_exec_is_where_the_first_process_is(box: Box, begun: Path) -> None:
    where = ("cat", "/proc/self/cgroup")
    assert box.ok("exec", "cc", *where) == "0::/init.scope"
    assert box.ok("exec", "-t", "cc", *where) == "0::/init.scope"
    box.ok("exec", "-d", "cc", "sh", "-c", "cat /proc/self/cgroup >/done; exec sleep 1000")
    box.until(lambda: box("exec", "cc", "cat", "/done").stdout == "0::/init.scope\n", "the detached one is there")
    assert box("exec", "cc", "sh", "-c", "exit 7").returncode == 7


def test_it_is_measured_paused_limited_and_killed_as_any(box: Box, begun: Path) -> None:
    (stats,) = json.loads(f"[{box.ok('stats', '--no-stream', '--format', '{{json .}}', 'cc')}]")
    assert int(stats["PIDs"]) == 2 and not stats["MemUsage"].startswith("0B")
    assert len(box.ok("top", "cc").splitlines()) == 3
    box.ok("pause", "cc")
    assert "frozen 1" in (begun / "system.slice/cgroup.events").read_text()
    assert "is paused" in box.refused("exec", "cc", "true")
    box.ok("unpause", "cc")
    box.ok("update", "--memory", "48m", "--memory-swap", "48m", "--pids-limit", "9", "cc")
    assert [(begun / file).read_text().strip() for file in ("memory.max", "pids.max")] == [str(48 * MIB), "9"]
    assert box.ok("exec", "cc", "echo", "still") == "still"
    box.ok("kill", "cc")
    box.until(lambda: not begun.exists(), "its cgroup is removed, with those below")


def test_one_that_runs_out_of_memory_below_is_told_so(box: Box) -> None:
    script = INIT.replace("exec sleep 1000\n", "tail /dev/zero; exit $?")
    words = ("run", "--rm", "--network", "none", "--privileged", "--memory", "32m", "--memory-swap", "32m", "base")
    done = box(*words, "sh", "-c", script)
    assert done.returncode == 137 and "ran out of memory" in done.stderr


def test_minibox_oci_exec(runtime: Runtime) -> None:
    spec = runtime.bundle.shell(INIT)
    spec["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), ["CAP_SYS_ADMIN"])
    spec["linux"]["namespaces"].append({"type": "cgroup"})
    spec["mounts"] += [
        {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
    ]
    runtime.create("c1", spec)
    runtime.ok("start", "c1")
    runtime.until_written("c1", "ready")
    assert runtime.ok("exec", "c1", "cat", "/proc/self/cgroup") == "0::/init.scope\n"
    assert runtime.ok("exec", "--cgroup", "/system.slice", "c1", "cat", "/proc/self/cgroup") == "0::/system.slice\n"
    said = runtime.error("exec", "--cgroup", "/", "c1", "true", status=255)
    assert "start a process in the cgroup /sys/fs/cgroup/" in said and "Device or resource busy" in said
    runtime.ok("pause", "c1")
    runtime.ok("resume", "c1")
    runtime.ok("kill", "c1", "KILL")
    runtime.wait_for("c1", "stopped")
    runtime.ok("delete", "c1")
