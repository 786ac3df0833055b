"""Spec -> Plan: the exact operations in the three modes."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest

from minibox.errors import ConfigError
from minibox.linux.cgroup.steps import mkdir, write
from minibox.plan import operations as op
from minibox.plan import parent
from minibox.plan.compiler import Plan, compile_plan
from minibox.plan.disk import Disk
from minibox.plan.namespaces import NAMESPACES
from minibox.plan.operations import HOST, INIT, MOUNTER, PARENT
from minibox.plan.process import candidates
from minibox.plan.rootfs import Rootfs, Stacked
from minibox.plan.start import Start
from minibox.record import replace

CLONE_VM = 0x100
SPEC: Any = {
    "process": {
        "user": {"uid": 1000, "gid": 1001, "additionalGids": [29]},
        "args": ["sh", "-l"],
        "env": ["PATH=/bin:/sbin", "HOME=/home/me"],
        "cwd": "/work",
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
    },
    "root": {"path": "/c/root/root", "readonly": True},
    "hostname": "box",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/data", "type": "bind", "source": "/src", "options": ["rbind", "ro"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network", "cgroup")],
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "sysctl": {"net.ipv4.ip_forward": "1"},
    },
}
ROOTFS = Rootfs("/c", ("/l/b", "/l/a"), volatile=True)
FILTER = b"\0" * 8
PRIVATE = op.MS_REC | op.MS_PRIVATE

ON_BRIDGE = parent.on_bridge(
    "minibox0", "10.0.0.1", "10.0.0.0/24", veth="mbv1", interface="eth0", address="10.0.0.7", mac="02:6d:0a:00:00:07", internal=False
)  # fmt: skip

# ---- exact plans --------------------------------------------------------------------------------

BIND_SOURCE = [
    ("open_tree", "/src", op.AT_RECURSIVE, op.FIRST_BIND),
    ("mount_attributes", op.FIRST_BIND, 0, 0, op.MS_PRIVATE, 1),
    ("mount_attributes", op.FIRST_BIND, op.RDONLY, 0, 0, 0),
]
FURNISH = [
    ("mount", "proc", "proc", "", op.ROOT | op.NO_LINKS, "/proc", op.NOSUID | op.NODEV | op.NOEXEC, op.CONTAINERS_PROC),
    ("expect_procfs", op.CONTAINERS_PROC),
    ("attach", op.FIRST_BIND, op.ROOT, "/data"),
]
DEV = op.CONTAINERS_DEV | op.NO_LINKS
HELD_DEV = [
    ("mkdir", op.ROOT | op.NO_LINKS, "/dev", 0o755),
    ("open_in", op.ROOT | op.NO_LINKS, "/dev", op.O_PATH_DIRECTORY, op.CONTAINERS_DEV),
]
NUMBERS = {"/null": (1, 3), "/zero": (1, 5), "/full": (1, 7), "/random": (1, 8), "/urandom": (1, 9), "/tty": (5, 0)}
NODES = [
    *HELD_DEV,
    *(("mknod", DEV, path, 0o020666, os.makedev(*of), 0, 0, f"/dev{path}") for path, of in NUMBERS.items()),
]
BOUND = [
    *HELD_DEV, *(("bind_device", f"/dev{path}", DEV, path, 0o020000, os.makedev(*of)) for path, of in NUMBERS.items())
]  # fmt: skip
LINKS = [
    ("symlink", target, DEV, path)
    for target, path in (
        ("/proc/self/fd", "/fd"), ("/proc/self/fd/0", "/stdin"), ("/proc/self/fd/1", "/stdout"),
        ("/proc/self/fd/2", "/stderr"), ("pts/ptmx", "/ptmx"),
    )
]  # fmt: skip
CLOSE_UP = [
    ("sethostname", "box"),
    ("write_proc", op.CONTAINERS_PROC | op.NO_LINKS, "/sys/net/ipv4/ip_forward", b"1"),
    ("mkdir", op.ROOT, "/work", 0o755),
    ("read_only", op.CONTAINERS_PROC, "/sys"),
    ("mask", op.CONTAINERS_PROC, "/kcore"),
    ("mount_attributes", op.ROOT, op.RDONLY, 0, 0, 0),
    ("pivot_root", op.ROOT),
    ("setsid",),
    ("session_keyring", 1),
    ("stdio", op.STDIN, op.STDOUT, op.STDERR),
    ("loopback_up",),
]
GO = [("wait", op.STATUS, op.TAG_GO)]
EXEC = ("exec", ("/bin/sh", "/sbin/sh"), ("sh", "-l"), ("PATH=/bin:/sbin", "HOME=/home/me"))


def overlay(options: str = ",volatile") -> list[tuple[Any, ...]]:
    """The stack of a container that mounts its layers itself."""
    options = options if options.startswith(",userxattr") else ",metacopy=off,redirect_dir=off" + options
    return [
        ("propagation", "/", PRIVATE),
        ("mount", "tmpfs", "minibox", "mode=0755", HOST, "/c/root", op.NOSUID, op.SCRATCH),
        ("open_tree", "/l/b", 0, op.SCRATCH),
        ("attach", op.SCRATCH, HOST, "/c/root/0"),
        ("open_tree", "/l/a", 0, op.SCRATCH),
        ("attach", op.SCRATCH, HOST, "/c/root/1"),
        ("open_tree", "/c", 0, op.SCRATCH),
        ("attach", op.SCRATCH, HOST, "/c/root/rw"),
        ("mkdir", HOST, "/c/root/root", 0o755),
        ("mount_overlay", "/c/root", "lowerdir=0:1,upperdir=rw/upper,workdir=rw/work" + options, "root"),
        ("open", "/c/root/root", os.O_PATH | os.O_DIRECTORY, op.ROOT),
    ]


def become(*, seccomp_first: bool = True, groups: bool = True) -> list[tuple[Any, ...]]:
    """From the container's root to the command."""
    seccomp = [("seccomp", FILTER, 0)]
    return [
        ("umask", 0o022),
        ("chdir", "/work"),
        ("setrlimit", 7, 10, 20),
        ("cap_bounding", 1 << 5),
        *([("setgroups", (29).to_bytes(4, "little"))] if groups else []),
        ("setresgid", 1001),
        ("setresuid", 1000),
        ("die_with_parent", op.STATUS),
        ("close_fds", 0),
        *([("raise_capabilities",), *seccomp] if seccomp_first else []),
        ("capset", 1 << 5, 1 << 5, 0),
        *([] if seccomp_first else [("no_new_privs",), *seccomp]),
        EXEC,
    ]


