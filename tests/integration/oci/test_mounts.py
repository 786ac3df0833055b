"""The mounts and devices of anybody's Spec on the real kernel: every option of config.md's table."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minibox.errors import ConfigError, StepError
from minibox.plan.start import Start
from tests.bundles import Bundle
from tests.probes import requires

pytestmark = [requires("root")]


@pytest.fixture
def bundle(state: Path) -> Bundle:
    return Bundle(state / "bundle")


def mounted(bundle: Bundle, *options: str, fstype: str = "tmpfs", source: str = "tmpfs", at: str = "/m", **more: Any):
    """What /proc/self/mountinfo says of a mount with options: those of the mount, its propagation, the file system's."""
    spec = bundle.spec("cat", "/proc/self/mountinfo")
    spec["mounts"].append({"destination": at, "type": fstype, "source": source, "options": list(options), **more})
    ended = bundle.run(spec)
    assert ended.status == 0, ended.output
    fields = next(line.split() for line in reversed(ended.lines) if line.split()[4] == "/" + at.strip("/"))
    dash = fields.index("-")
    return set(fields[5].split(",")), fields[6:dash], set(fields[dash + 3].split(","))


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        (["ro"], {"ro"}, {"rw"}),
        (["ro", "rw"], {"rw"}, {"ro"}),
        (["nosuid", "nodev", "noexec"], {"nosuid", "nodev", "noexec"}, set()),
        (["nosuid", "suid", "nodev", "dev", "noexec", "exec"], set(), {"nosuid", "nodev", "noexec"}),
        (["noatime"], {"noatime"}, {"relatime"}),
        (["noatime", "atime"], set(), {"noatime"}),
        (["relatime"], {"relatime"}, set()),
        (["noatime", "norelatime"], {"noatime"}, set()),
        (["strictatime"], set(), {"relatime", "noatime"}),
        (["strictatime", "nostrictatime"], {"relatime"}, set()),
        (["nodiratime"], {"nodiratime"}, set()),
        (["nodiratime", "diratime"], set(), {"nodiratime"}),
        (["nosymfollow"], {"nosymfollow"}, set()),
        (["nosymfollow", "symfollow"], set(), {"nosymfollow"}),
        (["defaults", "silent", "loud", "iversion", "noiversion"], {"rw"}, set()),
        (["rro", "rnosuid"], {"ro", "nosuid"}, set()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bind", [False, True], ids=["tmpfs", "bind"])
def test_attributes_of_the_mount(bundle: Bundle, options: list[str], there: set[str], absent: set[str], bind: bool):
    bundle.path.joinpath("source").mkdir()
    source = {"fstype": "bind", "source": str(bundle.path / "source")} if bind else {}
    found, _, _ = mounted(bundle, *options, *(["bind"] if bind else []), **source)
    assert there <= found and not absent & found


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        (["sync"], {"sync"}, set()),
        (["sync", "async"], set(), {"sync"}),
        (["dirsync"], {"dirsync"}, set()),
        (["lazytime"], {"lazytime"}, set()),
        (["lazytime", "nolazytime"], set(), {"lazytime"}),
        (["mand", "nomand"], set(), {"mand"}),
        (["mode=0711", "size=64k"], {"mode=711", "size=64k"}, set()),
    ],
)
def test_options_of_the_file_system(bundle: Bundle, options: list[str], there: set[str], absent: set[str]):
    _, _, found = mounted(bundle, *options)
    assert there <= found and not absent & found


@pytest.mark.parametrize(
    ("option", "shared"), [("private", ""), ("rprivate", ""), ("shared", "shared"), ("rshared", "shared"),
                           ("slave", ""), ("unbindable", "unbindable"), ("runbindable", "unbindable")],
)  # fmt: skip
def test_propagation_of_a_file_system(bundle: Bundle, option: str, shared: str):
    _, propagation, _ = mounted(bundle, option)
    assert [word.partition(":")[0] for word in propagation] == ([shared] if shared else [])


