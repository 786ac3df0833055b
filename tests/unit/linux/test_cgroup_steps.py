"""What a cgroup is made of, on every kind of host: values only, nothing is touched."""

from __future__ import annotations

import os
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from minibox.errors import LimitError
from minibox.linux.cgroup import CgroupHost, CgroupMounts, cgroup_steps, detect, parse_mounts, planned
from minibox.linux.cgroup.limits import cpu_weight
from minibox.linux.cgroup.steps import controller_of, is_optional, limit_of
from minibox.plan.operations import Op
from minibox.plan.shell import command

V1_MOUNTS = """\
25 30 0:23 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
32 25 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
33 32 0:28 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:10 - cgroup cgroup rw,xattr,name=systemd
34 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,cpu,cpuacct
35 32 0:30 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:12 - cgroup cgroup rw,memory
36 32 0:31 / /sys/fs/cgroup/cpuset rw,relatime shared:13 - cgroup cgroup rw,cpuset,clone_children
37 99 0:30 /docker/abc /mnt/memory rw,relatime shared:12 - cgroup cgroup rw,memory
"""
HYBRID_MOUNTS = V1_MOUNTS + "38 32 0:32 / /sys/fs/cgroup/unified rw shared:14 - cgroup2 cgroup2 rw,nsdelegate\n"
V2_MOUNTS = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
NESTED_MOUNTS = "30 23 0:26 /docker/abc /sys/fs/cgroup\\040two rw - cgroup2 cgroup rw\n"

V1 = {
    name: f"/cg/{hierarchy}"
    for hierarchy, names in {
        "cpu,cpuacct": ("cpu", "cpuacct"),
        **{one: (one,) for one in ("memory", "pids", "freezer", "cpuset", "blkio", "devices", "hugetlb")},
    }.items()
    for name in names
}
ON_V1 = CgroupHost("v1", V1)
ON_HYBRID = CgroupHost("hybrid", V1, v2_parent="/cg/unified")
ALL_V2 = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
ON_V2 = CgroupHost("v2", {}, (), "/cg", ALL_V2, ("memory", "pids"))
GIB = 1 << 30


def shell(host: CgroupHost, resources: dict, **options) -> list[str]:
    return [
        command(step) or f"# {step.name} {step.args[0]!s}"
        for step in cgroup_steps(host, "minibox-x", resources, **options)
    ]


def written(steps: Iterable[Op]) -> list[Op]:
    return [step for step in steps if step.name == "cgroup_write"]


def made(steps: Iterable[Op]) -> list[object]:
    return [step.args[0] for step in steps if step.name == "cgroup_mkdir"]


def writes(host: CgroupHost, resources: dict) -> dict[str, str]:
    return {str(step.args[0]): str(step.args[1]) for step in written(cgroup_steps(host, "minibox-x", resources))}


def test_v1_mounts_give_each_controller_its_first_directory():
    assert parse_mounts(V1_MOUNTS) == CgroupMounts(
        {
            "cpu": "/sys/fs/cgroup/cpu,cpuacct",
            "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
            "memory": "/sys/fs/cgroup/memory",
            "cpuset": "/sys/fs/cgroup/cpuset",
        },
        "",
        "",
        {"name=systemd": "/sys/fs/cgroup/systemd"},
    )


def test_hybrid_and_v2_mounts():
    assert parse_mounts(HYBRID_MOUNTS).v2 == "/sys/fs/cgroup/unified"
    assert len(parse_mounts(HYBRID_MOUNTS).v1) == 4
    assert parse_mounts(V2_MOUNTS) == CgroupMounts({}, "/sys/fs/cgroup", "/")
    assert parse_mounts(NESTED_MOUNTS) == CgroupMounts({}, "/sys/fs/cgroup two", "/docker/abc")
    assert parse_mounts("") == CgroupMounts({}, "", "")


def test_without_limits_a_container_gets_only_what_kill_and_an_oom_report_need():
    assert shell(ON_HYBRID, {}) == ["mkdir /cg/unified/minibox-x", "mkdir /cg/memory/minibox-x"]
    assert shell(ON_V1, {}) == [f"mkdir /cg/{name}/minibox-x" for name in ("memory", "freezer", "cpu,cpuacct")]
    assert shell(ON_V2, {}) == ["mkdir /cg/minibox-x"]
    assert shell(CgroupHost("none", {}), {}) == []


