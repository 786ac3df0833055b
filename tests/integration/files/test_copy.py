"""cp: both ways, of containers that run and that have ended, by root and by an ordinary user."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import isolation
from tests.conftest import Run, _environment, _user_environment
from tests.probes import requires
from tests.running_container import running

NO_NETWORK = ("--network", "none")
SCRIPT = """
mkdir -p /srv/a/b; echo file > /srv/a/b/f; chown -R 7:8 /srv/a; chmod 4755 /srv/a/b/f
ln -s b/f /srv/a/link; ln -s /srv/a /dir; ln -s /etc/passwd /srv/abs; ln -s /../../../../../.. /srv/up
mkfifo /srv/a/fifo; ln /srv/a/b/f /srv/a/hard; echo ready"""


class Place:
    """One container, and a directory of the host's."""

    def __init__(self, run: Run, host: Path) -> None:
        self.run, self.host = run, host

    def cp(self, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
        return self.run("cp", *words, cwd=str(self.host), **more)

    def done(self, *words: str) -> None:
        done = self.cp(*words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def refused(self, *words: str) -> str:
        done = self.cp(*words)
        assert done.returncode == 125 and done.stdout == "", done.stderr
        return str(done.stderr)

    def listed(self, path: str) -> dict[str, tarfile.TarInfo]:
        done = self.run("cp", f"web:{path}", "-", text=False)
        assert done.returncode == 0, done.stderr
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as file:
            return {member.name: member for member in file.getmembers()}


@pytest.fixture(params=[
    pytest.param("root-ended", marks=requires("root")), pytest.param("root-runs", marks=requires("root")),
    pytest.param("user-ended", marks=requires("user")), pytest.param("user-runs", marks=requires("user")),
])  # fmt: skip
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A container `web` that SCRIPT has run in, ended or still running, of root's or of an ordinary user's."""
    user, _, how = request.param.partition("-")
    as_user = user == "user"
    state: Path = request.getfixturevalue("user_state" if as_user else "state")
    host = state / "host"
    host.mkdir()
    if as_user:
        os.chown(host, isolation.USER_ID, isolation.USER_ID)
    found = Place(request.getfixturevalue("minibox_user" if as_user else "minibox"), host)
    if how == "ended":
        done = found.run("run", *NO_NETWORK, "--name", "web", "-v", "/vol", "base", "sh", "-c", SCRIPT)
        assert done.returncode == 0, done.stderr
        yield found
        return
    identity = {"user": isolation.USER_ID, "group": isolation.USER_ID, "extra_groups": [], "cwd": "/"}
    command = request.getfixturevalue("user_command" if as_user else "minibox_command")
    environment = _user_environment(state) if as_user else _environment(state)
    options = (*NO_NETWORK, "--name", "web", "-v", "/vol")
    with running(command, environment, *options, script=SCRIPT, **(identity if as_user else {})):
        yield found


def test_files_and_trees_by_dockers_rules(place: Place) -> None:
    me = isolation.USER_ID if place.host.stat().st_uid else 0
    place.done("web:/srv/a/b/f", ".")
    place.done("web:srv/a/b/f", "name")
    place.done("web:/srv/a", ".")
    place.done("web:/srv/a", "new")
    place.done("web:/srv/a/.", "content")
    (place.host / "there").mkdir()
    os.chown(place.host / "there", me, me)
    place.done("web:/srv/a/.", "there")
    assert (place.host / "f").read_text() == (place.host / "name").read_text() == "file\n"
    for name in ("a", "new", "content", "there"):
        copied = place.host / name
        assert sorted(str(path.relative_to(copied)) for path in copied.rglob("*")) == [
            "b",
            "b/f",
            "fifo",
            "hard",
            "link",
        ]
        assert os.readlink(copied / "link") == "b/f" and (copied / "fifo").is_fifo()
        assert (copied / "hard").stat().st_ino == (copied / "b/f").stat().st_ino
    # What is copied out is the caller's, and nobody's set-user-ID program.
    status = (place.host / "f").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (me, me, 0o755)

    place.done("a", "web:/tmp")
    place.done("f", "web:/tmp/other")
    place.done("./f", "web:/tmp/a/b/f")
    place.done("a/.", "web:/srv/new")
    place.done("f", "web:/dir")  # a symlink to a directory
    names = place.listed("/tmp")
    assert {"tmp/a/b/f", "tmp/a/hard", "tmp/other"} <= set(names)
    assert {(member.uid, member.gid) for member in names.values()} == {(0, 0)}
    assert "new/b/f" in place.listed("/srv/new") and "a/f" in place.listed("/srv/a")


def test_owners_with_archive(place: Place) -> None:
    root = place.host.stat().st_uid == 0
    place.done("-a", "web:/srv/a/b/f", "f")
    status = (place.host / "f").stat()
    assert (status.st_uid, status.st_gid) == ((7, 8) if root else (isolation.USER_ID, isolation.USER_ID))
    if root:
        assert status.st_mode & 0o7777 == 0o4755
        os.chown(place.host / "f", 70, 80)
        place.done("-a", "f", "web:/srv/kept")
        place.done("f", "web:/srv/roots")
        kept, roots = place.listed("/srv/kept")["kept"], place.listed("/srv/roots")["roots"]
        assert (kept.uid, kept.gid, roots.uid, roots.gid) == (70, 80, 0, 0)


def test_links(place: Place) -> None:
    place.done("web:/srv/abs", "link")
    assert os.readlink(place.host / "link") == "/etc/passwd"
    place.done("-L", "web:/srv/abs", "followed")
    assert (place.host / "followed").read_text().startswith("root:")
    assert place.listed("/srv/abs")["abs"].issym()
    place.done("web:/dir/", "tree")
    assert (place.host / "tree/b/f").exists()
    (place.host / "here").symlink_to("followed")
    place.done("here", "web:/tmp/here")
    assert place.listed("/tmp/here")["here"].linkname == "followed"
    place.done("-L", "here", "web:/tmp/file")
    assert place.listed("/tmp/file")["file"].isreg()


def test_archives_on_stdin_and_stdout(place: Place) -> None:
    members = place.listed("/srv/a")
    assert list(members) == ["a", "a/b", "a/b/f", "a/fifo", "a/hard", "a/link"]
    assert (members["a/b/f"].uid, members["a/b/f"].mode) == (7, 0o4755)
    assert list(place.listed("/srv/a/b/."))[0] == "."
    archive = place.run("cp", "web:/srv/a", "-", text=False).stdout
    done = place.run("cp", "-", "web:/opt", input=archive, text=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert "opt/a/hard" in place.listed("/opt")
    for path, word in (("/etc/passwd", "directory"), ("/nowhere", "directory")):
        done = place.run("cp", "-", f"web:{path}", input=archive, text=False)
        assert done.returncode == 125 and word.encode() in done.stderr
    done = place.run("cp", "-", "web:/opt", input=archive[:1000], text=False)
    assert done.returncode == 125 and b"not a valid tar" in done.stderr


def test_a_volume_is_part_of_it(place: Place) -> None:
    (place.host / "f").write_text("mine")
    place.done("f", "web:/vol/f")
    assert "vol/f" in place.listed("/vol")
    assert "f" not in place.run("diff", "web").stdout.split("/")


def test_what_can_not_be(place: Place) -> None:
    (place.host / "file").write_text("x")
    (place.host / "directory").mkdir()
    (place.host / "directory/etc").write_text("x")
    assert "copy web:/none: No such file" in place.refused("web:/none", ".")
    assert "copy none: No such file" in place.refused("none", "web:/")
    assert "Not a directory" in place.refused("web:/etc/passwd/", ".")
    assert "does not exist" in place.refused("web:/etc/passwd", "nowhere/")
    assert "No such file" in place.refused("web:/etc/passwd", "nowhere/file")
    assert "cannot copy a directory to the file" in place.refused("web:/etc", "file")
    assert "cannot copy a directory to the file" in place.refused("directory", "web:/etc/passwd")
    assert "cannot overwrite directory '/etc'" in place.refused("directory/.", "web:/")
    assert "Not a directory" in place.refused("file", "web:/etc/passwd/x")
    assert "no such container, image or layer: 'nobody'" in place.refused("nobody:/x", ".")
    assert "neither SRC nor DEST" in place.refused("a", "b")
    assert "not supported" in place.refused("web:/a", "web:/b")
    assert "is an image" in place.refused("file", "base:/x")
    assert sorted(path.name for path in place.host.iterdir()) == ["directory", "file"]


def test_out_of_an_image(place: Place) -> None:
    place.done("base:/etc/passwd", ".")
    place.done("base:latest:/etc/passwd", "again")
    assert (place.host / "passwd").read_bytes() == (place.host / "again").read_bytes() != b""


def test_nothing_leads_out(place: Place) -> None:
    (place.host / "f").write_text("mine")
    place.done("f", "web:/srv/up/escaped")
    place.done("f", "web:/../../../../escaped-too")
    assert {"./escaped", "./escaped-too"} <= set(place.listed("/"))
    assert not Path("/escaped").exists() and not Path("/escaped-too").exists()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        header = tarfile.TarInfo("../../out")
        file.addfile(header)
    done = place.run("cp", "-", "web:/srv", input=archive.getvalue(), text=False)
    assert done.returncode == 125 and b"would leave" in done.stderr


@requires("root")
@pytest.mark.parametrize("words", [("export", "web"), ("cp", "web:/", "-")])
def test_a_reader_that_leaves_is_no_error(
    minibox: Run, minibox_command: list[str], environment: dict[str, str], words: tuple[str, ...]
) -> None:
    assert minibox("run", *NO_NETWORK, "--name", "web", "base", "true").returncode == 0
    pipe: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*minibox_command, *words], env=environment, **pipe) as process:
        assert process.stdout and process.stderr
        process.stdout.read(1)
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 141)


@requires("root")
def test_a_read_only_root(minibox: Run, state: Path) -> None:
    (state / "f").write_text("mine")
    options = ("--read-only", "-v", "/vol", "-v", f"{state}:/bound:ro")
    assert minibox("run", *NO_NETWORK, "--name", "web", *options, "base", "true").returncode == 0
    for path in ("/srv/f", "/bound/g"):
        done = minibox("cp", str(state / "f"), f"web:{path}")
        assert done.returncode == 125 and "Read-only file system (EROFS)" in done.stderr and "hint:" in done.stderr
    assert minibox("cp", str(state / "f"), "web:/vol").returncode == 0
    assert not (state / "g").exists()


@requires("root")
def test_a_device_that_comes_out_is_for_its_owner_only(minibox: Run, state: Path) -> None:
    """A container with the host's ids can make one that all may open, in a directory of the host's that all may reach."""
    script = "mkdir /srv/a; mknod -m 666 /srv/a/null c 1 3; mknod -m 666 /srv/a/pipe p"
    options = ("--userns", "host", "--name", "web", "base", "sh", "-c", script)
    assert minibox("run", *NO_NETWORK, *options).returncode == 0
    assert minibox("cp", "web:/srv/a", str(state / "out")).returncode == 0
    assert minibox("cp", "-a", "web:/srv/a", str(state / "kept")).returncode == 0
    for name, device, pipe in (("out", 0o600, 0o666), ("kept", 0o666, 0o666)):
        modes = [(state / name / each).stat().st_mode & 0o777 for each in ("null", "pipe")]
        assert modes == [device, pipe] and (state / name / "null").is_char_device()


@requires("root")
def test_files_that_are_mounted_get_the_content(
    minibox: Run, minibox_command: list[str], environment: dict[str, str], state: Path
) -> None:
    (state / "f").write_text("10.0.0.1 there\n")
    with running(minibox_command, environment, *NO_NETWORK, "--name", "web", "--tmpfs", "/ram"):
        assert minibox("cp", str(state / "f"), "web:/etc/hosts").returncode == 0
        assert minibox("cp", str(state / "f"), "web:/ram").returncode == 0
        assert "there" in minibox("cp", "web:/etc/hosts", "-").stdout
        assert "there" in minibox("cp", "web:/ram/f", "-").stdout
        assert minibox("diff", "web").stdout == "A /ram\n"  # where the tmpfs is mounted
        names = minibox("cp", "web:/", "-", text=False)
        with tarfile.open(fileobj=io.BytesIO(names.stdout)) as file:
            found = file.getnames()
        assert {"./proc", "./sys", "./dev", "./ram/f"} <= set(found)
        assert not any(name.startswith(("./proc/", "./sys/", "./dev/")) for name in found)


@requires("root")
def test_a_container_that_swaps_links_meanwhile(
    minibox: Run, minibox_command: list[str], environment: dict[str, str], state: Path
) -> None:
    """CVE-2018-15664: between the look and the copy a directory becomes a symlink to the host's root."""
    secret = state / "secret"
    secret.mkdir()
    (secret / "f").write_text("the host's")
    (state / "f").write_text("mine")
    script = f"""
mkdir -p /srv/d{secret}; echo inside > /srv/d{secret}/f; mkdir -p {secret}
(while :; do mv /srv/d /srv/e; ln -s / /srv/d; rm /srv/d; mv /srv/e /srv/d; done) > /dev/null 2>&1 &
echo ready"""
    with running(minibox_command, environment, *NO_NETWORK, "--name", "web", script=script):
        for number in range(5):
            out = state / f"out-{number}"
            minibox("cp", f"web:/srv/d{secret}/f", str(out))
            assert not out.exists() or out.read_text() == "inside\n"
            minibox("cp", str(state / "f"), f"web:/srv/d{secret}/written")
            minibox("cp", "web:/srv", str(state / f"tree-{number}"))
    assert sorted(path.name for path in secret.iterdir()) == ["f"]
    for path in state.glob("tree-*/**/f"):
        assert path.is_symlink() or path.read_text() == "inside\n"
