"""What a mount of type cgroup shows in a container of an OCI bundle."""

from __future__ import annotations

import pytest

from minibox.engine.oci.cgroup import GroupPlan, shown
from minibox.linux.cgroup import Cgroup, CgroupHost

V1 = {"cpu": "/cg/cpu,cpuacct/a/b", "cpuacct": "/cg/cpu,cpuacct/a/b", "name=systemd": "/cg/systemd/a/b"}


def plan(mode: str) -> GroupPlan:
    v1 = V1 if mode != "v2" else {}
    return GroupPlan(CgroupHost(mode, v1), Cgroup("b", v1, "/cg/unified/a/b"))


@pytest.mark.parametrize("mode", ["v1", "hybrid"])
def test_without_a_cgroup_namespace_its_own_directories_are_bound(mode):
    """As runc: a new mount would show those of the host, and root of a user namespace may not make it."""
    assert shown(plan(mode), own_view=False) == (
        ("cpu,cpuacct", "bind", "/cg/cpu,cpuacct/a/b"),
        ("systemd", "bind", "/cg/systemd/a/b"),
    )
    assert all(kind == "cgroup" for _, kind, _ in shown(plan(mode), own_view=True))


def test_on_v2_alone():
    assert shown(plan("v2"), own_view=False) == (("", "bind", "/cg/unified/a/b"),)
    assert shown(plan("v2"), own_view=True) == (("", "cgroup2", ""),)
