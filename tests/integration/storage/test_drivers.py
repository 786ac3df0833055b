"""All storage drivers under one suite: what a container sees, what it costs, what is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from minibox.engine.files.writable_rootfs import writable_root
from minibox.image.store import ImageStore
from minibox.linux.erofs import open_image
from minibox.storage.drivers import snapshotter
from minibox.storage.erofs import make_image
from minibox.storage.snapshot import read_record
from tests import isolation
from tests.conftest import Run
from tests.leaks import SLOWNESS
from tests.probes import requires
from tests.storage_places import Place, add, containers, loop_files, new_file_system, sparse, state_root, unfinished
from tests.unit.layers import directory, entry, hard_link, symlink

if TYPE_CHECKING:
    from minibox.storage.drivers import Snapshotter

pytestmark = requires("root", "idmap")

RUN = ("run", "--rm", "--network", "none")
KEPT = ("run", "--network", "none", "--name", "kept")
CAPABILITY = b"\x01\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"  # cap_net_bind_service=ep, VFS_CAP_REVISION_2


# ---- what a container sees ----------------------------------------------------------------------


def test_layers_are_merged_as_the_image_means_it(minibox_here: Run, root: Path, storage: Snapshotter) -> None:
    image = add(
        root,
        "merged",
        [
            directory("d"), entry("d/old", content=b"1"), directory("d/sub"), entry("gone", content=b"1"),
            directory("replaced"), entry("replaced/old"), directory("implied", 0o700, uid=7), entry("kept", content=b"1", uid=1234, gid=60000, mode=0o640),
            entry("tool", content=b"x", mode=0o755, pax_headers={
                "SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape"),
                "SCHILY.xattr.user.note": "said"}),
        ],
        [
            entry(".wh.gone"), entry("d/.wh..wh..opq"), entry("d/new", content=b"2"), entry(".wh.replaced"),
            entry("replaced", content=b"a file now"), entry("set-uid", content=b"3", mode=0o4755, uid=7),
            hard_link("other", "set-uid"), sparse("hole", 9 << 20), symlink("link", "../../kept"),
            directory("closed", 0o700, uid=7, mtime=12345), entry("closed/in", mtime=99999), entry("implied/in"),
        ],
    )  # fmt: skip
    script = """
