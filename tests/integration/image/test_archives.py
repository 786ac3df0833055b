"""load, save and import as a user types them, root and not."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pexpect
import pytest

from tests.conftest import Run
from tests.leaks import SLOWNESS
from tests.probes import requires_root, requires_user
from tests.registries import Answer, FakeRegistry
from tests.unit.layers import directory, entry, symlink, tar

DEVICE = entry("dev/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3)


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A root file system's tar: nothing to run, but what unpacking finds hard."""
    path = tmp_path / "rootfs.tar"
    path.write_bytes(tar([directory("d", 0o700), entry("d/f", content=b"1"), symlink("s", "/d"), DEVICE]).getvalue())
    path.chmod(0o644)
    return path


@requires_root
def test_import_save_and_load_by_pipes_and_files(minibox: Run, rootfs: Path, tmp_path: Path) -> None:
    made = minibox("import", "-c", 'CMD ["/d/f"]', "-m", "by hand", rootfs, "mine:1")
    assert (made.returncode, made.stderr) == (0, "") and made.stdout.startswith("sha256:")
    assert minibox("inspect", "--format", "{{json .Config.Cmd}}", "mine:1").stdout == '["/d/f"]\n'
    assert "by hand" in minibox("history", "mine:1").stdout
    archive = minibox("save", "mine:1", text=False).stdout
    assert minibox("rmi", "mine:1").returncode == 0
    loaded = minibox("load", input=archive, text=False)
    assert (loaded.stdout, loaded.stderr) == (b"Loaded image: mine:1\n", b"")
    assert minibox("images", "-q", "--no-trunc", "mine:1").stdout == made.stdout
    assert minibox("image", "save", "-o", tmp_path / "x.tar", "mine:1").returncode == 0
    assert (tmp_path / "x.tar").read_bytes() == archive
    full = minibox("save", "-o", "/dev/full", "mine:1")
    assert (full.returncode, full.stderr) == (125, "minibox: save: write /dev/full: No space left on device (ENOSPC)\n")
    with rootfs.open("rb") as file:
        unnamed = minibox("import", "-", stdin=file)
    assert minibox("load", "-i", tmp_path / "x.tar").stdout == "Loaded image: mine:1\n"
    assert unnamed.stdout.strip()[7:19] in minibox("images").stdout


@requires_root
def test_errors_of_archives_say_what_to_do(minibox: Run, rootfs: Path, tmp_path: Path) -> None:
    done = minibox("load", "-i", rootfs)
    assert done.returncode == 125
    assert "minibox import FILE NAME" in done.stderr
    assert "No such file or directory" in minibox("load", "-i", tmp_path / "absent").stderr
    done = minibox("save", "-o", tmp_path / "x.tar", "absent:1")
    assert "'absent:1' is not in the store" in done.stderr
    assert os.listdir(tmp_path) == ["rootfs.tar"], "no half of an archive"
    assert "no such instruction" in minibox("import", "-c", "RUN make", rootfs, "x").stderr
    assert minibox("save", "base", stdout=subprocess.DEVNULL).returncode == 0
    with open("/dev/full", "wb") as full:
        done = minibox("save", "base", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 125 and "save: write to stdout: No space left on device (ENOSPC)" in done.stderr


@requires_root
def test_import_from_a_server(minibox: Run, rootfs: Path) -> None:
    server = FakeRegistry()
    server.rule("GET /rootfs.tar", Answer(200, rootfs.read_bytes()))
    server.rule("GET /short", Answer(200, rootfs.read_bytes(), cut_after=512))  # one entry, whole
    try:
        assert minibox("import", f"http://{server.host}/rootfs.tar", "mine").returncode == 0
        assert f"Imported from http://{server.host}/rootfs.tar" in minibox("history", "mine").stdout
        missing = minibox("import", f"http://{server.host}/none", "x")
        short = minibox("import", f"http://{server.host}/short", "x")
    finally:
        server.close()
    assert missing.returncode == short.returncode == 125
    assert f"import http://{server.host}/none: the server answered 404" in missing.stderr
    assert f"import http://{server.host}/short: the download ended early, " in short.stderr
    done = minibox("import", "http://127.0.0.1:9/rootfs.tar", "x")
    assert done.returncode == 125 and "/rootfs.tar: Connection refused (ECONNREFUSED)" in done.stderr
    assert "x " not in minibox("images").stdout


@requires_root
def test_terminals_get_no_archives(minibox_command: list[str], environment: dict[str, str]) -> None:
    for words, said in ((["save", "base"], "not written to a terminal"), (["load"], "stdin is a terminal")):
        child = pexpect.spawn(minibox_command[0], words, env=environment, timeout=20 * SLOWNESS, encoding="utf-8")
        child.expect(said)
        child.expect("hint: ")
        child.expect(pexpect.EOF)
        child.wait()
        child.close()
        assert child.exitstatus == 125


@requires_user
def test_ordinary_user_is_told_of_devices_and_owners_beyond_his_range(
    minibox_user: Run, rootfs: Path, tmp_path: Path
) -> None:
    with rootfs.open("rb") as file:
        made = minibox_user("import", "-", "mine", stdin=file)
    assert made.returncode == 0, made.stderr
    assert made.stderr == "minibox: note: device nodes are left out, because only root can make them: dev/null\n"
    far = tar([entry("f", uid=1_000_000, gid=3)]).getvalue()
    done = minibox_user("import", "-", "far", input=far, text=False)
    assert done.returncode == 125
    assert b"'f' belongs to 1000000:3, which the user namespace doesn't map" in done.stderr
    assert b"/etc/subuid" in done.stderr
    assert minibox_user("images", "-q", "far").stdout == ""
