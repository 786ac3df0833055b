"""Labels of AppArmor and SELinux: when they are taken on."""

from __future__ import annotations

from typing import Any

from minibox.plan import operations as op
from minibox.plan.compiler import compile_plan
from minibox.plan.exec import Joined, compile_exec
from minibox.plan.namespaces import NAMESPACES
from minibox.plan.rootfs import Rootfs
from minibox.plan.start import Start

LABEL, FILES = "u:r:t:s0:c1,c2", "u:object_r:f:s0:c1,c2"
PROCESS: Any = {
    "cwd": "/", "args": ["/bin/true"], "noNewPrivileges": True, "apparmorProfile": "mine", "selinuxLabel": LABEL
}  # fmt: skip
START = Start(detached=True, gate=True, seccomp=bytes(8))
MAP = [{"containerID": 0, "hostID": 70000, "size": 65536}]
ALL = sum(NAMESPACES.values())


def spec(*fstypes: str, **more: Any) -> Any:
    return {
        "ociVersion": "1.2.0",
        "process": PROCESS,
        "mounts": [{"destination": f"/{kind}", "type": kind} for kind in fstypes],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "ipc"}], "mountLabel": FILES},
        **more,
    }


def init_of(spec: Any) -> list[tuple[Any, ...]]:
    plan = compile_plan(spec, Rootfs(path="/b/rootfs"), START)
    return [(step.name, *step.args) for step in plan.of(op.INIT)]


def test_the_files_are_the_hosts_and_are_written_to_behind_hooks_and_gate():
    init = init_of(spec(hooks={"startContainer": [{"path": "/hook"}]}))
    pivot = init.index(("pivot_root", op.ROOT))
    assert init[pivot - 3 : pivot] == [
        ("open", "/proc/thread-self/attr/apparmor/exec", 1, op.LABEL_APPARMOR),
        ("open", "/proc/thread-self/attr/exec", 1, op.LABEL_SELINUX),
        ("open", "/proc/thread-self/attr/keycreate", 1, op.LABEL_KEYS),
    ]
    keys = init.index(("label", op.LABEL_KEYS, LABEL.encode()))
    assert init[keys + 1] == ("session_keyring", 1)
    assert [step[0] for step in init[-7:]] == ["gate", "hook", "label", "label", "no_new_privs", "seccomp", "exec"]
    assert init[-5:-3] == [
        ("label", op.LABEL_APPARMOR, b"exec mine"),
        ("label", op.LABEL_SELINUX, LABEL.encode()),
    ]


def test_an_exec_reaches_them_through_the_hosts_proc_as_the_process_that_goes_on():
    steps = [(step.name, *step.args) for step in compile_exec(PROCESS, Joined(ALL), START).of(op.INIT)]
    names = [name for name, *_ in steps]
    assert names.index("open") < names.index("setns") < names.index("clone_sibling") < names.index("open_in")
    assert ("open_in", op.PROC, "/thread-self/attr/apparmor/exec", 1, op.LABEL_APPARMOR) in steps
    assert names[-5:] == ["label", "label", "no_new_privs", "seccomp", "exec"]


def test_in_a_mount_namespace_by_path_they_are_not_what_is_in_proc_there():
    made = spec()
    made["linux"]["namespaces"] = [{"type": "mount", "path": "/proc/9/ns/mnt"}]
    init = init_of(made)
    held = init.index(("open", "/proc", 0o10200000, op.PROC))
    assert held < init.index(("setns", op.FIRST_JOINED, NAMESPACES["mount"]))
    assert ("open_in", op.PROC, "/thread-self/attr/apparmor/exec", 1, op.LABEL_APPARMOR) in init
    assert not any(step[:2] == ("open", "/proc/thread-self/attr/apparmor/exec") for step in init)


def test_without_labels_there_is_nothing_of_it():
    bare = spec(process={"cwd": "/", "args": ["/bin/true"], "apparmorProfile": "", "selinuxLabel": ""})
    assert not {"open", "label"} & {name for name, *_ in init_of(bare)}
    plan = compile_exec(bare["process"], Joined(ALL), Start())
    assert not {"open", "open_in", "label"} & {step.name for step in plan.ops}


def test_mounts_that_can_have_a_label_get_it():
    made = spec("tmpfs", "devpts", "proc", "sysfs", "mqueue")
    made["mounts"].append({"destination": "/own", "type": "tmpfs", "options": ['context="x"', "mode=1777"]})
    steps = init_of(made)
    context = f'context="{FILES}"'
    assert ("mount_tmpfs", context, op.ROOT, "/tmpfs", 0, 0, op.SCRATCH) in steps
    label = ("label_file", op.SCRATCH, "/", FILES.encode())
    assert label in steps
    options = {target: options for name, *rest in steps if name == "mount" for _, _, options, _, target, *_ in [rest]}
    assert options == {"/devpts": context, "/proc": "", "/sysfs": "", "/mqueue": "", "/own": 'context="x",mode=1777'}
    own = spec("mqueue", "tmpfs")
    own["linux"] |= {
        "namespaces": [*own["linux"]["namespaces"], {"type": "user"}],
        "uidMappings": MAP,
        "gidMappings": MAP,
    }
    assert label not in init_of(own), "there it is not the container's to label"