ls /d; cat /replaced; test -e /gone || echo no gone
stat -c '%n %a %u:%g %h' /kept /set-uid /other; stat -c '%a %u' /implied; stat -c '%a %u %Y' /closed; readlink /link
[ /set-uid -ef /other ] && echo same
"""
    done = minibox_here(*RUN, "merged", "sh", "-c", script)
    assert done.stdout.splitlines() == [
        *("new", "a file nowno gone", "/kept 640 1234:60000 1", "/set-uid 4755 7:0 2", "/other 4755 7:0 2"),
        *("700 7", "700 7 12345", "../../kept", "same"),
    ], done.stderr
    storage.prepare("c", image.chain_ids)
    with writable_root(str(root), "c", (), read_only=True) as fd:
        path = f"/proc/self/fd/{fd}"
        assert os.getxattr(f"{path}/tool", "security.capability") == CAPABILITY
        assert os.getxattr(f"{path}/tool", "user.note") == b"said"
        assert os.stat(f"{path}/closed/in").st_mtime == 99999
        assert os.path.samefile(f"{path}/set-uid", f"{path}/other")
        hole = os.stat(f"{path}/hole")
        assert hole.st_size == 9 << 20 and (hole.st_blocks < 64 or storage.driver == "erofs")


def test_the_root_directory_is_the_images(minibox_here: Run, root: Path) -> None:
    add(root, "app", [directory("./", 0o555, uid=7)], [entry("upper")])
    done = minibox_here(*RUN, "app", "stat", "-c", "%a %u", "/")
    assert done.stdout == "555 7\n", done.stderr
    add(root, "bare", [entry("gone"), directory("bin/gone")], [entry(".wh..wh..opq"), directory("bin"), entry("new")])
    assert minibox_here("diff", "bare").stdout.count("D /") and "D /gone\n" in minibox_here("diff", "bare").stdout
    done = minibox_here(*RUN, "bare", "/bin/ls")
    assert done.returncode == 127 and "/bin/ls" in done.stderr  # hidden with all else


def test_what_is_written_is_the_containers_own(minibox_here: Run, root: Path) -> None:
    add(root, "app", [directory("data"), entry("data/a", content=b"1"), entry("data/b", content=b"1")])
    script = "echo 2 > /data/a; rm /data/b; mkdir /data/c; echo new > /data/c/d; cat /data/a; ls /data"
    for _ in range(2):
        done = minibox_here(*RUN, "app", "sh", "-c", script)
        assert (done.returncode, done.stdout, done.stderr) == (0, "2\na\nc\n", "")
    assert minibox_here(*RUN, "app", "cat", "/data/a", "/data/b").stdout == "11"
    done = minibox_here(*RUN, "--read-only", "app", "sh", "-c", "echo 2 > /data/a")
    assert done.returncode == 1 and "Read-only file system" in done.stderr
    assert containers(root) == []


def test_files_keep_the_images_ids_on_disk(minibox_here: Run, root: Path, place: Place) -> None:
    add(root, "app", [entry("theirs", uid=7, gid=8)])
    script = "id -u; cat /proc/self/uid_map; touch /mine; chown 5:6 /theirs; stat -c %u:%g /mine /theirs /bin"
    done = minibox_here(*KEPT, "app", "sh", "-c", script)
    first, mapping, *owners = done.stdout.splitlines()
    assert first == "0" and mapping.split()[:2] != ["0", "0"], done.stderr
    assert owners == ["0:0", "5:6", "0:0"]
    (key,) = containers(root)
    assert read_record(str(root), key) == (place.driver, ImageStore(str(root)).resolve("app").chain_ids)
    with writable_root(str(root), key, (), read_only=True) as fd:
        found = [os.stat(name, dir_fd=fd) for name in ("mine", "theirs", "bin")]
        assert [(status.st_uid, status.st_gid) for status in found] == [(0, 0), (5, 6), (0, 0)]
    for storage_driver in ("overlay", "copy"):  # whatever the default is
        assert minibox_here("--storage-driver", storage_driver, "rm", "kept").returncode in (0, 125)
    assert containers(root) == []


def test_a_user_of_the_image_and_the_hosts_ids(minibox_here: Run, root: Path) -> None:
    passwd = b"root:x:0:0::/root:/bin/sh\napp:x:12:34::/srv:/bin/sh\n"
    add(root, "app", [entry("etc/passwd", content=passwd)], [directory("srv", uid=12)])
    done = minibox_here(*RUN, "--user", "app", "app", "sh", "-c", "id -u; id -g; echo $HOME; touch /srv/x && ls /srv")
    assert done.stdout.split() == ["12", "34", "/srv", "x"], done.stderr
    done = minibox_here(*RUN, "--userns", "host", "app", "sh", "-c", "cat /proc/self/uid_map; touch /new; ls -d /new")
    assert done.stdout.split() == ["0", "0", "4294967295", "/new"], done.stderr


def test_many_layers(minibox_here: Run, root: Path) -> None:
    layers = [[entry("top", content=b"%d" % number), entry(f"in-{number}")] for number in range(70)]
    add(root, "deep", *layers)
    done = minibox_here(*RUN, "deep", "sh", "-c", "cat /top; ls / | grep -c in-")
    assert done.stdout == "6970\n", done.stderr


def test_a_new_volume_begins_with_the_images_content(minibox_here: Run, root: Path) -> None:
    add(root, "app", [directory("srv"), entry("srv/a", content=b"1"), entry("srv/gone")], [entry("srv/.wh.gone")])
    done = minibox_here(*RUN, "-v", "data:/srv", "app", "sh", "-c", "ls /srv; cat /srv/a")
    assert done.stdout == "a\n1", done.stderr


def test_devices_and_holes(minibox_here: Run, root: Path, storage: Snapshotter) -> None:
    import tarfile

    add(root, "app", [entry("pipe", tarfile.FIFOTYPE), entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3)])
    script = "test -p /pipe && test -c /null && truncate -s 1G /hole && stat -c '%s %b' /hole && cat /hole2 | wc -c"
    done = minibox_here(
        *RUN, "--device", "/dev/null:/dev/mine", "app", "sh", "-c", f"echo x > /dev/mine; : > /hole2; {script}"
    )
    size, blocks, count = done.stdout.split()
    assert (size, count) == (str(1 << 30), "0") and int(blocks) < 100, done.stderr


# ---- who may, and where -------------------------------------------------------------------------


def test_an_ordinary_user(minibox_user: Run, user_seed: Path, place: Place) -> None:
    with state_root(place.directory, user_seed, owner=isolation.USER_ID) as root:
        add(root, "app", [entry("theirs", uid=77, mode=0o600), directory("d", 0o700, uid=77), entry("d/x", uid=78)])
        subprocess.run(["chown", "-R", f"{isolation.USER_ID}:{isolation.USER_ID}", str(root)], check=True)
        environment = {"MINIBOX_ROOT": str(root), "MINIBOX_STORAGE_DRIVER": place.driver}
        script = "id -u; stat -c '%u %a' /theirs /d/x; echo x > /new; rm -r /d; ls -d /d /new 2>&1"
        for _ in range(2):
            done = minibox_user(*RUN, "app", "sh", "-c", script, env=environment)
            if place.driver == "erofs":
                assert (done.returncode, done.stdout) == (125, "")
                assert "storage driver erofs: the kernel lets only the host's root mount an EROFS image" in done.stderr
                assert "hint: choose another: --storage-driver overlay" in done.stderr
            else:
                assert done.stdout.splitlines() == [
                    "0",
                    "77 600",
                    "78 644",
                    "ls: /d: No such file or directory",
                    "/new",
                ]
        assert containers(root) == []
        done = minibox_user("image", "prune", "--all", "--force", env=environment)
        assert done.returncode == 0, done.stderr
        assert snapshotter(str(root), place.driver).layers() == []


@requires("command:mkfs.erofs")
def test_an_image_that_the_kernel_cannot_mount_from_its_file(
    seed: Path, session_directory: Path, minibox_command: list[str], environment: dict[str, str]
) -> None:
    """As all before Linux 6.12, and on every kernel those on tmpfs, whose pages EROFS can't read by itself."""
    with new_file_system("tmpfs", session_directory) as point, state_root(point, seed) as root:
        own = {"MINIBOX_ROOT": str(root), "MINIBOX_STORAGE_DRIVER": "erofs"}
        for options in (RUN, (*RUN, "--userns", "host"), (*RUN, "-v", "data:/etc")):
            with subprocess.Popen(
                [*minibox_command, *options, "-i", "base", "sh", "-c", "ls /etc/passwd; read line"],
                env={**environment, **own}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            ) as process:  # fmt: skip
                assert process.stdout and process.stdout.readline() == "/etc/passwd\n"
                assert any(str(root / "erofs").endswith(path) for path in loop_files()), loop_files()
                process.communicate("\n", timeout=60 * SLOWNESS)
        deadline = time.monotonic() + 30 * SLOWNESS
        while any(str(root / "erofs").endswith(path) for path in loop_files()):
            assert time.monotonic() < deadline