def test_docker_flags_on_v1():
    resources = {
        "memory": {"limit": GIB},
        "pids": {"limit": 100},
        "cpu": {"quota": 50000, "period": 100000, "shares": 512, "cpus": "0-1"},
    }
    assert shell(ON_HYBRID, resources) == [
        "mkdir /cg/unified/minibox-x",
        "mkdir /cg/memory/minibox-x",
        "echo 1073741824 > /cg/memory/minibox-x/memory.limit_in_bytes",
        "echo 2147483648 > /cg/memory/minibox-x/memory.memsw.limit_in_bytes || true",
        "mkdir /cg/pids/minibox-x",
        "echo 100 > /cg/pids/minibox-x/pids.max",
        "mkdir /cg/cpu,cpuacct/minibox-x",
        "echo 512 > /cg/cpu,cpuacct/minibox-x/cpu.shares",
        "echo 100000 > /cg/cpu,cpuacct/minibox-x/cpu.cfs_period_us",
        "echo 50000 > /cg/cpu,cpuacct/minibox-x/cpu.cfs_quota_us",
        "mkdir /cg/cpuset/minibox-x",
        "cat /cg/cpuset/cpuset.mems > /cg/cpuset/minibox-x/cpuset.mems",
        "echo 0-1 > /cg/cpuset/minibox-x/cpuset.cpus",
    ]


def test_docker_flags_on_v2_enable_only_the_controllers_that_are_missing():
    resources = {
        "memory": {"limit": GIB},
        "pids": {"limit": 100},
        "cpu": {"quota": 50000, "period": 100000, "shares": 1024},
    }
    assert shell(ON_V2, resources) == [
        "echo +cpu > /cg/cgroup.subtree_control",
        "mkdir /cg/minibox-x",
        "echo 1073741824 > /cg/minibox-x/memory.max",
        "echo 1073741824 > /cg/minibox-x/memory.swap.max || true",
        "echo 100 > /cg/minibox-x/pids.max",
        "echo 100 > /cg/minibox-x/cpu.weight",
        "echo '50000 100000' > /cg/minibox-x/cpu.max",
    ]


def test_a_limit_is_needed_and_housekeeping_is_not():
    bare = CgroupHost("v2", {}, (), "/cg", ALL_V2, ())
    steps = cgroup_steps(bare, "minibox-x", {"pids": {"limit": 5}})
    assert [
        (step.args[1] if step.name == "cgroup_write" else "", limit_of(step), is_optional(step)) for step in steps
    ] == [
        ("+memory", "", True),
        ("+pids", "process limit", False),
        ("", "", False),
        ("5", "process limit", False),
    ]


@pytest.mark.parametrize(
    ("memory", "v1", "v2"),
    [
        ({"limit": GIB}, str(2 * GIB), str(GIB)),
        ({"limit": GIB, "swap": 0}, str(2 * GIB), str(GIB)),
        ({"limit": GIB, "swap": -1}, "-1", "max"),
        ({"limit": GIB, "swap": GIB}, str(GIB), "0"),
        ({"limit": GIB, "swap": 3 * GIB}, str(3 * GIB), str(2 * GIB)),
        ({"limit": -1}, None, None),
    ],
)
def test_memory_swap_means_what_docker_means(memory, v1, v2):
    assert writes(ON_V1, {"memory": memory}).get("/cg/memory/minibox-x/memory.memsw.limit_in_bytes") == v1
    assert writes(ON_V2, {"memory": memory}).get("/cg/minibox-x/memory.swap.max") == v2


def test_swap_that_was_asked_for_is_needed():
    for host in (ON_V1, ON_V2):
        for memory, optional in (({"limit": GIB}, True), ({"limit": GIB, "swap": GIB}, False)):
            steps = cgroup_steps(host, "minibox-x", {"memory": memory})
            assert [is_optional(step) for step in steps if limit_of(step) == "memory and swap limit"] == [optional]


