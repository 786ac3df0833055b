"""Cgroups where OCI bundles want them, on the real kernel."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minibox.errors import LimitError, MiniboxError
from minibox.linux.cgroup import Cgroup, creation, detect
from minibox.linux.cgroup.group import of_paths
from minibox.linux.cgroup.path import Place, find_place, give, place_of, place_steps
from minibox.linux.cgroup.statistics import statistics
from minibox.linux.cgroup.update import change
from tests.probes import requires

pytestmark = [requires("root", "cgroup"), pytest.mark.kernel]
MIB = 1 << 20
Make = Callable[..., Cgroup]


@pytest.fixture
def top() -> Iterator[str]:
    """A cgroup path of the test's own; its directories are removed."""
    name = f"minibox-place{os.getpid()}"
    yield f"/{name}"
    for hierarchy in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        if (hierarchy / name).is_dir():
            subprocess.run(["find", hierarchy / name, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"], check=True)


@pytest.fixture
def make(top: str) -> Iterator[Make]:
    made: list[Cgroup] = []

    def make(resources: dict, name: str = "below/it", *, devices: bool = True, owner: int = 0) -> Cgroup:
        place = find_place(f"{top}/{name}", "id")
        made.append(creation.make(place.host, place.name, place_steps(place, resources, devices=devices)))
        if owner and made[-1].v2 and not made[-1].v1:
            give(made[-1].v2, owner)
        return made[-1]

    yield make
    for group in made:
        group.kill()
        group.remove()
        assert not any(map(os.path.exists, group.directories))


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def own_paths(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.split(":")[1]: line.split(":", 2)[2] for line in lines}


def file(group: Cgroup, controller: str, v1: str, v2: str) -> str:
    directory = group.v1.get(controller)
    return Path(f"{directory}/{v1}" if directory else f"{group.v2}/{v2}").read_text().strip()


@requires("cgroup:memory", "cgroup:pids", "cgroup:cpu")
def test_a_process_is_at_the_path_in_every_hierarchy_that_is_mounted(make, top, sleeper):
    group = make({"memory": {"limit": 64 * MIB}, "pids": {"limit": 20}, "cpu": {"shares": 512}})
    group.attach(sleeper.pid)
    mounted = {controller for controller in own_paths(sleeper.pid) if controller in group.paths}
    assert {own_paths(sleeper.pid)[controller] for controller in mounted} == {f"{top}/below/it"}
    assert group.pids() == {sleeper.pid}
    assert file(group, "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    assert file(group, "pids", "pids.max", "pids.max") == "20"
    found = statistics(of_paths(group.paths))
    assert found["pids"] == {"current": 1, "limit": 20}
    assert found["memory"]["usage"]["limit"] == 64 * MIB
    assert found["cpu"]["usage"].get("total", 0) >= 0
    group.freeze()
    group.signal(signal.SIGTERM)  # v2's freezer lets a fatal signal through, v1's keeps it until it thaws
    assert group.is_frozen()
    group.thaw()
    assert sleeper.wait(10) == -signal.SIGTERM


def test_parents_stay_and_a_group_that_was_made_for_us_will_do(make, top, sleeper):
    first = make({}, "shared/one")
    for directory in first.directories:
        os.mkdir(f"{directory}/inside")  # as a container with its own cgroups does
        os.makedirs(f"{os.path.dirname(directory)}/two", exist_ok=True)
    second = make({}, "shared/two")
    second.attach(sleeper.pid)
    with pytest.raises(MiniboxError, match="File exists"):
        make({}, "shared/two")
    assert sleeper.pid in second.pids()
    second.kill()
    assert sleeper.wait(10) == -signal.SIGKILL
    first.remove()
    assert all(os.path.isdir(os.path.dirname(directory)) for directory in first.directories)


def test_what_was_made_is_undone_when_a_limit_is_refused(make, top):
    with pytest.raises(LimitError):
        make({"cpu": {"cpus": "4000"}}, "refused")
    left = find_place(f"{top}/refused", "id")
    assert not any(os.path.exists(f"{parent}/refused") for parent in (*left.host.v1.values(), left.host.v2_parent))


@requires("cgroup:memory", "cgroup:cpu", "cgroup:pids")
def test_limits_of_a_running_container_change_and_a_wrong_one_changes_nothing(make, sleeper):
    group = make({"memory": {"limit": 64 * MIB}, "cpu": {"quota": 20000, "period": 100000}, "pids": {"limit": 5}})
    group.attach(sleeper.pid)
    place: Place = place_of(of_paths(group.paths))

    def update(resources: dict) -> None:
        change(place.host, group, resources, everywhere=True)

    update(
        {"memory": {"limit": 32 * MIB}, "cpu": {"quota": 4000, "period": 40000, "shares": 2048}, "pids": {"limit": -1}}
    )
    assert file(group, "memory", "memory.limit_in_bytes", "memory.max") == str(32 * MIB)
    assert file(group, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "4000"
    assert file(group, "pids", "pids.max", "pids.max") == "max"
    update({"cpu": {"burst": 3000}})
    update({"cpu": {"quota": 2000, "period": 20000, "burst": 0}})  # a burst may not be above its quota
    assert file(group, "cpu", "cpu.cfs_burst_us", "cpu.max.burst") == "0"
    with pytest.raises(LimitError):
        update({"memory": {"limit": 48 * MIB}, "cpu": {"cpus": "4000"}})
    assert file(group, "memory", "memory.limit_in_bytes", "memory.max") == str(32 * MIB)
    update({"memory": {"limit": -1}})
    assert file(group, "memory", "memory.limit_in_bytes", "memory.max") in ("max", str((1 << 63) - 4096))


def test_v1_device_rules_are_what_they_come_to(make):
    if "devices" not in detect().v1:
        pytest.skip("needs the device controller of cgroup v1")
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        {"allow": True, "type": "b", "major": 8, "access": "r"},
        {"allow": False, "type": "c", "major": 10, "access": "w"},
    ]
    group = make({"devices": rules})
    listed = Path(group.v1["devices"], "devices.list").read_text().splitlines()
    assert {"c 10:229 rm", "b 8:* r", "c 1:3 rwm"} <= set(listed)
    assert "a *:* rwm" not in listed
