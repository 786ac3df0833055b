"""Mounts that are unusual, beside runc and crun."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.oci_runtime import Runtime
from tests.peers import OURS, Make
from tests.probes import requires

pytestmark = requires("root", "command:busybox", "command:runc", "command:crun")
LOOK = "touch {0}/x 2>/dev/null && echo written; grep -c ' {0} ro' /proc/self/mountinfo"


def with_dev(*options: str, script: str, terminal: bool = False) -> Make:
    """A shell script, with more options for the mount on /dev."""

    def make(runtime: Runtime) -> Any:
        spec = runtime.bundle.shell(script)
        for mount in spec["mounts"]:
            if mount["destination"] == "/dev":
                mount["options"] += options
        spec["process"]["terminal"] = terminal
        return spec

    return make


def test_dev_is_read_only_once_all_is_in_it(peers):
    done = peers.same(with_dev("ro", script=f"{LOOK.format('/dev')}; echo x > /dev/null && ls /dev/pts /dev/fd/0"))
    assert done.lines == ["1", "/dev/fd/0", "", "/dev/pts:", "ptmx"]


def test_dev_is_read_only_with_a_terminal_and_a_device_in_it(peers):
    """The console is made later than all other files."""
    ours = peers.all[OURS]
    spec = with_dev("rro", script=f"{LOOK.format('/dev')}; test -c /dev/console && tty; ls /dev/mine", terminal=True)(
        ours
    )
    spec["linux"]["devices"] = [{"type": "c", "path": "/dev/mine", "major": 1, "minor": 3}]
    peers.write(ours, spec)
    assert ours.ok("run", "--bundle", str(ours.bundle.path), "c1").split() == ["1", "/dev/pts/0", "/dev/mine"]


@pytest.mark.parametrize("what", ["a bind mount", "a tmpfs", "the working directory", "what was there"])
def test_a_read_only_tmpfs_has_what_goes_below_it(peers, what):
    def make(runtime: Runtime) -> Any:
        (runtime.directory / "source").mkdir(exist_ok=True)
        options = ["ro", "mode=755", *(["tmpcopyup"] if what == "what was there" else [])]
        spec = runtime.bundle.shell(f"{LOOK.format('/t')}; ls /t")
        spec["mounts"].append({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": options})
        below = {"destination": "/t/below", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}
        if what == "a bind mount":
            below = {**below, "type": "bind", "source": str(runtime.directory / "source"), "options": ["bind"]}
        if what in ("a bind mount", "a tmpfs"):
            spec["mounts"].append(below)
        elif what == "the working directory":
            spec["process"]["cwd"] = "/t/below"
        else:
            (runtime.bundle.rootfs / "t/below").mkdir(parents=True, exist_ok=True)
        return spec

    assert peers.same(make).lines == ["1", "below"]


def private(runtime: Runtime, *, mode: int = 0o700) -> str:
    """A directory below that of another user, who lets nobody in."""
    home = runtime.directory / "home"
    (home / "source").mkdir(parents=True, exist_ok=True)
    (home / "source/file").write_text("content\n")
    (home / "link").unlink(missing_ok=True)
    (home / "link").symlink_to(home / "source/file")
    os.chown(home, 12345, 12345)
    home.chmod(mode)
    return str(home)


@pytest.mark.parametrize("source", ["source", "source/file", "link"])
def test_sources_are_opened_with_the_callers_rights(peers, source):
    """Root of a user namespace may not look below another's directory, and who has started it may."""

    def make(runtime: Runtime) -> Any:
        script = "cat /mnt/file 2>/dev/null || cat /mnt; grep -o ' /mnt r[^ ]*' /proc/self/mountinfo"
        spec = runtime.bundle.shell(script)
        mount = {"type": "bind", "source": f"{private(runtime)}/{source}", "options": ["rbind", "ro", "nosuid"]}
        spec["mounts"].append({"destination": "/mnt", **mount})
        return runtime.bundle.with_ids(spec)

    assert peers.same(make).lines == ["content", " /mnt ro,nosuid,relatime"]


def test_what_the_host_has_read_only_stays_so_for_root_of_a_user_namespace(peers):
    """The mount is cloned in the container's mount namespace, in which it is locked: CAP_SYS_ADMIN inside is no way out."""

    def make(runtime: Runtime) -> Any:
        home = private(runtime)
        script = "mount -o remount,rw,bind /mnt 2>/dev/null && echo remounted; touch /mnt/x 2>/dev/null && echo written; true"
        spec = runtime.bundle.shell(script)
        spec["process"]["capabilities"] = {each: ["CAP_SYS_ADMIN"] for each in ("bounding", "effective", "permitted")}
        mount = {"type": "bind", "source": f"{home}/source", "options": ["bind"]}
        spec["mounts"].append({"destination": "/mnt", **mount})
        os.chown(f"{home}/source", 70000, 70000)
        subprocess.run(["mount", "--bind", f"{home}/source", f"{home}/source"], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", f"{home}/source"], check=True)
        return runtime.bundle.with_ids(spec)

    try:
        found = peers.run(make)
    finally:
        for runtime in peers.all.values():
            subprocess.run(["umount", f"{runtime.directory}/home/source"], check=False)
    assert (found[OURS].status, found[OURS].output) == (0, "")


NESTED = """
unshare -mrpf sh -c 'mount -t proc none /proc && echo proc' 2>/dev/null
unshare -mrn sh -c 'mount -t sysfs none /sys && echo sysfs' 2>/dev/null
echo tried
"""


@pytest.mark.parametrize("ids", [False, True], ids=["the host's ids", "own ids"])
def test_without_pivot_root_nobody_mounts_what_the_kernel_tells_unmasked(peers, ids):
    """The host's procfs and sysfs below the root would allow it, wherever they are."""
    also = peers.all[OURS].directory / "a pro\tc\\ of \n the host's"
    also.mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", str(also)], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", str(also)], check=True)

    def make(runtime: Runtime) -> Any:
        (runtime.bundle.rootfs / "bin/unshare").unlink(missing_ok=True)
        (runtime.bundle.rootfs / "bin/unshare").symlink_to("busybox")
        spec = runtime.bundle.shell(NESTED, maskedPaths=["/proc/kcore", "/sys/firmware"], readonlyPaths=["/proc/sys"])
        spec["process"]["capabilities"] = {each: ["CAP_SETFCAP"] for each in ("bounding", "effective", "permitted")}
        spec["mounts"].append({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]})
        return runtime.bundle.with_ids(spec) if ids else spec

    try:
        assert peers.same(make).lines == ["tried"]
        found = peers.run(make, "--no-pivot")
        # crun looks at /proc and /sys alone, and runc doesn't see through two at one place that are locked.
        assert found[OURS].lines == ["tried"]
        assert ids or found["runc"].lines == ["tried"]
        assert Path("/proc/self/mountinfo").exists()  # ours is still there
    finally:
        subprocess.run(["umount", str(also)], check=True)
        subprocess.run(["umount", str(also)], check=True)