@requires("command:mkfs.erofs")
def test_the_same_layer_is_the_same_image(tmp_path: Path) -> None:
    (tmp_path / "tree/d").mkdir(parents=True)
    (tmp_path / "tree/d/f").write_text("x")
    os.utime(tmp_path / "tree/d/f", (1234567890.5, 1234567890.5))
    images = [tmp_path / "1", tmp_path / "2"]
    for image in images:
        make_image(str(tmp_path / "tree"), str(image))
        time.sleep(1.1)  # images have the seconds of their making
    assert images[0].read_bytes() == images[1].read_bytes()
    fd = open_image(str(images[0]))
    try:
        assert os.stat("d/f", dir_fd=fd).st_mtime == 1234567890.5
    finally:
        os.close(fd)


def test_a_driver_that_cannot_work_says_why(minibox: Run, state: Path) -> None:
    def said(driver: str) -> str:
        done = minibox("--storage-driver", driver, *RUN, "base", "true")
        assert done.returncode == 125 and not unfinished(state / "root")
        return str(done.stderr)

    text = said("btrfs")
    assert f"minibox: use the storage driver btrfs: {state}/root is on " in text
    assert "hint: set --root to a directory on btrfs, or choose another: --storage-driver overlay\n" in text
    program = shutil.which("mkfs.erofs", path="/usr/bin:/bin:/usr/sbin:/sbin")
    if program:
        subprocess.run(["mount", "--bind", "/dev/null", program], check=True)
    try:
        text = said("erofs")
    finally:
        if program:
            subprocess.run(["umount", program], check=True)
    assert (
        "storage driver erofs: make an EROFS image: mkfs.erofs is not installed (apt-get install erofs-utils)" in text
    )
    doctor = minibox("doctor").stdout
    assert re.search(r"storage drivers +overlay, copy \(by", doctor) and "not btrfs" in doctor, doctor
    text = said("zfs")
    assert text == "minibox: unknown storage driver 'zfs'\nhint: one of overlay, btrfs, erofs, copy\n"
    assert containers(state / "root") == []


