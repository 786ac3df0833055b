"""Where linux.cgroupsPath is, on directories that stand for hierarchies; and what is made there."""

from __future__ import annotations

from pathlib import Path

import pytest

from minibox.errors import ConfigError, LimitError
from minibox.linux.cgroup import CgroupHost, CgroupMounts
from minibox.linux.cgroup.group import Cgroup
from minibox.linux.cgroup.path import Place, place_at, place_of, place_steps
from minibox.linux.cgroup.scope import own_scope
from minibox.linux.cgroup.update import _completed
from minibox.plan.shell import command

OWN = "5:memory:/outer/inner\n4:cpu,cpuacct:/\n1:name=systemd:/\n0::/outer/inner\n"


@pytest.fixture
def mounts(tmp_path: Path) -> CgroupMounts:
    for name in ("memory", "cpu", "systemd", "unified"):
        (tmp_path / name / "outer/inner").mkdir(parents=True)
    cpu = str(tmp_path / "cpu")
    return CgroupMounts(
        {"memory": str(tmp_path / "memory"), "cpu": cpu, "cpuacct": cpu},
        str(tmp_path / "unified"), "/", {"name=systemd": str(tmp_path / "systemd")},
    )  # fmt: skip


def parents(place: Place, tmp_path: Path) -> dict[str, str]:
    found = {**place.host.v1, "v2": place.host.v2_parent}
    return {controller: path.removeprefix(f"{tmp_path}/") for controller, path in found.items()}


def test_an_absolute_path_is_the_same_in_every_hierarchy(mounts, tmp_path):
    place = place_at("/docker/abc", mounts, OWN)
    assert place.name == "abc"
    assert parents(place, tmp_path) == {
        "memory": "memory/docker",
        "cpu": "cpu/docker",
        "cpuacct": "cpu/docker",
        "name=systemd": "systemd/docker",
        "v2": "unified/docker",
    }
    assert [path.removeprefix(f"{tmp_path}/") for path in place.v1_above] == [
        "memory/docker", "cpu/docker", "systemd/docker",
    ]  # fmt: skip


def test_a_relative_path_is_below_our_own_cgroup_and_on_v2_beside_it(mounts, tmp_path):
    """As runc: on v2 ours has processes, so it can't have children with limits."""
    for path, above, name in (("sub/abc", "/sub", "abc"), ("id", "", "id"), ("../../id", "", "id")):
        place = place_at(path, mounts, OWN)
        assert place.name == name
        assert parents(place, tmp_path) == {
            "memory": f"memory/outer/inner{above}",
            "cpu": f"cpu{above}",
            "cpuacct": f"cpu{above}",
            "name=systemd": f"systemd{above}",
            "v2": f"unified/outer{above}",
        }


@pytest.mark.parametrize("path", ["/", "..", "/../.", "//"])
def test_the_root_is_no_containers_cgroup(mounts, path):
    with pytest.raises(ConfigError, match="root of the cgroups"):
        place_at(path, mounts, OWN)


def test_a_place_in_every_hierarchy_with_its_parents():
    host = CgroupHost("hybrid", {"memory": "/cg/memory/a", "cpuset": "/cg/cpuset/a"}, v2_parent="/cg/unified/a")
    place = Place(host, "b", ("/cg/memory/a", "/cg/cpuset/a"), (("/cg/unified", ()), ("/cg/unified/a", ())))
    assert [command(step) for step in place_steps(place, {"memory": {"limit": 4096}})] == [
        "mkdir -p /cg/unified/a",
        "mkdir -p /cg/memory/a",
        "mkdir -p /cg/cpuset/a",
        "cat /cg/cpuset/cpuset.cpus > /cg/cpuset/a/cpuset.cpus",
        "cat /cg/cpuset/cpuset.mems > /cg/cpuset/a/cpuset.mems",
        "mkdir /cg/unified/a/b",
        "mkdir /cg/memory/a/b",
        "echo 4096 > /cg/memory/a/b/memory.limit_in_bytes",  # and no limit of swap, which OCI doesn't ask for
        "mkdir /cg/cpuset/a/b",
        "cat /cg/cpuset/a/cpuset.cpus > /cg/cpuset/a/b/cpuset.cpus",
        "cat /cg/cpuset/a/cpuset.mems > /cg/cpuset/a/b/cpuset.mems",
    ]


def test_v2_controllers_are_handed_down_the_path():
    host = CgroupHost("v2", {}, (), "/cg/a", ("cpu", "memory", "pids"), ("memory",))
    place = Place(host, "b", (), (("/cg", ("cpu", "memory")), ("/cg/a", ("memory",))))
    steps = place_steps(place, {"pids": {"limit": 5}})
    assert [command(step) for step in steps] == [
        "echo +pids > /cg/cgroup.subtree_control",
        "mkdir -p /cg/a",
        "echo +cpu > /cg/a/cgroup.subtree_control || true",
        "echo +pids > /cg/a/cgroup.subtree_control",
        "mkdir /cg/a/b",
        "echo 5 > /cg/a/b/pids.max",
    ]


def test_a_hierarchy_that_is_not_ours_counts_only_when_a_limit_needs_it(tmp_path):
    missing = str(tmp_path / "missing")  # not writable, as a read-only cgroupfs
    place = place_at("/a/b", CgroupMounts({"memory": missing}, missing, "/"), "0::/\n")
    assert place_steps(place, {"memory": {"limit": 0}}) == ()
    with pytest.raises(LimitError, match="only root may write"):
        place_steps(place, {"memory": {"limit": 4096}})
    with pytest.raises(LimitError, match="process limit"):
        place_steps(place, {"pids": {"limit": 5}})


def test_unified_is_refused_without_v2():
    place = Place(CgroupHost("v1", {"memory": "/cg/memory"}), "b")
    with pytest.raises(LimitError, match="no cgroup v2"):
        place_steps(place, {"unified": {"memory.high": "1"}})


def test_a_cgroup_that_is_there_says_its_place():
    group = Cgroup("b", {"memory": "/cg/memory/a/b"}, "/cg/unified/a/b")
    assert group.paths == {"memory": "/cg/memory/a/b", "": "/cg/unified/a/b"}
    place = place_of(group)
    assert (place.name, place.host.v1, place.host.v2_parent) == ("b", {"memory": "/cg/memory/a"}, "/cg/unified/a")


def test_a_change_of_the_period_keeps_the_quota(tmp_path):
    (tmp_path / "cpu.max").write_text("5000 100000\n")
    group = Cgroup("x", {}, str(tmp_path))
    assert _completed(group, {"cpu": {"period": 20000}})["cpu"] == {"period": 20000, "quota": 5000}
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert _completed(group, {"cpu": {"period": 20000}})["cpu"] == {"period": 20000, "quota": -1}
    assert _completed(group, {"memory": {"limit": -1}}) == {"memory": {"limit": -1}}
    (tmp_path / "memory.swap.max").write_text("0\n")
    assert _completed(group, {"memory": {"limit": -1}}) == {"memory": {"limit": -1, "swap": -1}}


@pytest.mark.parametrize("path", ["/docker/abc", "a.slice:abc", "docker:x:y", "a.slice:b:", "a.slice:b:c/d", "a:b:c:d"])
def test_systemd_has_paths_of_its_own_form(path):
    with pytest.raises(ConfigError, match="slice:prefix:name"):
        own_scope(path, "abc", euid=0, environ={})