@pytest.mark.parametrize("memory", [{"swap": GIB}, {"limit": -1, "swap": GIB}, {"limit": GIB, "swap": GIB - 1}])
def test_swap_that_cannot_be_meant(memory):
    for host in (ON_V1, ON_V2):
        with pytest.raises(LimitError, match="memory and swap limit"):
            cgroup_steps(host, "minibox-x", {"memory": memory})


def test_unlimited_asks_for_nothing():
    nothing = {"pids": {"limit": -1}, "memory": {"limit": 0}, "cpu": {"shares": 0, "cpus": ""}, "devices": []}
    for host in (ON_V1, ON_HYBRID, ON_V2):
        assert shell(host, nothing) == shell(host, {})


def test_cpu_weight_keeps_both_ranges_and_the_default():
    assert [cpu_weight(shares) for shares in (0, 2, 3, 512, 1024, 2000, 262144, 1 << 30)] == [
        *(1, 1, 2, 59, 100, 170),
        *(10000, 10000),
    ]
    weights = [cpu_weight(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)


def test_block_io_huge_pages_and_unified():
    disk = {"major": 8, "minor": 0, "rate": 1048576}
    resources = {"blockIO": {"throttleReadBpsDevice": [disk]}, "hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}
    assert writes(ON_V1, resources) == {
        "/cg/blkio/minibox-x/blkio.throttle.read_bps_device": "8:0 1048576",
        "/cg/hugetlb/minibox-x/hugetlb.2MB.limit_in_bytes": "0",
        "/cg/hugetlb/minibox-x/hugetlb.2MB.rsvd.limit_in_bytes": "0",
    }
    v2 = writes(ON_V2, {**resources, "unified": {"memory.high": "1000000", "cgroup.max.depth": "2"}})
    assert v2["/cg/minibox-x/io.max"] == "8:0 rbps=1048576"
    assert v2["/cg/minibox-x/hugetlb.2MB.max"] == "0"
    assert v2["/cg/minibox-x/memory.high"] == "1000000"
    assert v2["/cg/minibox-x/cgroup.max.depth"] == "2"


@pytest.mark.parametrize("file", ["../escape.max", "memory.high/../../x", "memory", "", "cgroup.procs", "cgroup.kill"])
def test_a_unified_key_stays_inside(file):
    with pytest.raises(LimitError, match="not the name of a cgroup v2 limit"):
        cgroup_steps(ON_V2, "minibox-x", {"unified": {file: "1"}})


@pytest.mark.parametrize(
    ("host", "resources", "message", "hint"),
    [
        (CgroupHost("none", {}), {"memory": {"limit": GIB}}, "no cgroup hierarchy is mounted", "mount -t cgroup2"),
        (CgroupHost("v1", {}, ("memory",)), {"memory": {"limit": GIB}}, "only root may write", "as root"),
        (CgroupHost("v1", V1), {"unified": {"memory.high": "1"}}, "no cgroup v2", "mount"),
        (ON_HYBRID, {"unified": {"memory.high": "1"}}, "not on cgroup v2 here", "cgroup v2 alone"),
        (
            CgroupHost("v2", {}, v2_denied="/user.slice/session-1.scope"),
            {"pids": {"limit": 5}},
            "process limit: no cgroup is delegated to this user",
            "loginctl enable-linger",
        ),
        (
            CgroupHost("v2", {}, (), "/sys/fs/cgroup/user.slice/a", ("memory", "pids"), ()),
            {"cpu": {"quota": 1000}},
            "CPU limit: the cpu controller is not delegated",
            "Delegate=cpu cpuset io memory pids",
        ),
        (
            CgroupHost("v2", {}, (), "/sys/fs/cgroup/batch.slice/jane", ("memory", "pids"), ()),
            {"cpu": {"quota": 1000}},
            "CPU limit: the cpu controller is not delegated",
            "Delegate=cpu cpuset io memory pids",
        ),
        (
            CgroupHost("v2", {}, (), "/sys/fs/cgroup", ("cpu",), ()),
            {"memory": {"limit": GIB}},
            "memory limit: this kernel offers no memory controller",
            "cgroup_enable=",
        ),
        (
            CgroupHost("v2", {}, (), "/sys/fs/cgroup", ("cpu",), (), nested=True),
            {"memory": {"limit": GIB}},
            "memory limit: the cgroup that this container is in has no memory controller",
            "from outside",
        ),
        (ON_V2, {"memory": {"swappiness": 10}}, "cgroup v2 has nothing like it", "leave it out"),
        (ON_V2, {"memory": {"limit": GIB, "huge": 5}}, "memory huge: minibox can't set it", "leave it out"),
        (ON_V1, {"rdma": {"mlx5_1": {"hcaHandles": 3}}}, "the rdma controller is not mounted", "cgroup -o rdma"),
        (ON_V1, {"tape": {"metres": 3}}, "tape limits: minibox can't", "leave them out"),
        (ON_V2, {"network": {"classID": 1}}, "network class: this kernel offers no net_cls", "/proc/cgroups"),
        (ON_V2, {"blockIO": {"leafWeight": 10}}, "cgroup v2 has nothing like it", "leave it out"),
    ],
)
def test_a_limit_that_cannot_be_applied_is_an_error_with_a_way_out(host, resources, message, hint):
    with pytest.raises(LimitError, match=message) as caught:
        cgroup_steps(host, "minibox-x", resources)
    assert hint in str(caught.value.hint)


def test_the_planned_cgroup_says_where_the_container_will_be():
    steps = cgroup_steps(ON_HYBRID, "minibox-x", {"cpu": {"shares": 512}})
    cgroup = planned(ON_HYBRID, "minibox-x", steps)
    assert cgroup.directories == ("/cg/unified/minibox-x", "/cg/cpu,cpuacct/minibox-x", "/cg/memory/minibox-x")
    assert cgroup.v1_directories == cgroup.directories[1:]
    assert sorted(cgroup.v1) == ["cpu", "cpuacct", "memory"]


def test_device_rules_take_the_devices_hierarchy_or_a_filter():
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 229}]
    on_v1 = shell(ON_HYBRID, {"devices": rules})
    assert on_v1[2:6] == [
        "mkdir /cg/devices/minibox-x",
        "echo a > /cg/devices/minibox-x/devices.deny",
        "echo 'c 10:229 rwm' > /cg/devices/minibox-x/devices.allow",
        "echo 'c *:* m' > /cg/devices/minibox-x/devices.allow",
    ]
    last = cgroup_steps(ON_V2, "minibox-x", {"devices": rules})[-1]
    assert (last.name, last.args[0], is_optional(last)) == ("device_filter", "/cg/minibox-x", False)
    assert shell(ON_V2, {"devices": rules}, devices=False) == shell(ON_V2, {})
    assert shell(ON_V1, {"devices": [{"allow": True, "access": "rwm"}]}) == shell(ON_V1, {})  # --privileged