# ---- binds --------------------------------------------------------------------------------------


@pytest.fixture
def tree(bundle: Bundle) -> Iterator[Path]:
    """A directory with a tmpfs on `below`, shared as systemd makes mounts."""
    path = bundle.path / "tree"
    (path / "below").mkdir(parents=True)
    subprocess.run(["mount", "--bind", path, path], check=True)
    subprocess.run(["mount", "--make-shared", path], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path / "below"], check=True)
    (path / "below/file").touch()
    yield path
    subprocess.run(["umount", "--recursive", path], check=True)


@pytest.mark.parametrize("ids", [False, True], ids=["host ids", "own ids"])
def test_recursive_attributes_reach_what_is_below(bundle: Bundle, tree: Path, ids: bool):
    spec = bundle.shell("touch /m/new 2>&1; touch /m/below/new 2>&1")
    spec["mounts"].append({"destination": "/m", "source": str(tree), "options": ["rbind", "rro"]})
    ended = bundle.run(bundle.with_ids(spec) if ids else spec)
    assert [line.rpartition(": ")[2] for line in ended.lines] == ["Read-only file system"] * 2


def test_a_bind_that_is_not_recursive(bundle: Bundle, tree: Path):
    spec = bundle.spec("ls", "/m/below")
    spec["mounts"].append({"destination": "/m", "source": str(tree), "options": ["bind"]})
    assert bundle.run(spec).output == ""


@pytest.mark.parametrize(("option", "seen"), [("rslave", True), ("rshared", True), ("rprivate", False)])
def test_what_is_mounted_on_the_host_later(bundle: Bundle, tree: Path, option: str, seen: bool):
    (tree / "later").mkdir()
    spec = bundle.shell("cat /go; ls /m/later")
    os.mkfifo(bundle.rootfs / "go")
    spec["mounts"].append({"destination": "/m", "source": str(tree), "options": ["rbind", option]})
    with bundle.started(spec) as (execution, output):
        with open(bundle.rootfs / "go", "w") as go:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "later"], check=True)
            (tree / "later/file").touch()
            go.write("on\n")
        text = b"".join(iter(lambda: os.read(output, 100), b""))
        assert execution.init
        execution.init.wait()
    assert text == (b"on\nfile\n" if seen else b"on\n")


def test_a_file_over_a_link_stays_inside(bundle: Bundle):
    """The destination is a symlink of the image's that leads out of it: it is followed below the root."""
    (bundle.path / "source").write_text("bound\n")
    (bundle.rootfs / "link").symlink_to("/../../../../../../tmp/minibox-escaped")
    spec = bundle.spec("cat", "/tmp/minibox-escaped")
    spec["mounts"].append(
        {"destination": "link", "type": "bind", "source": str(bundle.path / "source"), "options": ["ro"]}
    )
    assert bundle.run(spec).output == "bound\n"
    assert not Path("/tmp/minibox-escaped").exists()


def test_a_bind_that_is_changed_has_no_options_of_a_file_system(bundle: Bundle):
    with pytest.raises(ConfigError, match="a bind mount can't have the option 'size=1k'"):
        mounted(bundle, "bind", "remount", "size=1k", source="/")


# ---- id-mapped ----------------------------------------------------------------------------------

MAPPED = [{"containerID": 0, "hostID": 5000, "size": 1000}]


