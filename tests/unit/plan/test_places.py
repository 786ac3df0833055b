"""Where a plan has things go in /proc, /sys and /dev: below which descriptor, and never by a link of somebody's."""

from __future__ import annotations

from typing import Any

import pytest

from minibox.errors import ConfigError
from minibox.plan import operations as op
from minibox.plan.compiler import compile_plan
from minibox.plan.mounts import read
from minibox.plan.places import Places, clean, from_top
from minibox.plan.rootfs import Rootfs
from minibox.plan.start import Start

PROC, SYS, DEV = op.CONTAINERS_PROC, op.CONTAINERS_SYS, op.CONTAINERS_DEV
NAMESPACES = [{"type": kind} for kind in ("pid", "mount", "network")]


def steps_of(mounts: list[Any], **linux: Any) -> list[tuple[Any, ...]]:
    spec: Any = {
        "process": {"cwd": "/", "args": ["x"]}, "mounts": mounts, "linux": {"namespaces": NAMESPACES, **linux}
    }  # fmt: skip
    return [(step.name, *step.args) for step in compile_plan(spec, Rootfs(path="/b/rootfs"), Start()).ops]


def mount(destination: str, fstype: str, **more: Any) -> Any:
    return {"destination": destination, "type": fstype, "source": "/s" if fstype == "bind" else fstype, **more}


def test_nothing_is_held_before_it_is_mounted_and_no_link_leads_there():
    places = Places()
    assert places.of("/data/x") == (op.ROOT, "/data/x")
    assert places.of("/processes") == (op.ROOT, "/processes")
    for path in ("/proc", "/proc/sys", "/sys", "/dev/pts", "/dev"):
        assert places.of(path) == (op.ROOT | op.NO_LINKS, path)
    assert places.of("/elsewhere", "proc") == (op.ROOT | op.NO_LINKS, "/elsewhere")
    assert places.of("//a/..///proc/") == (op.ROOT | op.NO_LINKS, "/proc")


def test_what_is_below_a_held_mount_is_found_by_it():
    places = Places()
    places.hold("/proc", PROC, "proc")
    places.hold("/dev", DEV, "tmpfs")
    places.hold("/a/p", op.FIRST_FURTHER, "proc")
    assert places.of("/proc") == (PROC | op.NO_LINKS, "/")
    assert places.of("/proc/sys/x") == (PROC | op.NO_LINKS, "/sys/x")
    assert places.of("/proc/net/arp", look=True) == (PROC, "/net/arp"), "by links of the kernel's own"
    assert places.of("/dev/x", look=True) == (DEV | op.NO_LINKS, "/x"), "there are none of the kernel's there"
    assert places.of("/a/p/../p/kcore", look=True) == (op.FIRST_FURTHER, "/kcore")
    assert places.of("/a/pp") == (op.ROOT, "/a/pp")


@pytest.mark.parametrize("path", ["proc", "//proc", "/./proc/", "/x/../proc", "/../proc"])
def test_a_destination_is_what_its_words_say(path: str):
    assert clean(path) == "/proc"
    (found,) = read([mount(path, "proc")], ())
    assert found.destination == "/proc"


def test_a_path_is_told_from_the_top():
    assert from_top(PROC | op.NO_LINKS, "/kcore") == "/proc/kcore" and from_top(SYS, "/") == "/sys"
    assert from_top(op.ROOT, "/") == "/" and from_top(op.HOST, "/x") == "/x" and from_top(None, "/x") == "/x"


def test_masks_and_settings_go_by_the_last_mount_that_covers_them():
    steps = steps_of(
        [mount("/proc", "proc"), mount("/sys", "sysfs"), mount("/sys", "bind"), mount("/a/p", "proc")],
        maskedPaths=["/proc/kcore", "/sys/firmware", "/a/p/kcore", "/etc/secret"],
        readonlyPaths=["/proc/sys"],
        sysctl={"net.x": "1"},
    )
    assert [step for step in steps if step[0] in ("mask", "read_only", "write_proc")] == [
        ("write_proc", PROC | op.NO_LINKS, "/sys/net/x", b"1"),
        ("read_only", PROC, "/sys"),
        ("mask", PROC, "/kcore"),
        ("mask", SYS, "/firmware"),
        ("mask", op.FIRST_FURTHER, "/kcore"),
        ("mask", op.ROOT, "/etc/secret"),
    ]
    bound = steps.index(("attach", op.FIRST_BIND, SYS | op.NO_LINKS, "/"))
    assert steps[bound + 1] == ("open_in", op.FIRST_BIND, "/", op.O_PATH, SYS)


def test_whatever_is_mounted_on_proc_must_be_procfs():
    for kind in ("proc", "bind", "tmpfs"):
        steps = steps_of([mount("/proc", kind)])
        assert ("expect_procfs", PROC) in steps, kind


def test_a_changed_mount_is_found_by_its_descriptor():
    steps = steps_of([mount("/proc", "proc"), mount("/proc", "proc", options=["remount", "ro"])])
    assert ("attributes_at", PROC | op.NO_LINKS, "/", op.RDONLY, 0, 0, 0) in steps
    shared = steps_of([mount("/x", "tmpfs", options=["shared", "mode=755"])])
    assert ("mount_attributes", op.SCRATCH, 0, 0, op.MS_SHARED, 0) in shared


def test_a_dev_of_the_images_own_is_opened_once():
    steps = steps_of([mount("/dev/pts", "devpts")], devices=[{"path": "/dev/a/b", "type": "c", "major": 1, "minor": 3}])
    opened = steps.index(("open_in", op.ROOT | op.NO_LINKS, "/dev", op.O_PATH_DIRECTORY, DEV))
    made = [number for number, step in enumerate(steps) if step[0] in ("mknod", "symlink")]
    assert min(made) > opened and all(steps[n][1 + (steps[n][0] == "symlink")] == DEV | op.NO_LINKS for n in made)
    assert ("mkdir", DEV | op.NO_LINKS, "/a", 0o755) in steps


def test_more_mounts_of_the_kernels_than_there_are_slots_are_refused():
    many = [mount(f"/a/{number}", "proc") for number in range(op.SLOTS - op.FIRST_FURTHER + 1)]
    steps_of(many[:-1])
    with pytest.raises(ConfigError, match="more than 43 mounts of proc and sysfs"):
        steps_of(many)
