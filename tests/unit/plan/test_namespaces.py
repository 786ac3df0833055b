"""Namespaces made and joined, and a start by two commands: the exact steps, in order."""

from __future__ import annotations

from typing import Any

import pytest

from minibox.errors import ConfigError
from minibox.plan import operations as op
from minibox.plan.compiler import Plan, compile_plan
from minibox.plan.namespaces import NAMESPACES, namespace_flags
from minibox.plan.operations import INIT, MOUNTER, PARENT
from minibox.plan.rootfs import Rootfs
from minibox.plan.start import Start

ROOTFS = Rootfs(path="/b/rootfs")
NEW = NAMESPACES["mount"] | NAMESPACES["pid"]
MAP = [{"containerID": 0, "hostID": 70000, "size": 65536}]


def spec(*more: dict[str, str], **fields: Any) -> Any:
    return {
        "ociVersion": "1.2.0",
        "process": {"cwd": "/", "args": ["/bin/true"]},
        "root": {"path": "/b/rootfs"},
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, *more],
            "uidMappings": MAP,
            "gidMappings": MAP,
        },
        **fields,
    }


def of(plan: Plan, actor: str) -> list[tuple[Any, ...]]:
    return [(step.name, *step.args) for step in plan.of(actor)]


def steps_until_ids(*more: dict[str, str], start: Start | None = None) -> tuple[Plan, list[tuple[Any, ...]]]:
    """What init does until its parent maps ids."""
    plan = compile_plan(spec(*more), ROOTFS, start or Start())
    init = of(plan, INIT)
    return plan, init[: init.index(("wait", op.STATUS, op.TAG_IDENTITY))]


OPEN_NET = ("open", "/run/netns/x", 0, op.FIRST_JOINED)
NET = {"type": "network", "path": "/run/netns/x"}
DIES = ("die_with_parent", op.STATUS)


def test_a_namespace_of_the_hosts_is_joined_by_the_process_itself():
    plan, steps = steps_until_ids(NET)
    assert plan.flags == NEW
    assert steps == [DIES, OPEN_NET, ("setns", op.FIRST_JOINED, NAMESPACES["network"])]
    assert ("loopback_up",) not in of(plan, INIT), "it is somebody else's"
    assert namespace_flags(spec(NET)) == NEW | NAMESPACES["network"]


def test_with_ids_of_its_own_it_joins_before_it_has_them():
    plan, steps = steps_until_ids(NET, {"type": "user"})
    assert plan.flags == 0
    assert steps == [
        DIES, OPEN_NET, ("setns", op.FIRST_JOINED, NAMESPACES["network"]),
        ("clone_sibling", op.STATUS, NEW | NAMESPACES["user"]), DIES,
    ]  # fmt: skip
    assert of(plan, PARENT)[:3] == [("clone", 0, (), 1), ("take_sibling",), ("write_uid_map", ("0 70000 65536",), None)]


@pytest.mark.parametrize(("rootless", "order"), [(False, ["network", "user"]), (True, ["user", "network"])])
def test_rights_decide_when_a_user_namespace_is_joined(rootless: bool, order: list[str]):
    plan, steps = steps_until_ids(NET, {"type": "user", "path": "/proc/1/ns/user"}, start=Start(rootless=rootless))
    assert [flags for name, *_, flags in steps if name == "setns"] == [NAMESPACES[kind] for kind in order]
    assert ("clone_sibling", op.STATUS, NEW) in steps, "what is made belongs to it"
    assert "write_uid_map" not in [step.name for step in plan.ops], "its ids are mapped"
    assert ("setresuid", 0) in of(plan, INIT)


def test_whoever_joins_a_pid_namespace_hides_and_goes_on_as_another():
    made = spec()
    made["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid", "path": "/proc/1/ns/pid"}]
    names = [step[0] for step in of(compile_plan(made, ROOTFS, Start()), INIT)]
    assert names[:6] == ["die_with_parent", "open", "undumpable", "setns", "clone_sibling", "die_with_parent"]


def test_a_root_by_path_is_opened_before_the_ids_change():
    made = spec({"type": "user"})
    made["mounts"] = [{"destination": "/data", "type": "bind", "source": "/secret/data"}]
    init = of(compile_plan(made, ROOTFS, Start(rootless=True)), INIT)
    assert init[2:9] == [
        ("open_tree", "/secret/data", 0, op.FIRST_BIND),
        ("mount_attributes", op.FIRST_BIND, 0, 0, op.MS_PRIVATE, 1),
        ("propagation", "/", op.MS_REC | op.MS_PRIVATE),
        ("open_tree", "/b/rootfs", op.AT_RECURSIVE, op.ROOT),
        ("attach", op.ROOT, op.HOST, "/b/rootfs"),
        ("setgroups", b""),
        ("setresgid", 0),
    ]