@pytest.mark.parametrize("ids", [False, True], ids=["host ids", "own ids"])
def test_a_mount_has_mappings_of_its_own(bundle: Bundle, ids: bool):
    source = bundle.path / "source"
    source.mkdir()
    (source / "file").touch()
    os.chown(source / "file", 7, 8)
    spec = bundle.spec("stat", "-c", "%u %g", "/m/file")
    mappings = [{"containerID": 0, "hostID": 75000 if ids else 5000, "size": 1000}]
    spec["mounts"].append(
        {"destination": "/m", "type": "bind", "source": str(source), "options": ["rbind", "ro"],
         "uidMappings": mappings, "gidMappings": mappings}
    )  # fmt: skip
    ended = bundle.run(bundle.with_ids(spec) if ids else spec)
    assert ended.output == "5007 5008\n"


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_a_mount_has_the_mappings_of_the_container(bundle: Bundle, option: str):
    (bundle.path / "file").touch()
    os.chown(bundle.path / "file", 7, 8)
    spec = bundle.with_ids(bundle.spec("stat", "-c", "%u %g", "/m"))
    spec["mounts"].append(
        {"destination": "/m", "type": "bind", "source": str(bundle.path / "file"), "options": ["bind", option]}
    )
    assert bundle.run(spec).output == "7 8\n"


def test_a_mount_can_not_have_mappings_of_a_container_without(bundle: Bundle):
    with pytest.raises(ConfigError, match="can't id-map /m: neither the mount nor the container has mappings"):
        mounted(bundle, "bind", "idmap", source="/")


# ---- tmpfs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [False, True], ids=["host ids", "own ids"])
def test_a_tmpfs_begins_with_what_was_there(bundle: Bundle, ids: bool):
    covered = bundle.rootfs / "covered"
    (covered / "a/b").mkdir(parents=True)
    (covered / "a/b/file").write_text("copied\n" * 1000)
    (covered / "link").symlink_to("a/b/file")
    os.mkfifo(covered / "fifo", 0o640)
    covered.chmod(0o1770)
    script = (
        "wc -l < /c/link; stat -c '%a %F' /c /c/a/b/file /c/fifo; readlink /c/link; stat -c %Y /c/a/b/file; touch /c/x"
    )
    spec = bundle.shell(script)
    covered.rename(bundle.rootfs / "c")
    spec["mounts"].append({"destination": "/c", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]})
    spec = bundle.with_ids(spec) if ids else spec
    (bundle.rootfs / "c/a/b/file").chmod(0o4751)
    ended = bundle.run(spec)
    changed = (bundle.rootfs / "c/a/b/file").stat().st_mtime_ns // 10**9
    assert ended.lines == ["1000", "1770 directory", "4751 regular file", "640 fifo", "a/b/file", str(changed)]
    assert not (bundle.rootfs / "c/x").exists()


def test_a_tmpfs_has_the_mode_of_what_it_covers_and_nothing_else_of_it(bundle: Bundle):
    (bundle.rootfs / "c").mkdir()
    (bundle.rootfs / "c/file").touch()
    (bundle.rootfs / "c").chmod(0o711)
    spec = bundle.shell("stat -c %a /c; ls /c")
    spec["mounts"].append({"destination": "/c", "type": "tmpfs"})
    assert bundle.run(spec).output == "711\n"


# ---- other file systems -------------------------------------------------------------------------


@pytest.mark.parametrize("fstype", ["sysfs", "mqueue", "proc", "ramfs", "devpts"])
def test_any_file_system(bundle: Bundle, fstype: str):
    found, _, _ = mounted(bundle, "nosuid", "noexec", "nodev", fstype=fstype, source=fstype)
    assert {"nosuid", "noexec", "nodev"} <= found


def test_an_overlay(bundle: Bundle, state: Path):
    for name in ("lower", "upper", "work"):
        (bundle.path / name).mkdir()
    (bundle.path / "lower/file").write_text("low\n")
    spec = bundle.shell("cat /m/file; echo up > /m/new")
    options = [f"{key}={bundle.path}/{name}" for key, name in
               (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))]  # fmt: skip
    spec["mounts"].append({"destination": "/m", "type": "overlay", "source": "overlay", "options": options})
    assert bundle.run(spec).output == "low\n"
    assert (bundle.path / "upper/new").read_text() == "up\n"


