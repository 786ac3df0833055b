"""Options of `docker run` that set something in the kernel or in the records: read where it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from minibox.linux.cgroup import detect
from tests.container_box import Box
from tests.probes import requires_root
from tests.registries import FakeRegistry
from tests.registry_pulls import MADE, registry

__all__ = ["registry"]

pytestmark = requires_root

SLEEP = ("--network", "none", "base", "sleep", "1000")


def running(box: Box, *options: str) -> dict[str, Any]:
    """Run a container called ``it``; what inspect tells of it."""
    box.ok("run", "-d", "--name", "it", *options, *SLEEP)
    found: dict[str, Any] = json.loads(box.ok("inspect", "it"))[0]
    return found


def setting(found: dict[str, Any], controller: str, v1: str, v2: str) -> str:
    """What a file of its cgroup has, v1's or v2's."""
    host = detect()
    parent, name = (host.v1[controller], v1) if controller in host.v1 else (host.v2_parent, v2)
    return Path(parent, f"minibox-{found['Id']}", name).read_text()


@pytest.fixture
def disk() -> tuple[str, str]:
    """The path of a disk and its numbers."""
    for each in sorted(Path("/sys/block").iterdir()):
        path, number = Path("/dev", each.name), (each / "dev").read_text().strip()
        if path.exists() and int((each / "size").read_text()):
            return str(path), number
    pytest.skip("there is no disk")


def test_limits_for_single_disks(box: Box, disk: tuple[str, str]) -> None:
    path, number = disk
    words = ("--device-read-bps", f"{path}:1mb", "--device-write-bps", f"{path}:2mb",
             "--device-read-iops", f"{path}:300", "--device-write-iops", f"{path}:400")  # fmt: skip
    found = running(box, *words)
    if "blkio" in detect().v1:
        names = {"read_bps": 1 << 20, "write_bps": 2 << 20, "read_iops": 300, "write_iops": 400}
        for name, rate in names.items():
            assert setting(found, "blkio", f"blkio.throttle.{name}_device", "") == f"{number} {rate}\n"
    else:
        assert setting(found, "io", "", "io.max") == f"{number} rbps=1048576 wbps=2097152 riops=300 wiops=400\n"
    config = found["HostConfig"]
    assert config["BlkioDeviceReadBps"] == [{"Path": path, "Rate": 1 << 20}]
    assert config["BlkioDeviceWriteIOps"] == [{"Path": path, "Rate": 400}]


@pytest.mark.parametrize(
    ("option", "word", "said"),
    [
        ("--device-read-bps", "/dev/no-such-disk:1mb", "can't look up disk '/dev/no-such-disk'"),
        ("--device-read-bps", "/dev/null:1mb", "/dev/null is not a disk"),
        ("--device-write-bps", "sda:1mb", "invalid device limit"),
        ("--device-write-iops", "/dev/sda:1mb", "'1mb' is not a number"),
        ("--blkio-weight-device", "/dev/sda:5", "from 10 to 1000"),
        ("--device-cgroup-rule", "c 1:3", "invalid device cgroup rule"),
        ("--device-cgroup-rule", "c 1:3 rx", "invalid device cgroup rule"),
        ("--annotation", "=x", "invalid label"),
        ("--domainname", "a" * 65, "at most 64"),
        ("--label-file", "/no/such/file", "read label file '/no/such/file': No such file or directory"),
    ],
)
def test_wrong_words(box: Box, option: str, word: str, said: str) -> None:
    done = box("run", "--rm", option, word, *SLEEP)
    assert done.returncode == 125 and said in done.stderr, done


def test_a_rule_allows_a_device_by_its_number(box: Box) -> None:
    """/dev/kmsg, which no container may open otherwise, even where it may make it."""
    script = "mknod /kmsg c 1 11 && exec 3</kmsg && echo opened"
    plain = ("run", "--rm", "--userns", "host", "--network", "none", "--cap-add", "SYSLOG")
    assert "opened" not in box(*plain, "base", "sh", "-c", script).stdout
    assert box.ok(*plain, "--device-cgroup-rule", "c 1:11 r", "base", "sh", "-c", script) == "opened"
    assert box.ok(*plain, "--device-cgroup-rule", "c *:* rwm", "base", "sh", "-c", script) == "opened"


def test_limits_that_only_v1_has(box: Box) -> None:
    """Set where the kernel has them; else a warning, as in Docker, and the container runs."""
    words = ("--memory-swappiness", "7", "--oom-kill-disable", "--memory", "64m", "--kernel-memory", "50m")
    done = box("run", "-d", "--name", "it", *words, *SLEEP)
    assert done.returncode == 0, done
    assert "this host can't do a limit of kernel memory: --kernel-memory has no effect" in done.stderr
    found = json.loads(box.ok("inspect", "it"))[0]
    assert found["HostConfig"]["MemorySwappiness"] == 7 and found["HostConfig"]["OomKillDisable"] is True
    if "memory" in detect().v1:
        assert setting(found, "memory", "memory.swappiness", "") == "7\n"
        assert "oom_kill_disable 1" in setting(found, "memory", "memory.oom_control", "")
        assert done.stderr.count("has no effect") == 1
    else:
        assert "--memory-swappiness has no effect" in done.stderr and "--oom-kill-disable has no effect" in done.stderr


def test_a_warning_where_only_the_host_is_left_to_be_killed(box: Box) -> None:
    done = box("run", "--rm", "--oom-kill-disable", "--network", "none", "base", "true")
    assert done.returncode == 0 and "--oom-kill-disable" in done.stderr


def test_time_of_real_time_processes(box: Box) -> None:
    """A group below gets none that its parent doesn't have: what the kernel says is said."""
    done = box("run", "--rm", "--cpu-rt-period", "1000000", "--cpu-rt-runtime", "1000", *SLEEP[:-2], "true")
    v1 = detect().v1
    if "cpu" in v1 and os.path.exists(f"{v1['cpu']}/cpu.rt_runtime_us"):
        assert done.returncode == 0 or "real-time CPU limit" in done.stderr, done
    else:
        assert done.returncode == 0 and "--cpu-rt-runtime has no effect" in done.stderr, done
    wrong = box("run", "--rm", "--cpu-rt-period", "1000", "--cpu-rt-runtime", "2000", *SLEEP)
    assert wrong.returncode == 125 and "more than the period" in wrong.stderr


