"""Mounts of a Spec: what their options mean, and which mean nothing."""

from __future__ import annotations

from typing import Any

import pytest

from minibox.errors import ConfigError
from minibox.plan import operations as op
from minibox.plan.mounts import ATIME, Mount, open_bind, read


def understood(*options: str, fstype: str = "tmpfs", source: str | None = "s") -> Mount:
    (mount,) = read([{"destination": "/d", "type": fstype, "source": source, "options": list(options)}], ())  # type: ignore[typeddict-item]
    return mount


def test_mount_options():
    assert understood("nosuid", "nodev", "mode=755", "size=1k").options == "mode=755,size=1k"
    assert understood("nosuid", "nodev", "suid").set_ == op.NODEV
    assert understood("ro", "rw").set_ == 0 and understood("rw", "ro").set_ == op.RDONLY
    assert (understood("noatime").set_, understood("noatime").clear) == (op.NOATIME, ATIME)
    assert understood("noatime", "strictatime").set_ == op.STRICTATIME
    assert understood("noatime", "relatime").set_ == understood("relatime", "noatime").set_ == op.NOATIME
    assert understood("strictatime", "noatime", "relatime").set_ == op.STRICTATIME
    assert understood("strictatime", "noatime", "nostrictatime").set_ == op.NOATIME
    assert understood("noatime", "atime").set_ == 0 and understood("noatime", "atime").options == ""
    assert understood("defaults").options == ""
    assert understood("bind").bind and not understood("bind").recursive
    assert understood("rbind").recursive and understood("rbind", fstype="none").bind
    assert not understood(fstype="bind").recursive and understood(fstype="bind").bind
    assert understood("bind", "idmap").id_map
    mount = understood("rbind", "rro", "rnoexec")
    assert (mount.set_, mount.all_set) == (0, op.RDONLY | op.NOEXEC)
    assert understood("rbind", "rslave").propagation == op.MS_REC | op.MS_SLAVE


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"destination": "d"}, "/d has no type"),
        ({"destination": "/d", "type": "none", "options": ["ro"]}, "/d has no type"),
        ({"destination": "/d", "type": "tmpfs", "options": ["idmap"]}, "/d can't be id-mapped"),
        (
            {
                "destination": "/d",
                "type": "bind",
                "source": "/s",
                "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
            },
            "/d has mappings for one kind of ids only",
        ),
        (
            {"destination": "/d", "type": "bind", "source": "/s", "options": ["size=1k", "remount"]},
            "can't have the option 'size=1k'.*/d",
        ),
        ({"destination": "/d", "type": "bind"}, "/d has no source"),
    ],
)
def test_mounts_that_mean_nothing(mount: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        read([mount], ())


@pytest.mark.parametrize("propagation", ["private", "rprivate", "slave", "rslave", "shared"])
def test_recursive_attributes_reach_mounts_below_whatever_the_propagation(propagation: str):
    steps = open_bind(understood("rbind", "rro", propagation, source="/s"), 48)
    assert [step.args[4] for step in steps if step.name == "mount_attributes" and step.args[1] == op.RDONLY] == [1]
    spread = understood("rbind", propagation).propagation
    assert [step.args[3:] for step in steps if step.name == "mount_attributes" and step.args[3]] == [
        (spread & ~op.MS_REC, int(propagation[0] == "r"))
    ]


def test_cgroup_mounts_are_those_of_the_host():
    mount: Any = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "ro"]}
    assert read([mount], ()) == []
    (v2,) = read([mount], (("", "cgroup2", ""),))
    assert (v2.destination, v2.fstype, v2.set_) == ("/sys/fs/cgroup", "cgroup2", op.NOSUID | op.RDONLY)
    top, memory, closed = read([mount], (("memory", "cgroup", "memory"),))
    assert (closed.destination, closed.remount, closed.set_) == ("/sys/fs/cgroup", True, op.RDONLY)
    assert (top.fstype, top.set_) == ("tmpfs", op.NOSUID)  # writable, so that memory's directory can be made
    assert (memory.destination, memory.options, memory.set_) == (
        "/sys/fs/cgroup/memory", "memory", op.NOSUID | op.RDONLY
    )  # fmt: skip
