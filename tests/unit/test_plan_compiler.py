"""Spec -> Plan: the exact operations in the three modes, and what holds for the order of any Plan."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minibox.engine.host_facts import HostFacts
from minibox.engine.ids import IdMappings, single
from minibox.engine.options import RunOptions
from minibox.engine.spec import make_spec
from minibox.engine.volumes import user_mounts
from minibox.errors import ConfigError
from minibox.plan import operations as op
from minibox.plan.compiler import Plan, Start, compile_plan
from minibox.plan.disk import Disk
from minibox.plan.mounts import ATIME, Mount, open_bind, read
from minibox.plan.namespaces import NAMESPACES
from minibox.plan.operations import HOST, INIT, MOUNTER, PARENT, Op
from minibox.plan.process import candidates
from minibox.plan.rootfs import Rootfs
from minibox.record import replace

CLONE_VM = 0x100
SPEC: Any = {
    "process": {
        "user": {"uid": 1000, "gid": 1001, "additionalGids": [29]},
        "args": ["sh", "-l"],
        "env": ["PATH=/bin:/sbin"],
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

# ---- exact plans --------------------------------------------------------------------------------

BIND_SOURCE = [
    ("open_tree", "/src", op.AT_RECURSIVE, op.FIRST_BIND),
    ("mount_attributes", op.FIRST_BIND, 0, 0, op.MS_PRIVATE, 1),
    ("mount_attributes", op.FIRST_BIND, op.RDONLY, 0, 0, 0),
]
FURNISH = [
    ("mount", "proc", "proc", "", op.ROOT, "/proc", op.NOSUID | op.NODEV | op.NOEXEC),
    ("attach", op.FIRST_BIND, op.ROOT, "/data"),
]
NODES = [
    ("mkdir", op.ROOT, "/dev", 0o755),
    *(
        ("mknod", op.ROOT, path, 0o020666, os.makedev(*number), 0, 0)
        for path, number in (
            ("/dev/null", (1, 3)), ("/dev/zero", (1, 5)), ("/dev/full", (1, 7)), ("/dev/random", (1, 8)),
            ("/dev/urandom", (1, 9)), ("/dev/tty", (5, 0)),
        )
    ),
]  # fmt: skip
BOUND = [NODES[0], *(("bind", path, op.ROOT, path, 0, 0) for _, _, path, *_ in NODES[1:])]
LINKS = [
    ("symlink", target, op.ROOT, path)
    for target, path in (
        ("/proc/self/fd", "/dev/fd"), ("/proc/self/fd/0", "/dev/stdin"), ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"), ("pts/ptmx", "/dev/ptmx"),
    )
]  # fmt: skip
CLOSE_UP = [
    ("sethostname", "box"),
    ("write_file", op.ROOT, "/proc/sys/net/ipv4/ip_forward", b"1"),
    ("mkdir", op.ROOT, "/work", 0o755),
    ("read_only", op.ROOT, "/proc/sys"),
    ("mask", op.ROOT, "/proc/kcore"),
    ("mount_attributes", op.ROOT, op.RDONLY, 0, 0, 0),
    ("pivot_root", op.ROOT),
    ("setsid",),
    ("session_keyring",),
    ("stdio", op.STDIN, op.STDOUT, op.STDERR),
    ("loopback_up",),
]
GO = [("wait", op.STATUS, op.TAG_GO)]
EXEC = ("exec", ("/bin/sh", "/sbin/sh"), ("sh", "-l"), ("PATH=/bin:/sbin",))


def overlay(options: str = ",volatile") -> list[tuple[Any, ...]]:
    """The stack of a container that mounts its layers itself."""
    options = options if options.startswith(",userxattr") else ",metacopy=off,redirect_dir=off" + options
    return [
        ("propagation", "/", PRIVATE),
        ("mount", "tmpfs", "minibox", "mode=0755", HOST, "/c/root", op.NOSUID),
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
        *(seccomp if seccomp_first else []),
        ("setresgid", 1001),
        ("setresuid", 1000),
        ("capset", 1 << 5, 1 << 5, 0),
        ("die_with_parent", op.STATUS),
        ("close_fds", 0),
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
    plan = compile_plan(SPEC, ROOTFS, Start(cgroup="minibox-x", seccomp=FILTER, network="bridge"))
    flags = sum(NAMESPACES[kind] for kind in ("pid", "mount", "uts", "ipc", "network"))
    assert plan.flags == flags  # the cgroup namespace waits until the process is in its cgroup
    assert of(plan, PARENT) == [
        ("create_cgroup", "minibox-x"),
        ("clone", flags),
        ("send", op.TAG_IDENTITY),
        ("network", "bridge"),
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
    ports = ("0.0.0.0:8080->80/tcp",)
    steps = of(compile_plan(SPEC, ROOTFS, Start(network="bridge", ports=ports)), PARENT)
    assert steps[0] == ("reserve_ports", ports)
    assert steps[-3:] == [("network", "bridge"), ("publish", ports), ("send", op.TAG_GO)]


def test_plan_with_id_mapped_layers():
    spec = with_user_namespace((0, 70000, 65536))
    spec["mounts"][1]["options"].append("idmap")
    plan = compile_plan(spec, ROOTFS, Start(id_mapped=True, seccomp=FILTER))
    flags = sum(NAMESPACES[kind] for kind in ("pid", "mount", "uts", "ipc", "network", "user"))
    assert of(plan, PARENT) == [
        ("clone", flags),
        ("write_id_maps",),
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
    plan = compile_plan(spec, Rootfs("/c", ("/l/b", "/l/a"), userxattr=True), Start(setgroups=False, seccomp=FILTER))
    assert [step[0] for step in of(plan, PARENT)] == ["clone", "write_id_maps", "send", "send"]
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
        ("mount", "tmpfs", "minibox", "mode=0755", HOST, "/c/root", op.NOSUID),
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
    at = steps.index(("mount", "tmpfs", "minibox", "mode=0755,size=8388608,nr_inodes=2048", HOST, "/c/root/rw", 0))
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
        ("bind_fd", op.PTY_SLAVE, HOST, "/dev/console"),
        ("controlling_tty", op.PTY_SLAVE),
        ("stdio", op.PTY_SLAVE, op.PTY_SLAVE, op.PTY_SLAVE),
    ]


def test_v1_cgroups_are_entered_before_their_namespace():
    plan = compile_plan(SPEC, ROOTFS, Start(cgroup="x", cgroup_tasks=("/cg/memory/x", "/cg/pids/x")))
    init = of(plan, INIT)
    at = init.index(("unshare", NAMESPACES["cgroup"]))
    assert init[at - 2 : at] == [("write_fd", op.FIRST_CGROUP, b"0"), ("write_fd", op.FIRST_CGROUP + 1, b"0")]


def test_a_kernel_setting_may_be_any_bytes():
    spec = copy.deepcopy(SPEC)
    spec["linux"]["sysctl"] = {"net.x": "\udcff", "net/y": "1", "net.ipv4.conf.eth0/1.z": "2"}
    written = [step.args for step in compile_plan(spec, ROOTFS, Start()).ops if step.name == "write_file"]
    assert written[0] == (op.ROOT, "/proc/sys/net/x", b"\xff")
    assert [path for _, path, _ in written[1:]] == ["/proc/sys/net/y", "/proc/sys/net/ipv4/conf/eth0.1/z"]


def test_a_time_namespace_is_made_before_the_ids_change():
    spec = copy.deepcopy(SPEC)
    spec["linux"]["namespaces"].append({"type": "time"})
    spec["linux"]["timeOffsets"] = {"boottime": {"secs": 5, "nanosecs": 7}, "monotonic": {"secs": 1}}
    plan = compile_plan(spec, ROOTFS, Start())
    assert not plan.flags & 0x80
    assert of(plan, INIT)[1:6] == [
        ("unshare", 0x80),
        ("write_file", op.HOST, "/proc/self/timens_offsets", b"boottime 5 7\nmonotonic 1 0\n"),
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


# ---- what holds for the order of any plan -------------------------------------------------------

PASSWD = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n"
GROUP = "root:x:0:\naudio:x:29:ada\n"


def id_mappings(first: int, size: int) -> IdMappings:
    whole: Any = ({"containerID": 0, "hostID": first, "size": size},)
    return IdMappings(whole, whole)


MAPPINGS = {
    "host": None,
    "range": id_mappings(70000, 65536),
    "single": id_mappings(1000, 1),
}


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, Any, Start]:
    """A Plan of arbitrary options, its Spec and Start."""
    mode = draw(st.sampled_from(sorted(MAPPINGS)))
    ids = MAPPINGS[mode]
    options = RunOptions(
        image="base",
        command=("sh",),
        tty=draw(st.booleans()),
        read_only=draw(st.booleans()),
        privileged=draw(st.booleans()) and ids is None,
        user=draw(st.sampled_from(["", "0:0"] if mode == "single" else ["", "ada", "5:6", "0:7"])),
        workdir=draw(st.sampled_from(["", "/work"])),
        security_opt=draw(st.sampled_from([(), ("no-new-privileges",)])),
        cap_add=draw(st.sampled_from([(), ("SYS_ADMIN",)])),
        cap_drop=draw(st.sampled_from([(), ("ALL",), ("KILL",)])),
        volume=draw(
            st.sampled_from([(), ("/src:/data",), ("/src:/data:ro", "/src:/proc/sys"), ("/src:/etc/x:ro,rslave",)])
        ),
        tmpfs=draw(st.sampled_from([(), ("/run",), ("/run:size=1m,noexec",)])),
        ulimit=draw(st.sampled_from([(), ("nofile=10:20",)])),
        sysctl=draw(st.sampled_from([(), ("kernel.msgmax=5",)])),
        group_add=() if mode == "single" else draw(st.sampled_from([(), ("audio",)])),
    )
    host = HostFacts(environ={}, stat=lambda path: os.stat("/"), lstat=lambda path: os.stat("/"))
    mounts = user_mounts(options, {}, host, root="/r", container_id="0" * 64, idmap_binds=mode == "range")
    spec = make_spec(
        options, {}, lookup=lambda path: {"/etc/passwd": PASSWD, "/etc/group": GROUP}[path], host=host,
        container_id="0" * 64, rootfs="/c/root/root", root="/r", network=draw(st.sampled_from(["none", "bridge", "host"])),
        id_mappings=ids, idmap_binds=mode == "range", mounts=mounts, files={"/etc/hosts": "/c/hosts"},
    )  # fmt: skip
    start = Start(
        id_mapped=mode == "range",
        setgroups=not (ids and single(spec)),
        seccomp=draw(st.sampled_from([b"", FILTER])),
        cgroup="minibox-x",
        cgroup_tasks=draw(st.sampled_from([(), ("/cg/memory/x",)])),
        cgroup_mounts=(("", "cgroup2", ""),),
        terminal=(24, 80) if options.tty else None,
        network=draw(st.sampled_from(["", "bridge"])),
    )
    layers = tuple(f"/l/{n}" for n in range(draw(st.integers(1, 5))))
    return compile_plan(spec, Rootfs("/c", layers), start), spec, start


def where(steps: list[Op], *names: str) -> list[int]:
    return [number for number, step in enumerate(steps) if step.name in names]


MOUNTS = ("mount", "mount_overlay", "attach", "bind", "mask", "read_only")
ID_CHANGES = ("setresuid", "setresgid", "setgroups", "capset", "set_fs_ids", "cap_ambient")


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(plans())
def test_order_of_any_plan(made: tuple[Plan, Any, Start]):
    plan, spec, start = made
    init = plan.of(INIT)
    (pivot,) = where(init, "pivot_root")

    # The host's file system: sources are opened while it is in sight, and it goes before anything of the image runs.
    assert max(where(init, *MOUNTS, "mkdir", "mknod", "symlink", "write_file")) < pivot
    assert all(str(step.args[0]).startswith("/dev/") for step in init if step.name == "bind")
    for actor in (init, plan.of(MOUNTER)):
        sources = [n for n, step in enumerate(actor) if step.name == "open_tree" and step.args[2] >= op.FIRST_BIND]  # type: ignore[operator]
        assert max(sources, default=-1) < min(where(actor, "mount", "mount_overlay", "attach"), default=1 << 30)
    private = [n for n, step in enumerate(init) if step.name == "propagation" and step.args == ("/", PRIVATE)]
    assert private and min(where(init, *MOUNTS)) > private[0]
    root_paths = [step.args[index] for step in init for index in (0, 1, 3)
                  if step.name in {0: ("mask", "read_only", "mkdir", "write_file", "mknod"), 1: ("attach",), 3: ("mount",)}[index]]  # fmt: skip
    assert set(root_paths) <= {op.ROOT, HOST}
    in_root = [n for n, step in enumerate(init) if step.name == "mount" and step.args[3] == op.ROOT]
    assert min(in_root) > max(n for n, step in enumerate(init) if step.name in ("open", "recv_fd", "open_tree"))

    assert min(where(init, "open_pty", "bind_fd", "stdio", "exec")) > pivot  # /dev is the container's from here on

    # Kernel settings are written before /proc/sys is read-only, and nothing is mounted over a mask.
    closing = where(init, "read_only", "mask")
    if closing:
        assert max(where(init, "write_file"), default=-1) < min(closing)
        assert max(where(init, "mount", "attach", "bind", "mkdir")) < min(closing)
        assert max(closing) < pivot
    if spec["root"]["readonly"]:
        last = init[pivot - 1]
        assert (last.name, last.args[:2]) == ("mount_attributes", (op.ROOT, op.RDONLY))

    # A killed parent takes each child along, whatever its ids are.
    for actor in (init, plan.of(MOUNTER)):
        if actor:
            wishes = where(actor, "die_with_parent")
            assert wishes[0] == 0 and wishes[-1] > max(where(actor, *ID_CHANGES), default=0)

    # Privileges go last, in an order in which each step still has the one it needs.
    become = init[pivot:]
    uid, gid, caps = (where(become, name)[0] for name in ("setresuid", "setresgid", "capset"))
    assert where(become, "cap_bounding")[0] < gid < uid < caps
    groups = where(become, "setgroups")
    assert (groups and groups[0] < gid) if start.setgroups else not where(init, "setgroups")
    assert max(where(become, "cap_ambient"), default=caps) >= caps
    assert max(where(become, "setrlimit", "umask"), default=0) < caps
    assert max(where(become, "chdir")) < min(where(become, "setrlimit"), default=1 << 30)
    filters, no_new_privs = where(become, "seccomp"), where(become, "no_new_privs")
    assert len(filters) == bool(start.seccomp) and len(no_new_privs) == spec["process"]["noNewPrivileges"]
    if filters:
        assert filters[0] == len(become) - 2 if no_new_privs else filters[0] < gid
    assert where(become, "close_fds")[0] >= max(caps, *where(become, "stdio", "send_fd", "wait", "die_with_parent"))
    assert [step.name for step in init if step.name == "exec"] == ["exec"] and init[-1].name == "exec"
    assert not where(init[: where(init, "exec")[0]], "exec")


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(plans())
def test_parent_and_children_never_wait_for_each_other_in_vain(made: tuple[Plan, Any, Start]):
    plan, spec, _ = made
    sent = [step.args[0] for step in plan.of(PARENT) if step.name == "send"]
    assert [step.args[1] for step in plan.of(INIT) if step.name == "wait"] == sent
    handed = [step.args[1] for step in plan.of(MOUNTER) if step.name == "send_fd"]
    assert [step.args[1] for step in plan.of(INIT) if step.name == "recv_fd"] == handed
    names = [step.name for step in plan.ops]
    if plan.of(MOUNTER):  # it needs the user namespace, whose maps must be there
        assert names.index("write_id_maps") < names.index("clone_mounter") < plan.ops.index(plan.of(MOUNTER)[0])
    assert names.index("create_cgroup") < names.index("clone")
    user = any(namespace["type"] == "user" for namespace in spec["linux"]["namespaces"])
    assert ("write_id_maps" in names) is user
    assert not any(step.name in ("mount_overlay", "set_fs_ids") for step in plan.of(INIT)) or not plan.of(MOUNTER)


# ---- mounts -------------------------------------------------------------------------------------


def understood(*options: str, fstype: str = "tmpfs", source: str | None = "s") -> Mount:
    (mount,) = read([{"destination": "/d", "type": fstype, "source": source, "options": list(options)}], ())  # type: ignore[typeddict-item]
    return mount


def test_mount_options():
    assert understood("nosuid", "nodev", "mode=755", "size=1k").options == "mode=755,size=1k"
    assert understood("nosuid", "nodev", "suid").set_ == op.NODEV
    assert understood("ro", "rw").set_ == 0 and understood("rw", "ro").set_ == op.RDONLY
    assert (understood("noatime").set_, understood("noatime").clear) == (op.NOATIME, ATIME)
    assert understood("noatime", "strictatime").set_ == op.STRICTATIME
    assert understood("noatime", "relatime").set_ == 0
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
        ({"destination": "/d", "type": "bind", "source": "/s", "options": ["size=1k"]}, "no option 'size=1k'.*/d"),
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
