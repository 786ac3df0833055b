"""What has changed of a process, in words."""

from __future__ import annotations

import os

from minibox.engine.walkthrough.process_facts import birth, changes, facts_of, in_words

Facts = dict[tuple[str, str], str]
MOUNT = "\0ext4 of /dev/vda, rw, private"


def test_of_this_process() -> None:
    facts = facts_of(os.getpid())
    assert facts["status", "root directory"] == "/" and facts["namespace", "mount"].startswith("mnt:[")
    assert any(line.startswith("mount at /: ") for line in in_words(facts))
    assert any(line.startswith("effective capabilities: ") for line in in_words(facts))
    assert changes(facts, facts) == []


def test_of_no_process() -> None:
    assert facts_of(2**22 + 1) == {}
    assert changes({("status", "umask"): "0022"}, {}) == ["it has ended"] and changes({}, {}) == []


def test_birth_names_its_own_namespaces() -> None:
    ours: Facts = {("namespace", "mount"): "mnt:[1]", ("namespace", "pid"): "pid:[2]"}
    theirs = {**ours, ("namespace", "pid"): "pid:[3]"}
    assert birth(theirs, ours) == ["it is there, with namespaces of its own: pid"]
    assert birth(ours, ours) == ["it is there, with namespaces of its own: none"] and birth({}, ours) == []


def test_mounts_that_come_go_and_move() -> None:
    before: Facts = {("mount", "1"): f"/{MOUNT}", ("mount", "2"): f"/tmp{MOUNT}", ("mount", "3"): f"/tmp/a{MOUNT}"}
    after: Facts = {("mount", "2"): f"/{MOUNT}", ("mount", "3"): f"/a{MOUNT}", ("mount", "4"): f"/b{MOUNT}"}
    assert changes(before, after) == [
        "new mount at /b: ext4 of /dev/vda, rw, private",
        "gone mount at /",
        "the mount at /tmp, with 1 mount below it, is at / now",
    ]


def test_a_mount_that_becomes_read_only() -> None:
    before: Facts = {("mount", "1"): f"/{MOUNT}"}
    after: Facts = {("mount", "1"): f"/{MOUNT.replace('rw', 'ro')}"}
    assert changes(before, after) == ["mount at /: ext4 of /dev/vda, rw, private -> ext4 of /dev/vda, ro, private"]


def test_capabilities_by_name() -> None:
    key = ("capabilities", "effective")
    assert changes({key: f"{0b11:x}"}, {key: f"{0b101:x}"}) == [
        "effective capabilities: gained dac_read_search; lost dac_override; now chown, dac_read_search"
    ]
    assert changes({key: "0"}, {key: f"{2**41 - 1:x}"}) == ["effective capabilities: gained all; now all"]


def test_ids_namespaces_and_links() -> None:
    before: Facts = {("status", "umask"): "0000", ("namespace", "cgroup"): "cgroup:[1]", ("status", "x"): ""}
    after: Facts = {
        ("status", "umask"): "0022",
        ("namespace", "cgroup"): "cgroup:[2]",
        ("status", "x"): "1",
        ("link", "eth0"): "",
    }
    assert changes(before, after) == [
        "umask: 0000 -> 0022",
        "another cgroup namespace",
        "x: (none) -> 1",
        "new link eth0",
    ]
