"""Mount points that an image doesn't have, or has as links: made inside of the root, and for /proc and /dev by no link."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.container_box import Box
from tests.images import derive, directory, link
from tests.oci_runtime import Runtime, console
from tests.probes import requires

pytestmark = [requires("root", "command:busybox")]
NO_LINK = "a symbolic link is on the way, where none is allowed"


# ---- links to nowhere ---------------------------------------------------------------------------

LINKS = """
mkdir -p /var /deep
ln -s /run/lock /var/lock
ln -s ../run/lock/x /var/relative
ln -s lock/chained /var/chain
ln -s ../../../../../run/above /var/above
ln -s ../run/up/../beside /var/beside
ln -s loop2 /var/loop1; ln -s loop1 /var/loop2
"""


@pytest.fixture
def linked(any_box: Box) -> Iterator[Box]:
    """The command, with an image `links`."""
    any_box.ok("run", "--network", "none", "--name", "made", "base", "sh", "-c", LINKS)
    any_box.ok("commit", "made", "links")
    yield any_box
    any_box.ok("rm", "-f", "made")


RUN = ("run", "--rm", "--network", "none", "--tmpfs", "/run")
PLACES = {
    "/var/lock": "/run/lock",
    "/var/lock/deep/er": "/run/lock/deep/er",
    "/var/relative": "/run/lock/x",
    "/var/chain": "/run/lock/chained",
    "/var/above": "/run/above",
    "/var/beside": "/run/beside",
}


def test_a_mount_at_a_link_to_nowhere_is_where_it_leads(linked: Box) -> None:
    for number, (place, leads) in enumerate(PLACES.items()):
        script = f"echo mine >{place}/file && cat {leads}/file && grep -c ' {leads} ' /proc/self/mountinfo"
        done = linked.ok(*RUN, "-v", f"data{number}:{place}", "links", "sh", "-c", script)
        assert done.split() == ["mine", "1"], place
    tmpfs = linked.ok(*RUN, "--tmpfs", "/var/chain", "links", "stat", "-f", "-c", "%T", "/run/lock/chained")
    assert tmpfs == "tmpfs"
    assert linked.ok(*RUN, "-w", "/var/lock/here", "links", "pwd") == "/run/lock/here"


def test_so_is_a_file(linked: Box) -> None:
    source = linked.directory / "source"
    source.write_text("bound\n")
    source.chmod(0o644)
    places = ("/var/lock/file", "/var/chain", "/var/above")
    words = [word for place in places for word in ("-v", f"{source}:{place}:ro")]
    assert linked.ok(*RUN, *words, "links", "cat", *places).split() == ["bound"] * 3


def test_a_loop_is_none(linked: Box) -> None:
    for words in (("-v", "data:/var/loop1"), ("--tmpfs", "/var/loop1/x"), ("-w", "/var/loop1")):
        done = linked("run", "--rm", "--network", "none", *words, "links", "true")
        assert done.returncode == 125 and "Too many levels of symbolic links" in done.stderr, done


# ---- where no link may be -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("links", "mount", "says"),
    [
        ({"proc": "a/p"}, (), f"mount proc on /proc: {NO_LINK}"),
        ({"dev": "/a"}, (), f"on /dev: {NO_LINK}"),
        ({"sys": "/nowhere"}, (), f"mount sysfs on /sys: {NO_LINK}"),
        ({"data": "/proc"}, ("-v", "vol:/data"), "at /data: a symbolic link leads into a kernel file system"),
        ({"data": "proc/sys"}, ("--tmpfs", "/data"), "on /data, with the directory's mode: a symbolic link leads into"),
        ({"data": "/sys"}, ("-v", "vol:/data/kernel"), "at /data/kernel: a symbolic link leads into"),
    ],
)
def test_a_link_to_what_is_the_kernels_is_refused(
    box: Box, state: Path, links: dict[str, str], mount: tuple[str, ...], says: str
) -> None:
    image = derive(state / "root", "links", directory("a"), *(link(name, target) for name, target in links.items()))
    done = box("run", "--rm", "--network", "none", "--userns", "host", *mount, image, "true")
    assert done.returncode == 125 and says in done.stderr, done
    assert "hint: make it a plain directory in the image" in done.stderr


def test_whoever_names_a_place_of_the_kernels_gets_it(box: Box) -> None:
    run = ("run", "--rm", "--network", "none", "--userns", "host", "-v", "/sys:/host/sys:ro", "--tmpfs", "/host/sys/fs")
    assert box.ok(*run, "--tmpfs", "/proc/acpi", "base", "stat", "-f", "-c", "%T", "/host/sys/fs") == "tmpfs"


def test_only_procfs_is_mounted_on_proc(box: Box, state: Path) -> None:
    for words in (("-v", f"{state}:/proc"), ("-v", "/proc/self:/proc"), ("--tmpfs", "/proc")):
        done = box("run", "--rm", "--network", "none", "--userns", "host", *words, "base", "true")
        assert done.returncode == 125 and "check that the container's /proc is the root of a procfs" in done.stderr, (
            done
        )
        assert "not the required file system" in done.stderr
    run = ("run", "--rm", "--network", "none", "--userns", "host", "-v", "/proc:/proc")
    assert box.ok(*run, "base", "sh", "-c", "head -c 1 /proc/kcore; head -c 1 /proc/keys; echo closed") == "closed"


# ---- devices and terminals ----------------------------------------------------------------------


@contextmanager
def mount_namespace(script: str) -> Iterator[int]:
    """The pid of somebody in a mount namespace of his own, in which he has done something."""
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{script} && echo && exec sleep 1000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout and holder.stdout.readline() == b"\n"
            yield holder.pid
        finally:
            holder.kill()


def test_a_mask_is_the_null_device_and_nothing_else(runtime: Runtime) -> None:
    """In a mount namespace of others' /dev/null is theirs to choose."""
    with mount_namespace("mount -t tmpfs tmpfs /dev && echo theirs >/dev/null") as pid:
        spec = runtime.bundle.spec("true", maskedPaths=["/proc/keys"])
        spec["linux"]["namespaces"] = [{"type": "pid"}, {"type": "mount", "path": f"/proc/{pid}/ns/mnt"}]
        runtime.write(spec)
        said = runtime.error("run", "--bundle", str(runtime.bundle.path), "c1")
    assert "mask /proc/keys: not the required device" in said