def test_a_file_system_that_the_kernel_does_not_have(bundle: Bundle):
    with pytest.raises(StepError, match=r"mount nosuchfs on /m: No such device \(ENODEV"):
        mounted(bundle, fstype="nosuchfs")


def test_a_mount_is_changed(bundle: Bundle):
    spec = bundle.shell("grep -E ' /m ' /proc/self/mountinfo")
    spec["mounts"] += [
        {"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/m", "type": "tmpfs", "options": ["remount", "size=128k", "noexec", "ro"]},
        {"destination": "/m", "options": ["bind", "remount", "nosuid"]},
    ]
    (line,) = bundle.run(spec).lines
    fields = line.split()
    assert {"ro", "noexec", "nosuid"} <= set(fields[5].split(",")) and "size=128k" in fields[-1]


V1 = (("memory", "cgroup", "memory"), ("cpu,cpuacct", "bind", "/sys/fs/cgroup"))


@pytest.mark.skipif(not Path("/sys/fs/cgroup/memory").exists(), reason="needs cgroup v1")
def test_cgroups_of_v1_with_links_and_read_only(bundle: Bundle):
    spec = bundle.shell(
        "cd /sys/fs/cgroup; readlink cpu; readlink cpuacct; touch x 2>&1; test -d memory && test -d cpu/memory"
    )
    spec["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]})
    ended = bundle.run(spec, Start(cgroup_mounts=V1))
    assert ended.lines == ["cpu,cpuacct", "cpu,cpuacct", "touch: x: Read-only file system"]
    assert ended.status == 0


# ---- the root -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "propagation"),
    [("shared", "shared"), ("slave", ""), ("private", ""), ("unbindable", "unbindable"), ("rshared", "shared")],
)
def test_propagation_of_the_root(bundle: Bundle, value: str, propagation: str):
    spec = bundle.spec("cat", "/proc/self/mountinfo", rootfsPropagation=value)
    root = next(line.split() for line in bundle.run(spec).lines if line.split()[4] == "/")
    words = [word.partition(":")[0] for word in root[6 : root.index("-")]]
    assert [word for word in words if word != "master"] == ([propagation] if propagation else [])


@pytest.mark.parametrize(("value", "seen"), [("rslave", True), ("slave", True), ("private", False)])
def test_what_the_host_mounts_below_the_root_later(bundle: Bundle, value: str, seen: bool):
    subprocess.run(["mount", "--bind", bundle.rootfs, bundle.rootfs], check=True)
    subprocess.run(["mount", "--make-shared", bundle.rootfs], check=True)
    (bundle.rootfs / "later").mkdir()
    os.mkfifo(bundle.rootfs / "go")
    try:
        with bundle.started(bundle.shell("cat /go; ls /later", rootfsPropagation=value)) as (execution, output):
            with open(bundle.rootfs / "go", "w") as go:
                subprocess.run(["mount", "-t", "tmpfs", "tmpfs", bundle.rootfs / "later"], check=True)
                (bundle.rootfs / "later/file").touch()
                go.write("on\n")
            text = b"".join(iter(lambda: os.read(output, 100), b""))
            assert execution.init
            execution.init.wait()
    finally:
        subprocess.run(["umount", "--recursive", bundle.rootfs], check=True)
    assert text == (b"on\nfile\n" if seen else b"on\n")


def test_without_pivot_root(bundle: Bundle):
    spec = bundle.shell("ls -d /rootfs /bin; cut -d' ' -f5 /proc/self/mountinfo | grep -cx /; pwd")
    assert bundle.run(spec, Start(pivot=False)).lines[-3:] == ["/bin", "1", "/"]


# ---- devices ------------------------------------------------------------------------------------


