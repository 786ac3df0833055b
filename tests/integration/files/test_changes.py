"""diff, commit and export: of containers that have ended and that run, by root and by an ordinary user."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from tests import images, isolation
from tests.conftest import Run
from tests.leaks import SLOWNESS
from tests.probes import requires
from tests.running_container import running
from tests.storage_places import new_file_system, state_root

NO_NETWORK = ("--network", "none")
SCRIPT = """
echo new > /etc/new; chown 7:8 /etc/new; chmod 4750 /etc/new
rm /etc/group; rm -r /root; mkdir /root; touch /root/here
mkdir -p /srv/a/b; ln -s /etc/new /srv/link; mkfifo /srv/fifo; ln /etc/new /srv/hard
chmod 700 /tmp; touch -d '2001-02-03 04:05:06' /srv/a/old
cat < /dev/null >> /etc/shadow; chmod 644 /etc/passwd
"""
CHANGES = """\
C /etc
D /etc/group
A /etc/new
C /root
A /root/here
C /srv
A /srv/a
A /srv/a/b
A /srv/a/old
A /srv/fifo
A /srv/hard
A /srv/link
C /tmp
"""
CHECK = """
stat -c '%n %u:%g %a' /etc/new /srv/a/b /tmp /root/here; cat /etc/new /srv/hard; stat -c %h /etc/new; readlink /srv/link
[ -p /srv/fifo ] && [ ! -e /etc/group ] && ls -A /root && stat -c %Y /srv/a/old
"""
CHECKED = """\
/etc/new 7:8 4750
/srv/a/b 0:0 755
/tmp 0:0 700
/root/here 0:0 644
new
new
2
/etc/new
here
981173106
"""


def changed(run: Run, name: str = "web", script: str = SCRIPT, *options: str) -> None:
    done = run("run", *NO_NETWORK, "--name", name, *options, "base", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return str(done.stdout)


@pytest.fixture(params=[pytest.param("root", marks=requires("root")), pytest.param("user", marks=requires("user"))])
def run(request: pytest.FixtureRequest) -> Run:
    """The command, as root and as an ordinary user."""
    found: Run = request.getfixturevalue("minibox" if request.param == "root" else "minibox_user")
    return found


def test_what_a_container_changed_is_shown_and_kept(run: Run) -> None:
    changed(run)
    assert said(run("diff", "web")) == CHANGES
    identity = said(run("commit", "-a", "Ann", "-m", "why", "-c", 'CMD ["echo", "run"]', "web", "app:1")).strip()
    assert identity.startswith("sha256:") and len(identity) == 71
    assert said(run("run", "--rm", *NO_NETWORK, "app:1")) == "run\n"
    assert said(run("run", "--rm", *NO_NETWORK, "app:1", "sh", "-c", CHECK)) == CHECKED
    # The image is as the container is: nothing is left to change, and its layer says the same.
    assert said(run("diff", "web", "app:1")) == ""
    assert said(run("diff", "app:1")) == CHANGES
    shown = json.loads(said(run("diff", "--json", "base", "app:1")))
    assert "".join(f"{row['Kind']} {row['Path']}\n" for row in shown) == CHANGES


def test_the_same_changes_are_the_same_layer(run: Run) -> None:
    script = "mkdir /srv/d && echo x > /srv/d/f && rm /etc/group && touch -d @7 /srv/d/f /srv/d /srv /etc"
    layers = []
    for name, order in (("one", script), ("two", f"rm -r /root; cp -a /etc/group /g; rm /g; {script}")):
        changed(run, name, order + "; [ -d /root ] || mkdir -m 700 /root; touch -d @0 /root")
        said(run("commit", name, name))
        found = json.loads(said(run("inspect", name)))[-1]
        layers.append(found)
    ours = [json.loads(said(run("inspect", "--type", "image", name)))[0]["RootFS"]["Layers"] for name in ("one", "two")]
    assert ours[0] == ours[1]
    assert len(ours[0]) == 2


def test_a_container_that_changed_nothing_gets_no_layer(run: Run) -> None:
    changed(run, "web", "touch /etc/passwd -r /etc/passwd; cat < /dev/null >> /etc/shadow", "-e", "A=b", "-w", "/srv")
    assert said(run("diff", "web")) == ""
    said(run("commit", "web", "app"))
    found = json.loads(said(run("inspect", "--type", "image", "app")))[0]
    assert len(found["RootFS"]["Layers"]) == 1
    assert "A=b" in found["Config"]["Env"] and found["Config"]["WorkingDir"] == "/srv"
    assert not any(entry.startswith(("HOSTNAME=", "HOME=")) for entry in found["Config"]["Env"])
    assert found["Config"]["Cmd"][0] == "sh"


def test_commits_on_commits(run: Run) -> None:
    changed(run, "first", "mkdir /srv/d; echo 1 > /srv/d/f; echo 1 > /srv/d/g; echo 1 > /srv/x")
    said(run("commit", "first", "step:1"))
    script = "rm -r /srv/d; mkdir /srv/d; echo 2 > /srv/d/g; rm /srv/x; mkdir /srv/x; echo 2 > /srv/x/y"
    done = run("run", *NO_NETWORK, "--name", "second", "step:1", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    expected = "C /srv\nC /srv/d\nD /srv/d/f\nC /srv/d/g\nC /srv/x\nA /srv/x/y\n"
    assert said(run("diff", "second")) == expected
    said(run("commit", "second", "step:2"))
    assert said(run("diff", "step:1", "step:2")) == expected
    assert said(run("run", "--rm", *NO_NETWORK, "step:2", "sh", "-c", "cd /srv; find . | sort; cat d/g")) == (
        ".\n./d\n./d/g\n./x\n./x/y\n2\n"
    )
    layers = json.loads(said(run("inspect", "--type", "image", "step:2")))[0]["RootFS"]["Layers"]
    assert said(run("diff", layers[1])) == "C /srv\nA /srv/d\nA /srv/d/f\nA /srv/d/g\nA /srv/x\n"
    assert said(run("diff", layers[1][7:19], layers[2])) == expected


def test_an_export_is_all_of_a_container_and_makes_the_same_image(run: Run, tmp_path: Path) -> None:
    changed(run)
    archive = run("export", "web", text=False)
    assert archive.returncode == 0, archive.stderr
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as file:
        members = {member.name: member for member in file.getmembers()}
    assert "bin/busybox" in members and "etc/group" not in members
    assert (members["etc/new"].uid, members["etc/new"].mode) == (7, 0o4750)
    assert members["srv/hard"].islnk() and members["srv/hard"].linkname == "etc/new"
    assert run("import", "-", "again", input=archive.stdout, text=False).returncode == 0
    assert said(run("diff", "web", "again")) == ""
    assert said(run("run", "--rm", *NO_NETWORK, "again", "sh", "-c", CHECK)) == CHECKED


@requires("root")
def test_what_is_mounted_is_neither_exported_nor_committed(minibox: Run, state: Path) -> None:
    (state / "host").mkdir()
    (state / "host/secret").touch()
    changed(minibox, "web", "touch /data/volume /ram/file", "-v", f"{state}/host:/srv/host", "-v", "/data", "--tmpfs",
            "/ram")  # fmt: skip
    archive = minibox("export", "web", text=False).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        names = file.getnames()
    assert {"srv/host", "data", "ram"} <= set(names)
    assert not {"srv/host/secret", "data/volume", "ram/file", "proc/self", "dev/null"} & set(names)
    said(minibox("commit", "web", "app"))
    found = json.loads(said(minibox("inspect", "--type", "image", "app")))[0]["Config"]
    assert found["Volumes"] == {"/data": {}}
    assert "D" not in said(minibox("diff", "web", "app"))


@requires("root")
def test_a_container_that_runs(minibox: Run, minibox_command: list[str], environment: dict[str, str]) -> None:
    # Between the two numbers is a file that takes a while to read.
    script = """