def test_what_is_mounted_is_opened_by_who_may_look_wherever_the_host_root_may():
    """Root of a user namespace may not; for an ordinary user the container's process is as good."""
    made = spec({"type": "user"})
    made["mounts"] = [{"destination": "/data", "type": "bind", "source": "/secret/data", "options": ["rbind"]}]
    plan = compile_plan(made, ROOTFS, Start())
    assert of(plan, MOUNTER) == [
        DIES,
        ("chroot", op.ROOT),
        ("open", "/secret/data", op.O_PATH, op.FIRST_BIND),
        ("send_fd", op.CHANNEL, op.FIRST_BIND, 0),
    ]
    init = of(plan, INIT)
    at = init.index(("recv_fd", op.CHANNEL, op.FIRST_BIND))
    assert init[at + 1] == ("clone_tree", op.FIRST_BIND, op.AT_RECURSIVE, op.FIRST_BIND)
    assert not of(compile_plan(made, ROOTFS, Start(rootless=True)), MOUNTER)
    assert not of(compile_plan(made | {"mounts": []}, ROOTFS, Start()), MOUNTER)
    without = spec() | {"mounts": made["mounts"]}
    assert not of(compile_plan(without, ROOTFS, Start()), MOUNTER)


def test_a_gate_is_the_last_but_what_the_command_must_have():
    made = spec()
    made["process"]["noNewPrivileges"] = True
    start = Start(detached=True, gate=True, seccomp=bytes(8), kept_fds=2, keyring=False)
    init = of(compile_plan(made, ROOTFS, start), INIT)
    assert init[-7:] == [
        ("close_fds", 2), ("capset", 0, 0, 0), ("tell", op.STATUS, op.TAG_CREATED), ("gate", op.GATE, op.REPORT), ("no_new_privs",),
        ("seccomp", bytes(8), 0), ("exec", ("/bin/true",), ("/bin/true",), ("HOME=",)),
    ]  # fmt: skip
    assert DIES not in init and not any(step[0] == "session_keyring" for step in init)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"linux": {"namespaces": [{"type": "user"}]}}, "a new user namespace needs a new mount namespace"),
        ({"linux": {"namespaces": [NET | {"type": "mount"}, {"type": "user"}]}}, "needs a new mount namespace"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "pid"}]}}, "contains pid twice"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "pid", "path": "ns"}]}}, "'ns' of the pid namespace"),
        ({"hostname": "box"}, "hostname needs a uts namespace"),
        ({"domainname": "box"}, "domainname needs a uts namespace"),
        ({"process": {"cwd": "/"}}, "process.args is empty"),
        ({"process": {"cwd": "a", "args": ["b"]}}, "process.cwd 'a' is not absolute"),
    ],
)
def test_what_is_refused(change: Any, says: str):
    with pytest.raises(ConfigError, match=says):
        compile_plan(spec(**change), ROOTFS, Start())


OF_OTHERS = {"linux": {"namespaces": [{"type": "pid"}, {"type": "mount", "path": "/proc/9/ns/mnt"}]}}


@pytest.mark.parametrize("change", [OF_OTHERS, {"linux": {"namespaces": [{"type": "pid"}]}}])
def test_in_a_mount_namespace_of_others_theirs_stays_as_it_is(change: Any):
    """Only what is cloned is changed, and it is written down what is attached before it is."""
    made = spec(**change)
    plan = compile_plan(made, ROOTFS, Start())
    assert plan.flags == NAMESPACES["pid"]
    init = of(plan, INIT)
    root = init.index(("open_tree", "/b/rootfs", op.AT_RECURSIVE, op.ROOT))
    assert init[root + 1 : root + 5] == [
        ("mount_attributes", op.ROOT, 0, 0, op.MS_PRIVATE, 1),
        ("send_fd", op.STATUS, op.ROOT, op.TAG_ROOT),
        ("wait", op.STATUS, op.TAG_ROOT),
        ("attach", op.ROOT, op.HOST, "/b/rootfs"),
    ]
    assert ("chroot", op.ROOT) in init
    assert not {"propagation", "pivot_root", "move_root"} & {name for name, *_ in init}
    parent = of(plan, PARENT)
    assert parent[[name for name, *_ in parent].index("take_root") + 1] == ("send", op.TAG_ROOT)
    joins = [step for step in init[:root] if step[0] == "setns"]
    assert joins == ([("setns", op.FIRST_JOINED, NAMESPACES["mount"])] if change is OF_OTHERS else [])


def test_their_root_is_not_covered():
    with pytest.raises(ConfigError, match="can't be the container's root"):
        compile_plan(spec(**OF_OTHERS), Rootfs(path="/"), Start())


def test_a_process_is_needed():
    made = spec()
    del made["process"]
    with pytest.raises(ConfigError, match="process is missing"):
        compile_plan(made, ROOTFS, Start())


def test_in_a_mount_namespace_of_others_the_clocks_are_told_to_the_hosts_proc():
    """What their /proc has in that place may be anything of the kernel's: CVE-2025-52881."""
    made = spec({"type": "time"}, linux={"namespaces": [{"type": "time"}, {"type": "mount", "path": "/proc/9/ns/mnt"}]})
    made["linux"]["timeOffsets"] = {"boottime": {"secs": 5}}
    init = [(step.name, *step.args) for step in compile_plan(made, Rootfs(path="/b/rootfs"), Start()).of(op.INIT)]
    held = init.index(("open", "/proc", op.O_PATH_DIRECTORY, op.PROC))
    assert held < init.index(("setns", op.FIRST_JOINED, NAMESPACES["mount"]))
    assert ("write_proc", op.PROC, "/self/timens_offsets", b"boottime 5 0\n") in init
    assert ("open_at", op.PROC, "self/ns/time_for_children", 0, op.SCRATCH) in init
    assert not [step for step in init if step[0] == "open" and str(step[1]).startswith("/proc/self")]