@pytest.mark.parametrize("name", ["", "other", "minibox-a/b", "../minibox-a", "/minibox-a"])
def test_only_flat_names_of_ours(name):
    with pytest.raises(ValueError, match="not a cgroup of minibox"):
        cgroup_steps(ON_V1, name, {})


EVERY_LIMIT = {
    "memory": {
        "limit": GIB,
        "swap": GIB,
        "reservation": 5,
        "kernel": 9,
        "kernelTCP": 7,
        "swappiness": 0,
        "disableOOMKiller": True,
        "useHierarchy": True,
        "checkBeforeUpdate": True,
    },
    "cpu": {
        "shares": 2,
        "quota": 1000,
        "burst": 0,
        "period": 5000,
        "realtimeRuntime": 6,
        "realtimePeriod": 7,
        "cpus": "0",
        "mems": "0",
        "idle": 1,
    },
    "pids": {"limit": 3},
    "blockIO": {
        "weight": 10,
        "leafWeight": 11,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 1000, "leafWeight": 13}],
        **{
            f"throttle{way}Device": [{"major": 8, "minor": 16, "rate": rate}]
            for rate, way in enumerate(("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS"), 20)
        },
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
    "network": {"classID": 0x100001, "priorities": [{"name": "eth0", "priority": 5}, {"name": "lo", "priority": 0}]},
    "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 0}, "mlx4_0": {"hcaObjects": 9}},
}
ALL_OF_V1 = CgroupHost("v1", {**V1, **{name: f"/cg/{name}" for name in ("net_cls", "net_prio", "rdma")}})