def test_default_devices_are_its_own(bundle: Bundle):
    ended = bundle.run(
        bundle.shell(
            "for d in null zero full random urandom tty; do stat -c '%a %t:%T' /dev/$d; done; chmod 600 /dev/null;"
            "for d in fd stdin stdout stderr ptmx; do readlink /dev/$d; done; ls /dev/console 2>&1"
        )
    )
    assert ended.lines == [
        "666 1:3", "666 1:5", "666 1:7", "666 1:8", "666 1:9", "666 5:0",
        "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx",
        "ls: /dev/console: No such file or directory",
    ]  # fmt: skip
    assert stat.S_IMODE(os.stat("/dev/null").st_mode) == 0o666


DEVICES = [
    {"path": "/dev/sub/c", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 3, "gid": 4},
    {"path": "/dev/u", "type": "u", "major": 1, "minor": 5},
    {"path": "/dev/b", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600},
    {"path": "/dev/p", "type": "p", "fileMode": 0o622},
    {"path": "/srv/outside", "type": "c", "major": 1, "minor": 7},
    {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
]


def test_devices_are_made(bundle: Bundle):
    paths = " ".join(str(device["path"]) for device in DEVICES)
    ended = bundle.run(bundle.shell(f"stat -c '%F %a %t:%T %u:%g' {paths}", devices=DEVICES))
    assert ended.lines == [
        "character special file 640 1:3 3:4", "character special file 666 1:5 0:0",
        "block special file 600 7:c8 0:0", "fifo 622 0:0 0:0", "character special file 666 1:7 0:0",
        "character special file 666 1:3 0:0",
    ]  # fmt: skip


def test_devices_are_made_for_own_ids_by_the_hosts_root(bundle: Bundle):
    """Under any name, with owners of the container's: nobody inside may make them."""
    paths = " ".join(str(device["path"]) for device in DEVICES)
    script = f"stat -c '%F %a %t:%T %u:%g' {paths}; head -c 3 /dev/u | od -An -tx1"
    ended = bundle.run(bundle.with_ids(bundle.shell(script, devices=DEVICES)))
    assert ended.lines == [
        "character special file 640 1:3 3:4", "character special file 666 1:5 0:0",
        "block special file 600 7:c8 0:0", "fifo 622 0:0 0:0", "character special file 666 1:7 0:0",
        "character special file 666 1:3 0:0", " 00 00 00",
    ]  # fmt: skip


def test_devices_of_an_ordinary_user_are_the_hosts(bundle: Bundle):
    devices = [{"path": "/dev/zero", "type": "c", "major": 1, "minor": 5}, {"path": "/dev/p", "type": "p"}]
    spec = bundle.with_ids(bundle.shell("head -c 3 /dev/zero | od -An -tx1; test -p /dev/p && echo p", devices=devices))
    assert [line.split() for line in bundle.run(spec, Start(rootless=True)).lines] == [["00", "00", "00"], ["p"]]


@pytest.mark.parametrize("path", ["/etc/taken", "/dev/null"])
def test_what_is_in_the_place_of_a_device_must_be_it(bundle: Bundle, path: str):
    (bundle.rootfs / "etc").mkdir()
    (bundle.rootfs / "etc/taken").touch()
    devices = [{"path": path, "type": "c", "major": 1, "minor": 5}]
    with pytest.raises(StepError, match="EEXIST"):
        bundle.run(bundle.spec("true", devices=devices))


def test_a_dev_of_the_hosts_is_left_alone(bundle: Bundle):
    spec = bundle.spec("ls", "/dev")
    spec["mounts"] = [
        spec["mounts"][0], {"destination": "/dev", "type": "bind", "source": str(bundle.path), "options": ["rbind"]}
    ]  # fmt: skip
    assert bundle.run(spec).lines == ["rootfs"]


@pytest.mark.parametrize("linux", [{"devices": [{"path": "/dev/x", "type": "z"}]}, {"rootfsPropagation": "odd"}])
def test_words_that_mean_nothing(bundle: Bundle, linux: Any):
    with pytest.raises(ConfigError, match="unknown"):
        bundle.run(bundle.spec("true", **linux))
