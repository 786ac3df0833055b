"""Limits as systemd is told of them, and where its units are; values only."""

from __future__ import annotations

import pytest

from minibox.linux.cgroup import CgroupHost, cgroup_steps, planned, v2_controllers
from minibox.linux.cgroup.scope import addresses, properties, slice_path
from minibox.plan.shell import command

SCOPE = CgroupHost(
    "v2", {}, (), "/sys/fs/cgroup/machine.slice/minibox-x.scope", ("cpu", "cpuset", "memory", "pids"),
    scope="minibox-x.scope", slice="machine.slice",
)  # fmt: skip


@pytest.mark.parametrize(
    ("file", "value", "expected"),
    [
        ("memory.max", "33554432", [("MemoryMax", "t", 33554432, "MemoryMax=33554432")]),
        ("memory.swap.max", "max", [("MemorySwapMax", "t", 2**64 - 1, "MemorySwapMax=infinity")]),
        ("pids.max", "9", [("TasksMax", "t", 10, "TasksMax=10")]),  # and the one that keeps the scope
        ("cpu.weight", "59", [("CPUWeight", "t", 59, "CPUWeight=59")]),
        (
            "cpu.max",
            "20000 50000",
            [
                ("CPUQuotaPerSecUSec", "t", 400_000, "CPUQuota=40%"),
                ("CPUQuotaPeriodUSec", "t", 50_000, "CPUQuotaPeriodSec=50000us"),
            ],
        ),
        ("cpu.max", "max", [("CPUQuotaPerSecUSec", "t", 2**64 - 1, "CPUQuota=")]),
        ("cpuset.cpus", "0-2,9", [("AllowedCPUs", "ay", b"\x07\x02", "AllowedCPUs=0-2,9")]),
        ("hugetlb.2MB.max", "0", []),
    ],
)
def test_a_setting_as_properties(file, value, expected):
    assert [(each.name, each.signature, each.value, each.text) for each in properties([(file, value)])] == expected


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("app.slice", "app.slice"),
        ("machine-a-b.slice", "machine.slice/machine-a.slice/machine-a-b.slice"),
    ],
)
def test_a_slice_is_below_those_that_its_name_begins_with(name, path):
    assert slice_path(name) == path


def test_the_containers_cgroup_is_below_the_scope_and_has_its_limits_itself():
    steps = cgroup_steps(SCOPE, "minibox-x", {"memory": {"limit": 32 << 20, "swap": 32 << 20}})
    assert [step.name.removeprefix("cgroup_") for step in steps] == [
        "systemd_scope",
        "write",
        "mkdir",
        "write",
        "write",
    ]
    scope, enable, made, limit, _ = steps
    assert scope.args[0] == SCOPE.v2_parent
    shell = command(scope)
    assert shell and shell.removeprefix("sleep infinity | systemd-run --scope ").partition(" cat")[0] == (
        "--unit=minibox-x.scope --slice=machine.slice -p Delegate=yes -p MemoryMax=33554432 -p MemorySwapMax=0"
    )
    assert enable.args[:2] == (f"{SCOPE.v2_parent}/cgroup.subtree_control", "+memory")
    assert made.args[0] == f"{SCOPE.v2_parent}/minibox-x" == planned(SCOPE, "minibox-x", steps).v2
    assert limit.args[:2] == (f"{made.args[0]!s}/memory.max", "33554432")


def test_the_controllers_that_limits_need():
    assert v2_controllers({"devices": [{"allow": False}], "memory": {}, "cpu": {"cpus": ""}}) == set()
    assert v2_controllers({"memory": {"limit": 1 << 30}, "cpu": {"quota": 1000}}) == {"memory", "cpu"}
    assert v2_controllers({"cpu": {"cpus": "0"}, "unified": {"io.weight": "5", "cgroup.max.depth": "1"}}) == {
        "cpuset",
        "io",
    }


def test_an_ordinary_users_manager_is_found_without_an_environment():
    assert addresses(1000, {})[0] == ("/run/user/1000/bus", True)
    assert addresses(1000, {"XDG_RUNTIME_DIR": "/x"}) == (("/x/bus", True), ("/x/systemd/private", False))
    assert addresses(0, {"XDG_RUNTIME_DIR": "/x"})[0][0] == "/run/dbus/system_bus_socket"