def test_every_field_of_linux_resources_on_v1():
    steps = written(cgroup_steps(ALL_OF_V1, "minibox-x", EVERY_LIMIT))
    assert [
        f"{str(step.args[0]).removeprefix('/cg/').replace('/minibox-x/', ' ')}={step.args[1]!s}" for step in steps
    ] == [
        f"memory memory.limit_in_bytes={GIB}",
        f"memory memory.memsw.limit_in_bytes={GIB}",
        "memory memory.soft_limit_in_bytes=5",
        "memory memory.kmem.tcp.limit_in_bytes=7",
        "memory memory.swappiness=0",
        "memory memory.oom_control=1",
        "pids pids.max=3",
        "cpu,cpuacct cpu.shares=2",
        "cpu,cpuacct cpu.cfs_period_us=5000",
        "cpu,cpuacct cpu.cfs_quota_us=1000",
        "cpu,cpuacct cpu.cfs_burst_us=0",
        "cpu,cpuacct cpu.rt_period_us=7",
        "cpu,cpuacct cpu.rt_runtime_us=6",
        "cpu,cpuacct cpu.idle=1",
        "cpuset cpuset.cpus=0",
        "cpuset cpuset.mems=0",
        "blkio blkio.bfq.weight=10",
        "blkio blkio.leaf_weight=11",
        "blkio blkio.bfq.weight_device=8:0 1000",
        "blkio blkio.leaf_weight_device=8:0 13",
        "blkio blkio.throttle.read_bps_device=8:16 20",
        "blkio blkio.throttle.write_bps_device=8:16 21",
        "blkio blkio.throttle.read_iops_device=8:16 22",
        "blkio blkio.throttle.write_iops_device=8:16 23",
        "hugetlb hugetlb.2MB.limit_in_bytes=4096",
        "hugetlb hugetlb.2MB.rsvd.limit_in_bytes=4096",
        "net_cls net_cls.classid=1048577",
        "net_prio net_prio.ifpriomap=eth0 5",
        "net_prio net_prio.ifpriomap=lo 0",
        "rdma rdma.max=mlx5_1 hca_handle=3 hca_object=0",
        "rdma rdma.max=mlx4_0 hca_object=9",
    ]


def test_every_field_that_v2_knows():
    asked: dict[str, Any] = deepcopy(EVERY_LIMIT)
    for key, field in (("memory", "kernelTCP"), ("memory", "disableOOMKiller"), ("blockIO", "leafWeight")):
        del asked[key][field]
    for field in ("realtimeRuntime", "realtimePeriod"):
        del asked["cpu"][field]
    asked["blockIO"]["weightDevice"] = [{"major": 8, "minor": 0, "weight": 1000}]
    del asked["network"]
    host = CgroupHost("v2", {}, (), "/cg", (*ALL_V2, "rdma"), (*ALL_V2, "rdma"))
    steps = written(cgroup_steps(host, "minibox-x", asked))
    assert [f"{str(step.args[0]).removeprefix('/cg/minibox-x/')}={step.args[1]!s}" for step in steps] == [
        f"memory.max={GIB}",
        "memory.swap.max=0",
        "memory.low=5",
        "pids.max=3",
        "cpu.weight=1",
        "cpu.max=1000 5000",
        "cpu.max.burst=0",
        "cpu.idle=1",
        "cpuset.cpus=0",
        "cpuset.mems=0",
        "io.bfq.weight=10",
        "io.bfq.weight=8:0 1000",
        "io.max=8:16 rbps=20",
        "io.max=8:16 wbps=21",
        "io.max=8:16 riops=22",
        "io.max=8:16 wiops=23",
        "hugetlb.2MB.max=4096",
        "hugetlb.2MB.rsvd.max=4096",
        "rdma.max=mlx5_1 hca_handle=3 hca_object=0",
        "rdma.max=mlx4_0 hca_object=9",
    ]
    assert [step.args[5] for step in steps if step.args[4]] == ["1", "8:0 10000"], "of io.weight"
    assert all(step.args[4] in ("", "/cg/minibox-x/io.weight") for step in steps)


