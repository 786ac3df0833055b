"""What holds for the order of any Plan."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minibox.engine.host.ids import IdMappings
from minibox.engine.spec.host import HostFacts
from minibox.engine.spec.mount_options import user_mounts
from minibox.engine.spec.options import RunOptions, typed
from minibox.engine.spec.runtime_spec import make_spec
from minibox.linux.cgroup.steps import mkdir
from minibox.plan import operations as op
from minibox.plan import parent
from minibox.plan.compiler import Plan, compile_plan
from minibox.plan.namespaces import has_one_group
from minibox.plan.operations import HOST, INIT, MOUNTER, PARENT, Op
from minibox.plan.rootfs import Rootfs
from minibox.plan.start import Start

FILTER = b"\0" * 8
PRIVATE = op.MS_REC | op.MS_PRIVATE
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


ON_BRIDGE = parent.on_bridge(
    "b", "10.0.0.1", "10.0.0.0/24", veth="v", interface="eth0", address="10.0.0.7", mac="02:00:00:00:00:07", internal=False
)  # fmt: skip


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
        cap_add=draw(st.sampled_from([(), ("SYS_ADMIN",)])),
        cap_drop=draw(st.sampled_from([(), ("ALL",), ("KILL",)])),
        group_add=() if mode == "single" else draw(st.sampled_from([(), ("audio",)])),
        **typed(
            {
                "volume": draw(
                    st.sampled_from(
                        [(), ("/src:/data",), ("/src:/data:ro", "/src:/proc/sys"), ("/src:/etc/x:ro,rslave",)]
                    )
                ),
                "tmpfs": draw(st.sampled_from([(), ("/run",), ("/run:size=1m,noexec",)])),
                "security_opt": draw(st.sampled_from([(), ("no-new-privileges",)])),
                "ulimit": draw(st.sampled_from([(), ("nofile=10:20",)])),
                "sysctl": draw(st.sampled_from([(), ("kernel.msgmax=5",)])),
            }
        ),
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
        setgroups=not (ids and has_one_group(spec)),
        seccomp=draw(st.sampled_from([b"", FILTER])),
        cgroup_steps=(mkdir("/cg/minibox-x"),),
        cgroups=draw(st.sampled_from([(":/cg/x",), ("memory:/cg/memory/x",)])),
        cgroup_mounts=(("", "cgroup2", ""),),
        terminal=(24, 80) if options.tty else None,
        network=draw(st.sampled_from([(), tuple(ON_BRIDGE)])),
    )
    layers = tuple(f"/l/{n}" for n in range(draw(st.integers(1, 5))))
    return compile_plan(spec, Rootfs("/c", layers), start), spec, start


def where(steps: list[Op], *names: str) -> list[int]:
    return [number for number, step in enumerate(steps) if step.name in names]


MOUNTS = ("mount", "mount_overlay", "attach", "bind_device", "mask", "read_only")
KERNELS = {op.CONTAINERS_PROC, op.CONTAINERS_SYS}
ID_CHANGES = ("setresuid", "setresgid", "setgroups", "set_fs_ids")


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(plans())
def test_order_of_any_plan(made: tuple[Plan, Any, Start]):
    plan, spec, start = made
    init = plan.of(INIT)
    (pivot,) = where(init, "pivot_root")

    # The host's file system: sources are opened while it is in sight, and it goes before anything of the image runs.
    assert max(where(init, *MOUNTS, "mkdir", "mknod", "symlink", "write_proc")) < pivot
    assert not where(init, "bind") and all(str(init[n].args[0]).startswith("/dev/") for n in where(init, "bind_device"))
    for actor in (init, plan.of(MOUNTER)):
        sources = [n for n, step in enumerate(actor) if step.name == "open_tree" and step.args[2] >= op.FIRST_BIND]  # type: ignore[operator]
        assert max(sources, default=-1) < min(where(actor, "mount", "mount_overlay", "attach"), default=1 << 30)
    private = [n for n, step in enumerate(init) if step.name == "propagation" and step.args == ("/", PRIVATE)]
    assert private and min(where(init, *MOUNTS)) > private[0]
    roots: list[Any] = [step.args[index] for step in init for index in (0, 1, 3)
                  if step.name in {0: ("mask", "read_only", "mkdir", "write_proc", "mknod"), 1: ("attach",), 3: ("mount",)}[index]]  # fmt: skip
    held = {op.CONTAINERS_DEV, *KERNELS}
    assert {root if root == HOST else root & ~op.NO_LINKS for root in roots} <= {op.ROOT, HOST, *held}
    in_root = [n for n, step in enumerate(init) if step.name == "mount" and step.args[3] != HOST]
    assert min(in_root) > max(n for n, step in enumerate(init) if step.name in ("open", "recv_fd", "open_tree"))

    assert min(where(init, "open_pty", "bind_fd", "stdio", "exec")) > pivot  # /dev is the container's from here on

    # What is closed of the kernel's is found by the mount of it, and what is mounted there by no link.
    assert all(init[n].args[0] in KERNELS for n in where(init, "mask", "read_only"))
    assert all(init[n].args[0] == op.CONTAINERS_PROC | op.NO_LINKS for n in where(init, "write_proc"))
    for step in init:
        if step.name == "mount" and step.args[0] in ("proc", "sysfs"):
            assert step.args[3:5] == (op.ROOT | op.NO_LINKS, "/proc" if step.args[0] == "proc" else "/sys")

    # Kernel settings are written before /proc/sys is read-only, and nothing is mounted over a mask.
    closing = where(init, "read_only", "mask")
    if closing:
        assert max(where(init, "write_proc"), default=-1) < min(closing)
        assert max(where(init, "mount", "attach", "bind_device", "mkdir")) < min(closing)
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
        behind = [step.name for step in become[filters[0] + 1 :]]
        assert behind == ["exec"] if no_new_privs else {*behind} <= {"capset", "cap_ambient", "gate", "exec"}
    assert where(become, "close_fds")[0] >= max(uid, *where(become, "stdio", "send_fd", "wait", "die_with_parent"))
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
        assert names.index("write_uid_map") < names.index("clone_mounter") < plan.ops.index(plan.of(MOUNTER)[0])
    assert names.index("cgroup_mkdir") < names.index("clone")
    user = any(namespace["type"] == "user" for namespace in spec["linux"]["namespaces"])
    assert ("write_uid_map" in names) is user
    assert not any(step.name in ("mount_overlay", "set_fs_ids") for step in plan.of(INIT)) or not plan.of(MOUNTER)