echo x > /srv/x; dd if=/dev/urandom of=/srv/m bs=1M count=20 2> /dev/null
put() { echo $1 > /srv/t; mv /srv/t $2; }
put 0 /srv/a; put 0 /srv/z
(i=0; while :; do i=$((i+1)); put $i /srv/a; put $i /srv/z; done) & echo ready"""
    with running(minibox_command, environment, *NO_NETWORK, "--name", "live", script=script):
        assert "A /srv/x" in said(minibox("diff", "live"))
        assert minibox("export", "live", text=False).returncode == 0
        assert said(minibox("commit", "live", "live:1")).startswith("sha256:")
        number, deadline = minibox("cp", "live:/srv/a", "-").stdout, monotonic() + 20 * SLOWNESS
        while minibox("cp", "live:/srv/a", "-").stdout == number:
            assert monotonic() < deadline, "it is still paused"
    first, last = said(minibox("run", "--rm", *NO_NETWORK, "live:1", "cat", "/srv/a", "/srv/z")).split()
    assert int(first) - int(last) in (0, 1)


@requires("user")
def test_an_ordinary_users_container_that_runs(minibox_user: Run, user_state: Path, user_command: list[str]) -> None:
    from tests.conftest import _user_environment

    with running(user_command, _user_environment(user_state), *NO_NETWORK, "--name", "live",
                 script="echo x > /srv/x; chown 5:5 /srv/x; echo ready", user=isolation.USER_ID,
                 group=isolation.USER_ID, extra_groups=[], cwd="/"):  # fmt: skip
        assert said(minibox_user("diff", "live")) == "C /srv\nA /srv/x\n"
        assert minibox_user("commit", "live", "live:1").returncode == 0
    done = minibox_user("run", "--rm", *NO_NETWORK, "live:1", "stat", "-c", "%u", "/srv/x")
    assert said(done) == "5\n"


@requires("root")
def test_file_capabilities_and_xattrs_are_kept_and_overlayfs_own_are_not(minibox: Run, state: Path) -> None:
    changed(minibox, "web", "echo x > /srv/f; chmod 755 /srv/f; mkdir /srv/d")
    (container,) = (state / "root/containers").glob("*/upper/srv")
    os.setxattr(container / "f", "security.capability", bytes.fromhex("0100000200040000" + "00" * 12))
    os.setxattr(container / "f", "user.note", b"\xff\x00")
    said(minibox("commit", "web", "app"))
    layout = state / "root/images"
    manifest = json.loads(
        (layout / "blobs/sha256" / json.loads((layout / "index.json").read_text())["manifests"][-1]["digest"][7:])
        .read_text()
    )  # fmt: skip
    with tarfile.open(layout / "blobs/sha256" / manifest["layers"][-1]["digest"][7:]) as file:
        attributes = {member.name: member.pax_headers for member in file.getmembers()}
    assert set(attributes["srv/f"]) == {"SCHILY.xattr.security.capability", "SCHILY.xattr.user.note"}
    assert attributes["srv/d"] == {}
    images_own = said(minibox("diff", "web", "app"))
    assert images_own == ""


@requires("root")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("diff", "nobody"), "no such container, image or layer: 'nobody'"),
        (("diff", "base", "sha256:" + "0" * 64), "no such container, image or layer"),
        (("export", "nobody"), "there is no container 'nobody'"),
        (("commit", "nobody"), "there is no container 'nobody'"),
        (("commit", "base", "new"), "there is no container 'base'"),
    ],
)
def test_what_is_not_there(minibox: Run, words: tuple[str, ...], message: str) -> None:
    done = minibox(*words)
    assert done.returncode == 125
    assert done.stderr.startswith(f"minibox: {message}") and "hint: " in done.stderr


@requires("root")
def test_commits_that_can_not_be(minibox: Run, state: Path) -> None:
    changed(minibox)
    names = said(minibox("images", "-q"))
    for words, message in (
        (("commit", "web", "UPPER"), "invalid reference"),
        (("commit", "web", "a@sha256:" + "0" * 64), "can't have a digest"),
        (("commit", "-c", "RUN true", "web", "app"), "RUN"),
    ):
        done = minibox(*words)
        assert done.returncode == 125 and message in done.stderr, done.stderr
    changed(minibox, "odd", "touch /srv/.wh.x")
    done = minibox("commit", "odd", "app")
    assert done.returncode == 125 and "/srv/.wh.x" in done.stderr
    assert said(minibox("images", "-q")) == names
    assert list((state / "root/tmp").iterdir()) == []


@requires("root")
def test_an_archive_is_not_written_to_a_terminal(minibox_command: list[str], environment: dict[str, str]) -> None:
    leader, follower = os.openpty()
    try:
        done = subprocess.run(
            [*minibox_command, "export", "web"], env=environment, stdout=follower, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == 125 and b"not written to a terminal" in done.stderr
    done = subprocess.run(
        [*minibox_command, "export", "-o", "/nowhere/x", "web"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 125


@requires("root")
def test_images_of_layers_with_whiteouts(minibox: Run, state: Path) -> None:
    name = images.derive(
        state / "root", "odd", images.file("etc/.wh.group", b""), images.file("root/.wh..wh..opq", b""),
        images.file("srv/new", b"1", mode=0o600), images.directory("tmp", mode=0o700),
    )  # fmt: skip
    shown = said(minibox("diff", name)).splitlines()
    assert {"D /etc/group", "A /srv/new", "C /tmp"} <= set(shown)


def bare(run: Run) -> None:
    """The image `bare`: `base` without anything that a start mounts on."""
    assert run("create", "--name", "whole", "base").returncode == 0
    whole, fewer = io.BytesIO(run("export", "whole", text=False).stdout), io.BytesIO()
    with tarfile.open(fileobj=whole) as source, tarfile.open(fileobj=fewer, mode="w") as target:
        for member in source:
            if member.name not in ("proc", "sys", "dev", "etc/hosts", "etc/hostname", "etc/resolv.conf"):
                target.addfile(member, source.extractfile(member) if member.isreg() else None)
    assert run("import", "-", "bare", input=fewer.getvalue(), text=False).returncode == 0
    assert run("rm", "whole").returncode == 0


def exported(run: Run, name: str) -> dict[str, int]:
    """The sizes of files in a container's export."""
    with tarfile.open(fileobj=io.BytesIO(run("export", name, text=False).stdout)) as file:
        return {member.name: member.size for member in file}