def test_out_of_idle_comes_before_a_weight():
    steps = cgroup_steps(ON_V2, "minibox-x", {"cpu": {"shares": 1024, "idle": 0}})
    assert [step.args[1] for step in written(steps) if controller_of(step) == "cpu"] == ["+cpu", "0", "100"]


NOBODY = 65534


def detect_as_user(mounts: CgroupMounts, own: str) -> str:
    """repr() of what an ordinary user detects: root becomes one in a child."""
    if os.geteuid() != 0:
        return repr(detect(mounts, own))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writer, repr(detect(mounts, own)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader) as stream:
        return stream.read()


@pytest.fixture
def user_tree():
    """Directories that stand in for cgroups: of these the user owns "service" and what is below it."""
    with TemporaryDirectory() as text:
        top = Path(text)
        top.chmod(0o555)
        for path, ours in (("user", False), ("user/service", True), ("user/service/app", True), ("user/s1", False)):
            (top / path).parent.chmod(0o755)
            (top / path).mkdir(mode=0o755)
            for name, content in (("cgroup.procs", ""), ("cgroup.controllers", "memory pids\n")):
                (top / path / name).write_text(content)
            (top / path / "cgroup.subtree_control").write_text("memory\n")
            if os.geteuid() == 0 and ours:
                os.chown(top / path, NOBODY, NOBODY)
                os.chown(top / path / "cgroup.procs", NOBODY, NOBODY)
        (top / "user/s1").chmod(0o555)
        (top / "user").chmod(0o555)
        top.chmod(0o555)
        yield top
        for path in (".", "user", "user/s1"):
            (top / path).chmod(0o755)


def test_a_user_gets_the_nearest_ancestor_that_is_delegated(user_tree):
    found = detect_as_user(CgroupMounts({}, str(user_tree), "/"), "/user/service/app")
    assert found == repr(CgroupHost("v2", {}, (), f"{user_tree}/user/service", ("memory", "pids"), ("memory",)))


def test_a_subtree_that_is_bind_mounted_is_found_by_its_own_root(user_tree):
    found = detect_as_user(CgroupMounts({}, str(user_tree), "/docker/abc"), "/docker/abc/user/service/app")
    assert f"{user_tree}/user/service'" in found


def test_a_user_without_delegation_gets_no_cgroup(user_tree):
    found = detect_as_user(CgroupMounts({}, str(user_tree), "/"), "/user/s1")
    assert found == repr(CgroupHost("v2", {}, v2_denied="/user/s1"))


def test_root_makes_its_cgroups_at_the_top(tmp_path):
    for name, text in (("cgroup.procs", ""), ("cgroup.controllers", "cpu memory"), ("cgroup.subtree_control", "cpu")):
        (tmp_path / name).write_text(text)
    host = detect(CgroupMounts({"cpu": str(tmp_path), "pids": "/nowhere"}, str(tmp_path), "/"), "/somewhere")
    assert host == CgroupHost("hybrid", {"cpu": str(tmp_path)}, ("pids",), str(tmp_path), ("cpu", "memory"), ("cpu",))


def test_one_that_makes_cgroups_has_one_in_every_hierarchy():
    host = CgroupHost("hybrid", V1, v2_parent="/cg/unified", named={"name=systemd": "/cg/systemd"})
    every = {f"{parent}/minibox-x" for parent in (*V1.values(), "/cg/systemd", "/cg/unified")}
    steps = cgroup_steps(host, "minibox-x", {}, in_all=True)
    assert set(made(steps)) == every
    group = planned(host, "minibox-x", steps)
    assert set(group.directories) == every and group.v1["name=systemd"] == "/cg/systemd/minibox-x"
    few = cgroup_steps(host, "minibox-x", {})
    assert made(few) == ["/cg/unified/minibox-x", "/cg/memory/minibox-x"]