def of(plan: Plan, actor: str) -> list[tuple[Any, ...]]:
    return [(step.name, *step.args) for step in plan.of(actor)]


def with_user_namespace(*mappings: tuple[int, int, int]) -> Any:
    spec = copy.deepcopy(SPEC)
    maps = [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in mappings]
    spec["linux"]["namespaces"].append({"type": "user"})
    spec["linux"]["uidMappings"] = spec["linux"]["gidMappings"] = maps
    return spec


def test_plan_in_the_hosts_user_namespace():
    group = (mkdir("/cg/minibox-x"), write("/cg/minibox-x/pids.max", "5", "process limit"))
    wiring = tuple(ON_BRIDGE)
    start = Start(cgroup_steps=group, cgroups=(":/cg/minibox-x",), seccomp=FILTER, network=wiring)
    plan = compile_plan(SPEC, ROOTFS, start)
    flags = sum(NAMESPACES[kind] for kind in ("pid", "mount", "uts", "ipc", "network"))
    assert plan.flags == flags  # the cgroup namespace waits until the process is in its cgroup
    assert of(plan, PARENT) == [
        ("cgroup_mkdir", "/cg/minibox-x", "", 0),
        ("cgroup_write", "/cg/minibox-x/pids.max", "5", "process limit", 0, "", ""),
        ("clone", flags, (":/cg/minibox-x",), 1),
        ("send", op.TAG_IDENTITY),
        ("forward_ipv4",),
        ("bridge_rules", "minibox0", "10.0.0.0/24"),
        ("add_bridge", "minibox0", "10.0.0.1", 24),
        ("add_veth", "mbv1", "minibox0", "eth0", "02:6d:0a:00:00:07"),
        ("add_address", "eth0", "10.0.0.7", 24),
        ("set_up", "eth0"),
        ("add_route", "eth0", "10.0.0.1"),
        ("await_rules", "minibox0"),
        ("send", op.TAG_GO),
    ]
    assert of(plan, MOUNTER) == []
    assert of(plan, INIT) == [
        ("die_with_parent", op.STATUS),
        ("wait", op.STATUS, op.TAG_IDENTITY),
        ("unshare", NAMESPACES["cgroup"]),
        *BIND_SOURCE,
        *overlay(),
        *FURNISH,
        *NODES,
        *LINKS,
        *CLOSE_UP,
        *GO,
        *become(),
    ]