def test_clocks_are_told_to_the_hosts_proc(runtime: Runtime) -> None:
    """In a mount namespace of others' /proc may have anything in the place of the file: sysrq-trigger, say."""
    theirs = "mount -t tmpfs tmpfs /proc && mkdir -p /proc/self/ns && echo theirs >/proc/self/timens_offsets"
    with mount_namespace(theirs) as pid:
        spec = runtime.bundle.spec("cut", "-d.", "-f1", "/proc/uptime")
        kinds = [{"type": "pid"}, {"type": "time"}, {"type": "mount", "path": f"/proc/{pid}/ns/mnt"}]
        spec["linux"] |= {"namespaces": kinds, "timeOffsets": {"boottime": {"secs": 10**6}}}
        runtime.write(spec)
        assert int(runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1")) > 10**6
        assert Path(f"/proc/{pid}/root/proc/self/timens_offsets").read_text() == "theirs\n"


def test_a_device_that_is_bound_is_that_of_its_number(runtime: Runtime) -> None:
    """In a user namespace that is joined devices are the host's own."""
    spec = runtime.bundle.with_ids(runtime.bundle.spec("true"))
    linux = spec["linux"]
    linux["devices"] = [{"path": "/dev/random", "type": "c", "major": 1, "minor": 3}]
    with subprocess.Popen(["unshare", "--user", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout and holder.stdout.readline() == b"\n"
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{holder.pid}/{name}").write_text("0 70000 65536")
            user = {"type": "user", "path": f"/proc/{holder.pid}/ns/user"}
            linux["namespaces"] = [user if each["type"] == "user" else each for each in linux["namespaces"]]
            runtime.write(spec)
            said = runtime.error("run", "--bundle", str(runtime.bundle.path), "c1")
            assert "bind the device /dev/random on /dev/random: not the required device" in said
        finally:
            holder.kill()


@pytest.mark.parametrize("target", ["/proc/sysrq-trigger", "nowhere", "null"])
def test_a_console_is_made_where_no_link_leads(runtime: Runtime, target: str) -> None:
    """CVE-2025-52565: /dev is a volume's, and whoever has that volume has put a link there."""
    volume = runtime.directory / "dev"
    volume.mkdir()
    (volume / "pts").mkdir()
    (volume / "console").symlink_to(target)
    spec = runtime.bundle.spec("true")
    spec["process"]["terminal"] = True
    spec["mounts"][1] = {"destination": "/dev", "type": "bind", "source": str(volume), "options": ["rbind"]}
    runtime.write(spec)
    with console(runtime.directory / "socket"):
        words = ("create", "--console-socket", str(runtime.directory / "socket"), "--bundle", str(runtime.bundle.path))
        assert f"on /dev/console: {NO_LINK}" in runtime.error(*words, "c1")
    assert not (volume / "nowhere").exists()


def test_a_terminal_is_of_a_devpts(box: Box, terminal: Any) -> None:
    """A container's /dev may be anything, and what is in it may look like a terminal's master."""
    volume = box.directory / "dev"
    (volume / "pts").mkdir(parents=True)
    for name, number in (("null", 3), ("zero", 5)):
        os.mknod(volume / name, 0o20666, os.makedev(1, number))
    (volume / "pts/ptmx").symlink_to("../null")
    box.start("cc", "sleep 1000", "--userns", "host", "-v", f"{volume}:/dev")
    child = terminal("exec", "-t", "cc", "true")
    child.expect("open a pseudo-terminal.*: not the required file system")
    child.expect("EOF|run it without -t")
    assert box.ok("exec", "cc", "echo", "without") == "without"