@pytest.mark.parametrize("driver", ["overlay", "copy"])
def test_what_a_start_makes_to_mount_on_is_no_change(run: Run, driver: str) -> None:
    """As Docker says it; of /etc, which has a new time by that, nothing is told either."""
    env = {"MINIBOX_STORAGE_DRIVER": driver}
    bare(run)
    for name, script, told in (
        ("nothing", "true", ""),
        ("file", "echo 10.0.0.9 own >> /etc/hosts; echo new > /etc/new", "C /etc\nA /etc/new\n"),
        ("mode", "chmod 700 /etc", "C /etc\n"),
        ("beside", "mkdir /system; touch /hosts", "A /hosts\nA /system\n"),
    ):
        done = run("run", *NO_NETWORK, "--hostname", "here", "--name", name, "bare", "sh", "-c", script, env=env)
        assert (done.returncode, said(run("diff", name, env=env))) == (0, told), done.stderr
        said(run("commit", name, f"of-{name}", env=env))
        assert said(run("diff", "bare", f"of-{name}", env=env)) == told
        assert not {"proc", "sys", "dev", "etc/hosts", "etc/hostname", "etc/resolv.conf"} & exported(run, name).keys()
    layers = json.loads(said(run("inspect", "--type", "image", "of-nothing")))[0]["RootFS"]["Layers"]
    assert len(layers) == 1
    # After the end, too, cp has what the container saw.
    assert said(run("cp", "file:/etc/hostname", "-", env=env)).count("here\n") == 1
    assert "10.0.0.9 own" in said(run("cp", "file:/etc/hosts", "-", env=env))
    whole = run("cp", "file:/etc/.", "-", env=env, text=False).stdout
    with tarfile.open(fileobj=io.BytesIO(whole)) as file:
        assert all(file.getmember(f"./{each}").size for each in ("hosts", "hostname", "resolv.conf"))