def test_ports_are_taken_before_anything_is_made_and_lead_to_what_is_wired():
    port = parent.reserve_port("tcp", "0.0.0.0", 8080, 8080, 80)
    led = parent.publish("minibox-x", "minibox0", "10.0.0.7", "10.0.0.0/24", [("tcp", "0.0.0.0", 8080, 80)])
    start = Start(network=tuple(ON_BRIDGE), ports=(port,), published=(*led, parent.hairpin("mbv1")))
    steps = of(compile_plan(SPEC, ROOTFS, start), PARENT)
    assert steps[0] == ("reserve_port", "tcp", "0.0.0.0", 8080, 8080, 80)
    assert steps[-6:] == [
        ("await_rules", "minibox0"),
        ("publish_begin", "minibox-x", "minibox0", "10.0.0.7", "10.0.0.0/24"),
        ("publish_port", "minibox-x", "tcp", "0.0.0.0", 8080, 80, "10.0.0.7"),
        ("publish_end", "minibox-x", "minibox0"),
        ("hairpin", "mbv1"),
        ("send", op.TAG_GO),
    ]


def test_plan_with_id_mapped_layers():
    spec = with_user_namespace((0, 70000, 65536))
    spec["mounts"][1]["options"].append("idmap")
    plan = compile_plan(spec, ROOTFS, Start(id_mapped=True, seccomp=FILTER))
    flags = sum(NAMESPACES[kind] for kind in ("pid", "mount", "uts", "ipc", "network", "user"))
    assert of(plan, PARENT) == [
        ("clone", flags, (), 1),
        ("write_uid_map", ("0 70000 65536",), None),
        ("write_gid_map", ("0 70000 65536",), None),
        ("send", op.TAG_IDENTITY),
        ("clone_mounter", NAMESPACES["mount"] | CLONE_VM),
        ("send", op.TAG_GO),
    ]
    stack = overlay()[:-1]
    for at in (6, 4, 2):  # behind each layer
        stack.insert(at + 1, ("id_map", op.SCRATCH, 0, op.USERNS))
    stack[-1:-1] = [("set_fs_ids", 70000, 70000), ("die_with_parent", op.STATUS)]
    assert of(plan, MOUNTER) == [
        ("die_with_parent", op.STATUS),
        BIND_SOURCE[0],
        ("id_map", op.FIRST_BIND, 1, op.USERNS),
        *BIND_SOURCE[1:],
        *stack,
        ("open_tree", "/c/root/root", 0, op.ROOT),
        ("send_fd", op.CHANNEL, op.ROOT, 0),
        ("send_fd", op.CHANNEL, op.FIRST_BIND, 0),
    ]
    assert of(plan, INIT) == [
        ("die_with_parent", op.STATUS),
        ("wait", op.STATUS, op.TAG_IDENTITY),
        ("setgroups", b""),
        ("setresgid", 0),
        ("setresuid", 0),
        ("die_with_parent", op.STATUS),
        ("unshare", NAMESPACES["cgroup"]),
        ("propagation", "/", PRIVATE),
        ("recv_fd", op.CHANNEL, op.ROOT),
        ("attach", op.ROOT, HOST, "/tmp"),
        ("recv_fd", op.CHANNEL, op.FIRST_BIND),
        *FURNISH,
        *BOUND,
        *LINKS,
        *CLOSE_UP,
        *GO,
        *become(),
    ]


