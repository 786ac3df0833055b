"""The end of a container as data: what undoes a start, for a few Specs; as a line, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from minibox.engine.process import undo
from minibox.engine.process import undo_list as lists
from minibox.engine.state import live_file
from minibox.engine.state.claim import Claim, note_ended, read_live
from minibox.errors import Unreadable
from minibox.image.layout.image import ResolvedImage
from minibox.linux.cgroup import CgroupHost, cgroup_steps, planned
from minibox.plan import parent
from minibox.plan.compiler import compile_plan
from minibox.plan.operations import PARENT, Op
from minibox.plan.parent import undo_list
from minibox.plan.rootfs import Rootfs
from minibox.plan.start import Start
from minibox.record import replace

ID = "5b" * 32
SPEC: Any = {
    "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "env": [], "cwd": "/"},
    "root": {"path": "/c/root/root"},
    "mounts": [],
    "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "network")]},
}
V1 = CgroupHost("v1", {"memory": "/cg/memory", "freezer": "/cg/freezer"})
V2 = CgroupHost("v2", {}, (), "/cg", ("memory",), ("memory",))
SCOPE = CgroupHost("v2", {}, (), "/cg/m.scope", ("memory",), ("memory",), scope="m.scope", slice="machine.slice")
ON_BRIDGE = parent.on_bridge(
    "minibox0", "10.0.0.1", "10.0.0.0/24", veth="v", interface="eth0", address="10.0.0.7", mac="02:00:00:00:00:07", internal=False
)  # fmt: skip


def undone(start: Start, spec: Any = SPEC, rootfs: Rootfs | None = None) -> list[tuple[Any, ...]]:
    plan = compile_plan(spec, rootfs or Rootfs("/c", ("/l/a",)), start)
    return [(step.name, *step.args) for step in undo_list(plan.ops)]


def in_group(host: CgroupHost, **more: Any) -> Start:
    steps = cgroup_steps(host, "minibox-x", {"memory": {"limit": 1 << 30}} if host.scope else {})
    return Start(cgroup_steps=steps, cgroups=planned(host, "minibox-x", steps).labels, **more)


def test_on_a_bridge_with_ports():
    held = (parent.hold_ids("/r/ids/5", ID), parent.hold_address("/run/b", "10.0.0.7", ID))
    published = (*parent.publish("t", "minibox0", "10.0.0.7", "10.0.0.0/24", []), parent.note_ports("/c/ports"))
    start = in_group(V2, held=held, network=tuple(ON_BRIDGE), published=published)
    assert undone(start) == [
        ("remove_file", "/c/ports"),
        ("kill_cgroup", (":/cg/minibox-x",)),
        ("cgroup_rmdir", "/cg/minibox-x"),
        ("leave_network", "/run/b", "10.0.0.7", ID),
        ("release_ids", "/r/ids/5", ID),
    ]


def test_without_a_network_on_v1():
    assert undone(in_group(V1)) == [
        ("kill_cgroup", ("memory:/cg/memory/minibox-x", "freezer:/cg/freezer/minibox-x")),
        ("cgroup_rmdir", "/cg/freezer/minibox-x"),
        ("cgroup_rmdir", "/cg/memory/minibox-x"),
    ]


def test_below_a_scope_of_systemds():
    assert undone(in_group(SCOPE)) == [
        ("kill_cgroup", (":/cg/m.scope/minibox-x",)),
        ("cgroup_rmdir", "/cg/m.scope/minibox-x"),
        ("end_scope", "/cg/m.scope"),
    ]


def test_of_an_oci_engines():
    """In a scope that systemd makes of it, with a device of the host's."""
    scope = Op("systemd_own_scope", ("/cg/a.scope", "a.scope", "s.slice", ()), "", PARENT)
    spec = {**SPEC, "linux": {**SPEC["linux"], "netDevices": {"eth7": {"name": "eth0"}}}}
    assert undone(Start(cgroup_joins=(scope,)), spec, Rootfs(path="/b/rootfs")) == [
        ("return_device", "eth7", "eth0", None),
        ("end_cgroup", "/cg/a.scope"),
        ("kill_cgroup", ()),
    ]


def test_of_an_ordinary_users_nothing_but_its_cgroup_outlives_it():
    assert undone(Start(ordinary=True, network=(parent.user_network("pasta", ("pasta", "$INIT")),))) == [
        ("kill_cgroup", ())
    ]


LIST = (
    Op("kill_cgroup", ((f":/cg/{ID}", f"memory:/cg/m-{ID}"),), "x", PARENT),
    Op("unmount_root", (f"/c/{ID}/root", None, 1, 2, 3), "x", PARENT),
)


def test_a_list_is_a_line_and_comes_back():
    line = lists.encode([*LIST, Op("return_device", ("a", "b", None), "only of a start that has failed", PARENT)])
    assert line.count(b"\n") == 1 and line.startswith(live_file.UNDO_BEGINS)
    assert [(step.name, step.args) for step in lists.decode(line, "/x", ID)] == [
        (step.name, step.args) for step in LIST
    ]