def test_names_of_the_host(box: Box) -> None:
    script = "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname"
    words = ("run", "--rm", "--network", "none")
    own = box.ok(*words, "--hostname", "one", "--domainname", "example", "base", "sh", "-c", script)
    assert own.split() == ["one", "example"]
    hosts = [Path(f"/proc/sys/kernel/{name}").read_text().strip() for name in ("hostname", "domainname")]
    assert box.ok(*words, "--uts", "host", "base", "sh", "-c", script).split("\n") == hosts
    change = box(*words, "--uts", "host", "base", "hostname", "mine")
    assert change.returncode and Path("/proc/sys/kernel/hostname").read_text().strip() == hosts[0]
    for option in ("--hostname", "--domainname"):
        done = box(*words, "--uts", "host", option, "x", "base", "true")
        assert done.returncode == 125 and f"{option} and --uts host exclude each other" in done.stderr


def test_a_restart_and_an_exec_share_the_hosts_names(box: Box) -> None:
    running(box, "--uts", "host")
    name = os.uname().nodename
    assert box.ok("exec", "it", "hostname") == name
    box.ok("restart", "-t", "0", "it")
    assert box.ok("exec", "it", "hostname") == name


def test_labels_from_files_and_annotations(box: Box, state: Path) -> None:
    (state / "labels").write_text("# a comment\n\n  one=1\ntwo=from the file\nbare\n")
    found = running(
        box, "--label-file", str(state / "labels"), "--label", "two=from the line", "--annotation", "org.x=y"
    )
    ours = {name: value for name, value in found["Config"]["Labels"].items() if "." not in name}
    assert ours == {"one": "1", "two": "from the line", "bare": ""}
    assert found["HostConfig"]["Annotations"] == {"org.x": "y"}
    assert box.ok("ps", "-q", "--filter", "label=one=1")
    assert not box.ok("ps", "-q", "--filter", "label=org.x"), "an annotation is no label"


def test_version_by_a_template(box: Box) -> None:
    version = box.ok("version", "--format", "{{.Server.Version}}")
    assert version and version == box.ok("version", "-f", "{{.Client.Version}}")
    document = json.loads(box.ok("version", "-f", "json"))
    assert document["Server"]["KernelVersion"] == os.uname().release


def test_there_are_no_links_to_remove(box: Box) -> None:
    done = box("rm", "--link", "web/db")
    assert done.returncode == 125 and "there are no links" in done.stderr


def test_a_quiet_pull(registry: FakeRegistry, box: Box) -> None:
    registry.add(MADE, "1", "latest")
    loud = box("create", f"{registry.host}/app:latest", "true")
    assert loud.returncode == 0 and "Pulling from app" in loud.stderr, loud
    quiet = box("create", "--quiet", f"{registry.host}/app:1", "true")
    assert quiet.returncode == 0 and quiet.stderr == "", quiet
