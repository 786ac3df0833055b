"""The directory of a container, and how far it is."""

from __future__ import annotations

import json
import marshal
import os
import subprocess
import sys

import pytest

from minibox.engine.oci import state
from minibox.engine.oci.state import Container, check_id, containers, oci_state
from minibox.errors import ContainerExists, ContainerNotFound, Damaged, UsageError


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "root")


@pytest.fixture
def container(root):
    with Container.new(root, "c1") as container:
        container.write(ociVersion="1.2.0", pid=0, bundle="/b", rootfs="/b/r", created="now", annotations={"a": "b"})
    return container


@pytest.mark.parametrize("good", ["a", "A.b-c_d+9", "..a", "-", "x" * 200])
def test_ids(good):
    check_id(good)


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "/", "../x", "a b", "ä", "a\0", "a:b", "a\n"])
def test_no_ids(bad, root):
    with pytest.raises(UsageError, match="invalid container ID format"):
        check_id(bad)
    with pytest.raises(UsageError):
        Container.new(root, bad)
    assert not os.path.exists(root)


def test_an_id_is_taken_once(container, root):
    with pytest.raises(ContainerExists, match="c1"):
        Container.new(root, "c1")


def test_what_is_not_there(root):
    with pytest.raises(ContainerNotFound, match="container does not exist"):
        Container.find(root, "c1")
    with pytest.raises(ContainerNotFound):
        Container.find(root, "x" * 300)
    assert list(containers(root)) == []


def test_others_can_read_it(container):
    with open(f"{container.directory}/state.json") as file:
        found = json.load(file)
    assert found["bundle"] == "/b" and found["annotations"] == {"a": "b"}


def test_it_is_being_created_while_its_maker_holds_it(root):
    with Container.new(root, "c2") as container:
        container.write(ociVersion="1.2.0", pid=0, bundle="/b", rootfs="/b/r", created="now")
        assert Container.find(root, "c2").status() == "creating"
    assert Container.find(root, "c2").status() == "stopped"


def test_status_follows_its_process(container, root):
    child = subprocess.Popen(["sleep", "60"])
    try:
        container.write(pid=child.pid, startTime=state.start_time(child.pid))
        open(f"{container.directory}/{state.GATE}", "w").close()
        assert Container.find(root, "c1").status() == "created"
        os.unlink(f"{container.directory}/{state.GATE}")
        assert Container.find(root, "c1").status() == "running"
        container.write(startTime=1)  # the pid has come to mean another
        assert Container.find(root, "c1").status() == "stopped"
        container.write(startTime=state.start_time(child.pid))
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Container.find(root, "c1").status() == "stopped"  # a zombie
    finally:
        child.kill()
        child.wait()
    assert Container.find(root, "c1").status() == "stopped"


def test_a_frozen_one_is_paused_and_running_for_hooks(container, root, tmp_path):
    (tmp_path / "cgroup.freeze").write_text("1\n")
    container.write(pid=os.getpid(), startTime=state.start_time(os.getpid()), cgroup_paths={"": str(tmp_path)})
    assert container.status() == "paused"
    assert oci_state(container) == {
        "ociVersion": "1.3.0", "id": "c1", "status": "running", "pid": os.getpid(), "bundle": "/b",
        "annotations": {"a": "b"},
    }  # fmt: skip


def test_removed_is_gone_at_once(container, root):
    container.write_spec({"ociVersion": "1.2.0"})
    assert container.spec() == {"ociVersion": "1.2.0"}
    assert [each.id for each in containers(root)] == ["c1"]
    container.remove()
    assert os.listdir(root) == []
    Container.new(root, "c1").remove()


def test_the_default_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert state.default_root({"XDG_RUNTIME_DIR": "/run/user/1000"}) == "/run/user/1000/minibox-oci"
    assert state.default_root({}) == "/run/minibox-oci"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(state, "in_user_namespace", lambda: False)
    assert state.default_root({"XDG_RUNTIME_DIR": "/run/user/0"}) == "/run/minibox-oci"
    monkeypatch.setattr(state, "in_user_namespace", lambda: True)
    assert state.default_root({"XDG_RUNTIME_DIR": "/run/user/0", "USER": "u"}) == "/run/user/0/minibox-oci"


OLD_SPEC = {
    "ociVersion": "1.2.0",
    "process": {"args": ["sh", "a b\n\u2028"], "terminal": False},
    "linux": {"x": [1, None, 2.5]},
}


@pytest.mark.parametrize("first", [{}, {"": ""}, {"ü": 1}, {"x" * 300: 1}], ids=["short", "empty", "not ASCII", "long"])
def test_a_spec_of_before_is_read(container, first):
    """As 1fd2aea wrote it, in marshal's version 4; the cgroups were in state.json then."""
    before = {sys.intern(key): value for key, value in json.loads(json.dumps({**first, **OLD_SPEC})).items()}
    container.write(cgroup_paths={"memory": "/a"})
    with open(f"{container.directory}/spec", "wb") as file:
        file.write(marshal.dumps(before, 4))
    found = Container.find(container.root, "c1")
    assert found.spec() == before and found._kept()["Cgroups"] == {"memory": "/a"}
    before["hostname"] = "h"
    found.write_spec(before)
    with open(f"{container.directory}/spec", "rb") as file:
        assert json.load(file)["Format"] == 1
    assert found.spec() == before


@pytest.mark.parametrize("end", [3, 20, -1])
def test_half_a_spec_of_before_is_damage(container, end):
    with open(f"{container.directory}/spec", "wb") as file:
        file.write(marshal.dumps(OLD_SPEC, 4)[:end])
    with pytest.raises(Damaged, match="spec"):
        container.spec()


def test_what_no_spec_was_in_is_not_unpacked(container):
    """Marshal of anything but a dict of strings: it could be anybody's bytes."""
    with open(f"{container.directory}/spec", "wb") as file:
        file.write(marshal.dumps([OLD_SPEC], 4))
    with pytest.raises(Damaged, match="spec"):
        container.spec()