def test_plan_of_an_ordinary_user_with_one_id():
    """No group can be changed, and the overlay's marks are in user attributes."""
    spec = with_user_namespace((0, 1000, 1))
    spec["process"]["noNewPrivileges"] = True
    start = Start(setgroups=False, seccomp=FILTER, ordinary=True)
    plan = compile_plan(spec, Rootfs("/c", ("/l/b", "/l/a"), userxattr=True), start)
    assert [step[0] for step in of(plan, PARENT)] == [
        "clone", "deny_setgroups", "write_uid_map", "write_gid_map", "send", "send",
    ]  # fmt: skip
    assert of(plan, INIT) == [
        ("die_with_parent", op.STATUS),
        ("wait", op.STATUS, op.TAG_IDENTITY),
        ("setresgid", 0),
        ("setresuid", 0),
        ("die_with_parent", op.STATUS),
        ("unshare", NAMESPACES["cgroup"]),
        *BIND_SOURCE,
        *overlay(",userxattr"),
        *FURNISH,
        *BOUND,
        *LINKS,
        *CLOSE_UP,
        *GO,
        *become(seccomp_first=False, groups=False),
    ]


def test_plan_of_an_ordinary_user_who_stays_himself_on_the_hosts_files():
    """`minibox try`: no step becomes root, and no mount of the host's files has devices."""
    start = Start(setgroups=False, ordinary=True)
    below = Stacked("/home/me", "/home/me", "/c/parts/1", op.NOSUID)
    plan = compile_plan(
        with_user_namespace((1000, 1000, 1)), Rootfs("/c", ("/c/skeleton",), userxattr=True, stacked=(below,)), start
    )
    steps = of(plan, INIT)
    assert steps[2:4] == [("setresgid", 1000), ("setresuid", 1000)]
    first = steps.index(("mount_attributes", op.ROOT, op.NODEV, 0, 0, 0))
    assert steps[first - 1 : first + 10] == [
        ("open", "/c/root/root", op.O_PATH_DIRECTORY, op.ROOT),
        ("mount_attributes", op.ROOT, op.NODEV, 0, 0, 0),
        ("open_tree", "/home/me", 0, op.SCRATCH),
        ("attach", op.SCRATCH, HOST, "/c/root/below-0"),
        ("open_tree", "/c/parts/1", 0, op.SCRATCH),
        ("attach", op.SCRATCH, HOST, "/c/root/rw-0"),
        ("mkdir", HOST, "/c/root/merged-0", 0o755),
        ("mount_overlay", "/c/root", "lowerdir=below-0,upperdir=rw-0/upper,workdir=rw-0/work,userxattr", "merged-0"),
        ("open_tree", "/c/root/merged-0", 0, op.SCRATCH),
        ("mount_attributes", op.SCRATCH, op.NOSUID | op.NODEV, 0, 0, 0),
        ("attach", op.SCRATCH, op.ROOT, "/home/me"),
    ]


ALL_ATIME = 0x70
TREE = Rootfs("/c", ("/t/b",), tree="/c/rootfs")
TREE_ATTRIBUTES = ("mount_attributes", op.ROOT, op.NOATIME, op.RDONLY | op.NOSUID | op.NODEV | op.NOEXEC | ALL_ATIME,
                   0, 0)  # fmt: skip


def test_a_tree_is_bound_as_it_is():
    plan = compile_plan(SPEC, TREE, Start())
    assert of(plan, MOUNTER) == []
    assert of(plan, INIT)[6:11] == [
        ("propagation", "/", PRIVATE),
        ("open_tree", "/c/rootfs", 0, op.ROOT),
        ("attach", op.ROOT, HOST, "/c/root"),
        TREE_ATTRIBUTES,
        FURNISH[0],
    ]
    locked = compile_plan(with_user_namespace((0, 1000, 1)), replace(TREE, userxattr=True), Start())
    assert TREE_ATTRIBUTES not in of(locked, INIT), "an ordinary user may not change them"