@pytest.mark.parametrize(
    "step",
    [("cgroup_mkdir", ["/cg", "", 0]), ("rm -rf", ["/"]), ("cgroup_rmdir", []), ("cgroup_rmdir", [["/a"]]),
     ("release_ids", ["/a", 5]), ("kill_cgroup", [[1]]), ("cgroup_rmdir", ["/cg\0"]), ("kill_cgroup", [["a\0"]]),
     ("unmount_root", ["/a", None, -1, 2, 3]), ("unmount_root", ["/a", None, 1, 2, 1 << 64])],
)  # fmt: skip
def test_what_undoes_nothing_is_damage(step: tuple[str, list[Any]]):
    fields = {"Steps": [{"Operation": step[0], "Arguments": step[1]}]}
    with pytest.raises(Unreadable, match="is not an undo operation"):
        lists.decode(lists.LIST.encode(fields), "/x", "")


@pytest.mark.parametrize(
    "step",
    [("remove_file", ["/tmp"]), ("kill_cgroup", [["memory:/cg/minibox-" + ID, ":/cg"]]), ("cgroup_rmdir", [""]),
     ("cgroup_rmdir", ["/cg/minibox-" + "6c" * 32]), ("leave_network", ["/run/b", "10.0.0.7", "6c" * 32]),
     ("release_ids", ["/r/ids/5", "6c" * 32])],
)  # fmt: skip
def test_a_list_never_removes_what_belongs_to_others(step: tuple[str, list[Any]]):
    fields = {"Steps": [{"Operation": step[0], "Arguments": step[1]}]}
    with pytest.raises(Unreadable, match="is for another container"):
        lists.decode(lists.LIST.encode(fields), "/x", ID)


def test_each_operation_of_a_list_has_the_containers_id():
    """Whatever a start can make: the list comes back."""
    held = (parent.hold_ids("/r/ids/5", ID), parent.hold_address("/run/b", "10.0.0.7", ID))
    published = (*parent.publish("t", "minibox0", "10.0.0.7", "10.0.0.0/24", []), parent.note_ports(f"/c/{ID}/ports"))
    for host in (V1, V2, replace(SCOPE, v2_parent=f"/cg/minibox-{ID}.scope")):
        steps = cgroup_steps(host, f"minibox-{ID}", {"memory": {"limit": 1 << 30}} if host.scope else {})
        start = Start(
            cgroup_steps=steps, cgroups=planned(host, f"minibox-{ID}", steps).labels, held=held,
            ports=(parent.listen(f"/run/attach/{ID}"),), network=tuple(ON_BRIDGE), published=published,
        )  # fmt: skip
        made = undo_list(compile_plan(SPEC, Rootfs("/c", ("/l/a",)), start).ops)
        assert [step.name for step in lists.decode(lists.encode(made), "/x", ID)] == [step.name for step in made]


def test_it_stays_in_the_owners_file_until_the_end_is_done(tmp_path: Path):
    image = ResolvedImage("base", "sha256:" + "0" * 64, {}, (), "sha256:" + "1" * 64)
    claim = Claim.new(str(tmp_path), "", remove=True)
    claim.note_image("base", image)
    line = lists.encode(LIST)
    claim.note_undo(line)
    claim.note_process(os.getpid(), ["true"])
    found = read_live(str(tmp_path), claim.id)
    assert (found.undo, found.pid, found.command) == (line, os.getpid(), ("true",))
    note_ended(claim.fd, 7)
    found = read_live(str(tmp_path), claim.id)
    assert (found.undo, found.pid, found.status) == (line, -1, 7)
    claim.hand_over()  # who claims it next has it, and whoever comes after him
    for _ in range(2):
        again = Claim.of(str(tmp_path), claim.id, "", remove=True)
        assert again and again.undo == line
        again.hand_over()


def test_what_came_later_is_added(tmp_path: Path):
    directory = tmp_path / ID
    directory.mkdir()
    assert lists.read_more(str(directory)) == ()
    for path in (f"/a/{ID}", f"/b/{ID}", f"/a/{ID}"):
        lists.write_more(str(directory), [Op("cgroup_rmdir", (path,), "", PARENT)])
    assert [step.args for step in lists.read_more(str(directory))] == [(f"/a/{ID}",), (f"/b/{ID}",)]
    (directory / lists.MORE).write_bytes(b"")  # as an older minibox wrote it
    assert lists.read_more(str(directory)) == ()


def test_all_is_undone_whichever_fails(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "full" / "below").mkdir(parents=True)
    slot = tmp_path / "slot"
    slot.symlink_to(ID)
    failure = undo.undo(
        [
            Op("release_ids", (str(slot / "x" / "y"), ID), "", PARENT),
            Op("remove_file", (str(tmp_path / "file"),), "", PARENT),
            Op("release_ids", (str(slot), ID), "", PARENT),
        ]
    )
    assert failure is None or isinstance(failure, OSError)
    assert not (tmp_path / "file").exists() and not slot.is_symlink()