@requires("command:mkfs.erofs")
def test_drivers_are_used_side_by_side(minibox: Run, state: Path, tmp_path: Path) -> None:
    """By option, variable and configuration file, in this order."""
    root = state / "root"
    (tmp_path / "config.toml").write_text('[storage]\ndriver = "copy"\n')
    file = {"MINIBOX_CONFIG": str(tmp_path / "config.toml")}
    runs: tuple[tuple[str, tuple[str, ...], dict[str, str]], ...] = (
        ("overlay", (), {}),
        ("copy", (), file),
        ("erofs", (), {**file, "MINIBOX_STORAGE_DRIVER": "erofs"}),
        ("overlay", ("--storage-driver=overlay",), {**file, "MINIBOX_STORAGE_DRIVER": "erofs"}),
        ("copy", ("--storage-driver", "copy"), {}),
    )
    for number, (driver, words, env) in enumerate(runs):
        name = f"{driver}-{number}"
        done = minibox(*words, "run", "--network", "none", "--name", name, "base", "touch", "/new", env=env)
        assert done.returncode == 0, done.stderr
    records = [read_record(str(root), key) for key in containers(root)]
    assert sorted(record[0] for record in records if record) == sorted(driver for driver, *_ in runs)
    for number, (driver, *_) in enumerate(runs):
        assert minibox("rm", f"{driver}-{number}").returncode == 0
    assert containers(root) == []


# ---- the Plan tells the truth -------------------------------------------------------------------

SIMPLE = ("--network", "none", "--userns", "host", "--rm")


def test_explain_shows_what_run_does(minibox_here: Run, place: Place) -> None:
    for options in (("--rm", "--network", "none"), SIMPLE):
        steps = json.loads(minibox_here("explain", "--json", "run", *options, "base", "true").stdout)
        names = [step["operation"] for step in steps]
        done = minibox_here("run", "--trace", *options, "base", "true")
        traced = [words[2:4] for line in done.stderr.splitlines() if (words := line.split()) and words[0].isdigit()]
        assert traced == [[step["actor"], step["does"].split()[0]] for step in steps]
        has = {"overlay": {"mount_overlay"}, "erofs": {"open_image", "mount_overlay"}}.get(place.driver, set())
        assert {"mount_overlay", "open_image"} & set(names) == has


def test_the_script_starts_the_same_container(
    minibox_here: Run, root: Path, environment: dict[str, str], place: Place
) -> None:
    report = "awk '{print $5, $6, $(NF-2)}' /proc/self/mountinfo; ls /; touch /new; stat -c %u:%g /new /bin; exit 7"
    printed = minibox_here("explain", "--shell", "run", *SIMPLE, "base", "sh", "-c", report)
    if place.driver == "erofs":
        assert printed.returncode == 125 and "no --storage-driver erofs" in printed.stderr
        return
    assert printed.returncode == 0, printed.stderr
    script = root / "start.sh"
    script.write_text(printed.stdout)
    by_hand = subprocess.run(["sh", str(script)], env=environment, capture_output=True, text=True, check=False,
                             stdin=subprocess.DEVNULL)  # fmt: skip
    ours = minibox_here("run", *SIMPLE, "base", "sh", "-c", report)
    assert (by_hand.returncode, ours.returncode) == (7, 7), by_hand.stderr + ours.stderr
    assert sorted(by_hand.stdout.splitlines()) == sorted(ours.stdout.splitlines())
    assert containers(root) == []