def test_a_tree_is_id_mapped_and_handed_over():
    plan = compile_plan(with_user_namespace((0, 70000, 65536)), TREE, Start(id_mapped=True))
    assert of(plan, MOUNTER)[4:] == [
        ("propagation", "/", PRIVATE),
        ("mount", "tmpfs", "minibox", "mode=0755", HOST, "/c/root", op.NOSUID, op.SCRATCH),
        ("open_tree", "/c/rootfs", 0, op.ROOT),
        ("id_map", op.ROOT, 0, op.USERNS),
        TREE_ATTRIBUTES,
        ("send_fd", op.CHANNEL, op.ROOT, 0),
        ("send_fd", op.CHANNEL, op.FIRST_BIND, 0),
    ]


@pytest.mark.parametrize("id_mapped", [True, False])
def test_images_are_mounted_by_a_mounter_instead_of_directories(id_mapped):
    """Also with the host's ids: a loop device is nothing that the container's cgroup allows."""
    spec = with_user_namespace((0, 70000, 65536)) if id_mapped else SPEC
    rootfs = Rootfs("/c", ("/l/b.erofs", "/l/a.erofs"), images=True)
    plan = compile_plan(spec, rootfs, Start(id_mapped=id_mapped))
    steps = of(plan, MOUNTER)
    ids = [("id_map", op.SCRATCH, 0, op.USERNS)] if id_mapped else []
    at = steps.index(("open_image", "/l/b.erofs", op.SCRATCH))
    assert steps[at : at + 3 + 2 * len(ids)] == [
        ("open_image", "/l/b.erofs", op.SCRATCH), *ids, ("attach", op.SCRATCH, HOST, "/c/root/0"),
        ("open_image", "/l/a.erofs", op.SCRATCH), *ids,
    ]  # fmt: skip
    assert ("open_tree", "/c", 0, op.SCRATCH) in steps, "what is written stays in a directory"
    assert ("set_fs_ids" in {step[0] for step in steps}) == id_mapped
    assert ("recv_fd", op.CHANNEL, op.ROOT) in of(plan, INIT)


@pytest.mark.parametrize("id_mapped", [True, False])
def test_a_layer_in_memory_is_made_in_the_name_of_the_containers_root(id_mapped):
    spec = with_user_namespace((0, 70000, 65536)) if id_mapped else SPEC
    rootfs = replace(ROOTFS, disk=Disk(8 << 20, mode=0o555, gid=7))
    plan = compile_plan(spec, rootfs, Start(id_mapped=id_mapped))
    steps = of(plan, MOUNTER if id_mapped else INIT)
    root = 70000 if id_mapped else 0
    assert ("open_tree", "/c", 0, op.SCRATCH) not in steps
    at = steps.index(
        ("mount", "tmpfs", "minibox", "mode=0755,size=8388608,nr_inodes=2048", HOST, "/c/root/rw", 0, op.SCRATCH)
    )
    as_root = [("set_fs_ids", root, root), ("die_with_parent", op.STATUS)] if id_mapped else []
    assert steps[at + 1 : at + 6 + len(as_root)] == [
        *as_root,
        ("set_fs_ids", root, root + 7),
        ("mkdir", HOST, "/c/root/rw/upper", 0o555),
        ("set_fs_ids", root, root),
        ("mkdir", HOST, "/c/root/rw/work", 0o755),
        overlay()[-2],
    ]
    assert ("send_fd", op.STATUS, op.SCRATCH, op.TAG_DISK) in of(plan, INIT)


def test_plan_of_a_terminal():
    plan = compile_plan(SPEC, ROOTFS, Start(terminal=(24, 80)))
    init = of(plan, INIT)
    at = init.index(("setsid",))
    assert init[at + 2 : at + 7] == [
        ("open_pty", op.PTY_MASTER, op.PTY_SLAVE, 24, 80),
        ("send_fd", op.STATUS, op.PTY_MASTER, op.TAG_PTY),
        ("bind_fd", op.PTY_SLAVE, DEV, "/console"),
        ("controlling_tty", op.PTY_SLAVE),
        ("stdio", op.PTY_SLAVE, op.PTY_SLAVE, op.PTY_SLAVE),
    ]