def test_what_the_image_has_to_mount_on_stays_and_what_the_container_made_of_it_is_told(run: Run) -> None:
    bare(run)
    # An image of the same names, whatever is in them.
    script = "mkdir -p /data/etc /data/proc; touch /data/etc/hosts; tar c -C /data ."
    tar = run("run", "--rm", *NO_NETWORK, "base", "sh", "-c", script, text=False).stdout
    assert run("import", "-", "empty", input=tar, text=False).returncode == 0
    assert run("create", "--name", "of-empty", "empty", "none").returncode == 0
    assert {"etc/hosts", "proc"} <= exported(run, "of-empty").keys()
    with tarfile.open(fileobj=io.BytesIO(run("export", "of-empty", text=False).stdout)) as file:
        assert file.getmember("etc/hosts").size == 0
    # A volume's place is the user's doing.
    assert run("run", *NO_NETWORK, "--name", "web", "-v", "/etc/more", "bare", "true").returncode == 0
    assert said(run("diff", "web")) == "C /etc\nA /etc/more\n"
    assert "etc/more" in exported(run, "web")


@pytest.mark.parametrize(
    "driver",
    [
        "copy",
        pytest.param("erofs", marks=requires("command:mkfs.erofs")),
        pytest.param("btrfs", marks=requires("command:mkfs.btrfs")),
    ],
)
@requires("root", "idmap")
def test_every_storage_driver_finds_the_same(
    minibox: Run, state: Path, driver: str, session_directory: Path, seed: Path
) -> None:
    """The same changes are the same layer, whether they are found in an upperdir or by comparing two trees."""
    script = SCRIPT + "cd / && touch -h -d @7 etc/new etc/passwd srv/* srv/a/* root/here root srv etc tmp"
    found = []
    with ExitStack() as stack:
        root = state / "root"
        if driver == "btrfs":
            point = stack.enter_context(new_file_system("btrfs", session_directory))
            root = stack.enter_context(state_root(point, seed))
        for each in ("overlay", driver):
            env = {"MINIBOX_STORAGE_DRIVER": each, "MINIBOX_ROOT": str(root)}
            done = minibox("run", *NO_NETWORK, "--name", each, "base", "sh", "-c", script, env=env)
            assert (done.returncode, done.stderr) == (0, "")
            assert said(minibox("diff", each, env=env)) == CHANGES.replace("C /root", "C /etc/passwd\nC /root")
            assert minibox("commit", each, each, env=env).returncode == 0
            done = minibox("run", "--rm", *NO_NETWORK, each, "sh", "-c", CHECK, env=env)
            assert said(done) == CHECKED.replace("981173106", "7")
            (state / "f").write_text("mine")
            assert minibox("cp", str(state / "f"), f"{each}:/srv", env=env).returncode == 0
            assert b"mine" in minibox("cp", f"{each}:/srv/f", "-", env=env, text=False).stdout
            shown = json.loads(said(minibox("inspect", "--type", "image", each, env=env)))[0]["RootFS"]["Layers"]
            found.append(shown)
        assert minibox("rm", "overlay", driver, env=env).returncode == 0
    assert found[0] == found[1] and len(found[0]) == 2