def test_v1_cgroups_are_entered_before_their_namespace():
    plan = compile_plan(SPEC, ROOTFS, Start(cgroups=("memory:/cg/memory/x", "pids:/cg/pids/x")))
    init = of(plan, INIT)
    at = init.index(("unshare", NAMESPACES["cgroup"]))
    assert init[at - 2 : at] == [("write_fd", op.FIRST_CGROUP, b"0"), ("write_fd", op.FIRST_CGROUP + 1, b"0")]


def test_a_kernel_setting_may_be_any_bytes():
    spec = copy.deepcopy(SPEC)
    spec["linux"]["sysctl"] = {"net.x": "\udcff", "net/y": "1", "net.ipv4.conf.eth0/1.z": "2"}
    written = [step.args for step in compile_plan(spec, ROOTFS, Start()).ops if step.name == "write_proc"]
    assert written[0] == (op.CONTAINERS_PROC | op.NO_LINKS, "/sys/net/x", b"\xff")
    assert [path for _, path, _ in written[1:]] == ["/sys/net/y", "/sys/net/ipv4/conf/eth0.1/z"]


def test_a_time_namespace_is_made_before_the_ids_change():
    spec = copy.deepcopy(SPEC)
    spec["linux"]["namespaces"].append({"type": "time"})
    spec["linux"]["timeOffsets"] = {"boottime": {"secs": 5, "nanosecs": 7}, "monotonic": {"secs": 1}}
    plan = compile_plan(spec, ROOTFS, Start())
    assert not plan.flags & 0x80
    assert of(plan, INIT)[1:6] == [
        ("unshare", 0x80),
        ("write_proc", op.HOST, "/proc/self/timens_offsets", b"boottime 5 7\nmonotonic 1 0\n"),
        ("open", "/proc/self/ns/time_for_children", 0, op.SCRATCH),
        ("setns", op.SCRATCH, 0x80),
        ("wait", op.STATUS, op.TAG_IDENTITY),
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"process": {"rlimits": [{"type": "RLIMIT_DREAMS", "soft": 1, "hard": 1}]}}, "RLIMIT_DREAMS"),
        ({"linux": {"rootfsPropagation": "sideways"}}, "sideways"),
        ({"linux": {"namespaces": [{"type": "space"}]}}, "space"),
        ({"linux": {"devices": [{"path": "/dev/x", "type": "z"}]}, "mounts": [{"destination": "/dev", "type": "tmpfs"}]}, "/dev/x"),
        ({"mounts": [{"destination": "data"}]}, "/data has no type"),
        ({"mounts": [{"destination": f"/{n}", "type": "bind", "source": "/s"} for n in range(465)]}, "465"),
    ],
)  # fmt: skip
def test_a_spec_that_means_nothing_here_is_one_clear_error(change: Any, named: str):
    spec = copy.deepcopy(SPEC)
    for key, value in change.items():
        spec[key] = {**spec[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ConfigError, match=named):
        compile_plan(spec, ROOTFS, Start())


# ---- where a command is looked for --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "env", "paths"),
    [
        ("sh", ("PATH=/bin:/usr/bin",), ("/bin/sh", "/usr/bin/sh")),
        ("sh", ("A=PATH=/x", "PATH=/bin", "PATH=/later"), ("/bin/sh",)),
        ("sh", (), ("/usr/local/bin/sh", "/usr/bin/sh", "/bin/sh")),
        ("sh", ("PATH=:/bin:",), ("./sh", "/bin/sh", "./sh")),
        ("sh", ("PATH=",), ("./sh",)),
        ("/bin/sh", ("PATH=/x",), ("/bin/sh",)),
        ("./sh", ("PATH=/x",), ("./sh",)),
        ("", ("PATH=/x",), ("",)),
    ],
)
def test_candidates(name: str, env: tuple[str, ...], paths: tuple[str, ...]):
    assert candidates(name, env) == paths
