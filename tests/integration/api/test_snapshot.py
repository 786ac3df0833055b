"""`minibox.Snapshot`: frozen once, forked for each use."""

from __future__ import annotations

import gc
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import minibox
from minibox.api import interpreter
from minibox.api.options import ContainerOptions
from minibox.engine.container import collection

pytestmark = pytest.mark.requires("root")
PREPARE = """
set -e
mkdir -p /data/sub; echo one > /data/file; ln /data/file /data/link; chown 7:8 /data/file; chmod 4750 /data/file
rm /etc/group; rm -r /home; mkdir /home; echo new > /home/here
"""
LOOK = "cat /data/file /home/*; stat -c '%u %g %a %h' /data/file; ls /etc/group; ls /home"
SEEN = "one\nnew\n7 8 4750 2\nhere\n"


@pytest.fixture(params=["overlay", "erofs", "copy"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MINIBOX_STORAGE_DRIVER", request.param)
    return str(request.param)


def layers(state: Path) -> set[str]:
    found = [path for name in ("layers", "erofs", "copy") for path in (state / "root" / name).glob("*")]
    return {str(path) for path in found}


def test_sandboxes_begin_with_it_and_are_changed_alone(api: None, state: Path, driver: str) -> None:
    minibox.run("base", ["true"])
    before = layers(state)
    with minibox.Sandbox("base") as box:
        box.run(["sh", "-c", PREPARE], check=True)
        with box.snapshot() as snapshot:
            box.run(["rm", "-r", "/data"], check=True)
            with snapshot.sandbox() as first, snapshot.sandbox() as second:
                for each in (first, second):
                    done = each.run(["sh", "-c", LOOK], capture_output=True, text=True)
                    assert done.stdout == SEEN and "No such file" in done.stderr
                first.run(["sh", "-c", "echo two > /data/file"], check=True)
                assert second.read_file("/data/file") == b"one\n"
                assert ("C", "/data/file") in first.diff()
                assert second.diff() == []
                first.commit("both:1")
            assert layers(state) != before
    assert layers(state) == before and list((state / "root" / "snapshots").iterdir()) == []
    assert minibox.run("both:1", ["cat", "/data/file", "/home/here"], capture_output=True).stdout == b"two\nnew\n"


WRITE = """
import os, shutil, struct
os.makedirs("/d/sub")
with open("/d/sparse", "wb") as file:
    file.seek(1 << 20)
    file.write(b"end")
    file.truncate(2 << 20)
os.chown("/d/sparse", 7, 8)
os.link("/d/sparse", "/d/link")
os.symlink("nowhere", "/d/symlink")
os.lchown("/d/symlink", 3, 4)
os.mkfifo("/d/fifo")
def acl(*entries):  # tag, permissions and id of each
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
anybody = 0xffffffff
user, group = (2, 4, 1000), (8, 2, 55)
rest = (16, 6, anybody), (32, 0, anybody)
os.setxattr("/d/sparse", "system.posix_acl_access", acl((1, 6, anybody), user, (4, 4, anybody), group, *rest))
os.setxattr("/d/sub", "system.posix_acl_default", acl((1, 7, anybody), user, (4, 4, anybody), *rest))
open("/d/capable", "w").close()
os.setxattr("/d/capable", "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
os.unlink("/etc/group")
shutil.rmtree("/home")
os.mkdir("/home")
"""
TELL = """
import os
for name in ["/home", *sorted(f"/d/{name}" for name in os.listdir("/d"))]:
    status = os.lstat(name)
    print(name, oct(status.st_mode), status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns)
    print({key: os.getxattr(name, key, follow_symlinks=False) for key in os.listxattr(name, follow_symlinks=False)})
print(os.stat("/d/sparse").st_blocks < 100, os.path.exists("/etc/group"), os.listdir("/home"))
"""


@pytest.mark.parametrize("options", [{}, {"disk": "1m"}, {"disk": "1m", "userns": "host"}], ids=str)
def test_all_that_files_have_is_frozen(api: None, options: ContainerOptions) -> None:
    """Owners, also those in attributes, holes, links, whiteouts and opaque directories, of the disk and of memory."""

    def python(box: minibox.Sandbox, program: str) -> str:
        command = [interpreter.command(), "-I", "-S", "-c", program]
        return box.run(command, capture_output=True, text=True, check=True).stdout

    mounts = interpreter.mounts()
    userns = options.get("userns", "")
    given: ContainerOptions = {**options, "mounts": mounts}
    with minibox.Sandbox("base", **given) as box:
        python(box, WRITE)
        told = python(box, TELL)
        assert told.endswith("True False []\n") and "security.capability" in told, told
        with box.snapshot() as snapshot, snapshot.sandbox(mounts=mounts, userns=userns) as fork:
            assert python(fork, TELL) == told
            assert fork.diff() == []
        box.commit("frozen:1")
    with minibox.Sandbox("frozen:1", mounts=mounts, userns=userns) as box:
        acls = [line for line in told.splitlines() if "posix_acl" in line]
        assert acls and not {*acls} - {*python(box, TELL).splitlines()}


def test_of_one_that_has_ended_the_disk_can_be_frozen(api: None) -> None:
    with minibox.Sandbox("base", ["sh", "-c", "echo x > /file"], disk="1m") as box:
        assert box.wait() == 0
        with box.snapshot() as snapshot, snapshot.sandbox() as fork:
            assert fork.read_file("/file") == b"x\n"


def test_it_can_be_frozen_again(api: None) -> None:
    with minibox.Sandbox("base", env={"A": "1"}, cwd="/tmp") as box:
        box.write_file("/1", "1")
        with box.snapshot() as first, first.sandbox(env={"B": "2"}) as next_box:
            next_box.write_file("/2", "2")
            with next_box.snapshot() as second:
                done = minibox_run(second, ["sh", "-c", "cat /1 /2; echo $A$B; pwd"])
    assert done == "1212\n/tmp\n"


def test_one_may_stand_on_another(api: None, state: Path) -> None:
    """Which stays on disk for its sake, whoever has let go of it, and goes with it."""
    with minibox.Sandbox("base") as box:
        box.write_file("/1", "1")
        first = box.snapshot()
    with first.sandbox() as next_box:
        next_box.write_file("/2", "2")
        second = next_box.snapshot()
    first.close()
    minibox.run("base", ["true"])
    assert minibox_run(second, ["cat", "/1", "/2"]) == "12"
    second.close()
    assert list((state / "root" / "snapshots").iterdir()) == []


def test_system_df_shows_what_it_takes(api: None, request: pytest.FixtureRequest) -> None:
    command = request.getfixturevalue("minibox")

    def share(kind: str) -> dict[str, int]:
        shares = json.loads(command("system", "df", "--json").stdout)["shares"]
        return next(each for each in shares if each["type"] == kind)

    minibox.run("base", ["true"])
    images = share("Images")
    with minibox.Sandbox("base") as box:
        box.write_file("/large", bytes(1 << 20))
        snapshot = box.snapshot()
    with snapshot:
        found = share("Snapshots")
        assert (found["total"], found["active"], found["reclaimable_bytes"]) == (1, 1, 0)
        assert 1 << 20 <= found["size_bytes"] < 2 << 20
        assert share("Images")["size_bytes"] == images["size_bytes"]
        assert command("system", "df", "--format", "{{.Type}} {{.TotalCount}}").stdout.splitlines()[-1] == "Snapshots 1"
        assert f"{snapshot.id[:12]}   base:latest   yes       1.0" in command("system", "df", "-v").stdout
    assert share("Snapshots")["total"] == 0


def minibox_run(snapshot: minibox.Snapshot, command: list[str]) -> str:
    with snapshot.sandbox() as box:
        return box.run(command, capture_output=True, text=True, check=True).stdout


def test_a_sandbox_outlives_its_snapshot(api: None, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "EVERY_S", 0)
    with minibox.Sandbox("base") as box:
        box.write_file("/1", "1")
        snapshot = box.snapshot()
    fork = snapshot.sandbox()
    snapshot.close()
    assert fork.read_file("/1") == b"1"
    fork.close()
    minibox.run("base", ["true"])  # the next command collects what nobody needs any more
    assert list((state / "root" / "snapshots").iterdir()) == []


def test_a_kept_sandbox_still_has_it(api: None, request: pytest.FixtureRequest) -> None:
    command = request.getfixturevalue("minibox")
    with minibox.Sandbox("base") as box:
        box.write_file("/1", "of the snapshot")
        with box.snapshot() as snapshot, snapshot.sandbox(["true"], name="kept") as fork:
            fork.wait()
            fork.keep()
    assert command("cp", "kept:/1", "-").stdout.count("of the snapshot") == 1
    assert "LEFTOVER" not in command("system", "check").stdout
    assert command("rm", "kept").returncode == 0
    assert command("system", "check").returncode == 0


def test_nobody_removes_what_it_stands_on(api: None, state: Path, request: pytest.FixtureRequest) -> None:
    command = request.getfixturevalue("minibox")
    with minibox.Sandbox("base") as box:
        box.write_file("/1", "1")
        snapshot = box.snapshot()
    with snapshot:
        checked = command("system", "check")
        assert checked.returncode == 0 and "leftover" not in checked.stdout, checked.stdout
        command("rmi", "-f", "base")
        command("system", "prune", "-a", "-f")
        with snapshot.sandbox() as fork:
            assert fork.read_file("/1") == b"1"


def test_one_whose_program_was_killed_is_collected(
    environment: dict[str, str], state: Path, request: pytest.FixtureRequest
) -> None:
    command = request.getfixturevalue("minibox")
    program = "import minibox, os; box = minibox.Sandbox('base'); s = box.snapshot(); print(s.id, flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    snapshot_id = done.stdout.strip()
    assert (state / "root" / "snapshots" / snapshot_id).exists()
    assert command("ps", "-aq").stdout == ""
    assert list((state / "root" / "snapshots").iterdir()) == []
    assert not (state / "root" / "layers" / snapshot_id).exists()


WORKER = """
import minibox, sys, time
def prepare():
    print("prepares", flush=True)
    box = minibox.Sandbox("base")
    box.write_file("/1", "once")
    time.sleep(0.3)
    return box
with minibox.Snapshot.open_or_create("key", prepare) as snapshot, snapshot.sandbox() as box:
    print(box.read_file("/1").decode(), flush=True)
    sys.stdin.read()
"""


def test_of_several_processes_one_prepares_it(environment: dict[str, str], state: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(4)
    ]
    lines = []
    for worker in workers:
        assert worker.stdout
        line = worker.stdout.readline()
        lines += [line, worker.stdout.readline()] if line == "prepares\n" else [line]
    assert sorted(lines) == ["once\n"] * 4 + ["prepares\n"]
    for worker in workers:
        worker.communicate()
    assert [path for path in (state / "root" / "snapshots").iterdir() if not path.name.endswith(".lock")] == []


def test_a_forked_child_does_not_hold_it(api: None) -> None:
    with minibox.Sandbox("base") as box:
        snapshot = box.snapshot()
        child = os.fork()
        if child == 0:
            snapshot.close()
            os._exit(0)
        os.waitpid(child, 0)
        with snapshot, snapshot.sandbox() as fork:
            assert fork.run(["true"]).returncode == 0


def test_it_can_be_sent_to_another_process(api: None, state: Path) -> None:
    with minibox.Sandbox("base") as box:
        box.write_file("/data", "frozen")
        snapshot = box.snapshot()
    sent = pickle.dumps(snapshot)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        received = pickle.loads(sent)
        snapshot.close()
        with received.sandbox() as fork:
            assert fork.read_file("/data") == b"frozen"
        del received, fork
        gc.collect()  # a copy that was sent is nobody's to close
    assert [path for path in (state / "root" / "snapshots").iterdir() if not path.name.endswith(".lock")] == []
    with pytest.raises(minibox.StoreError, match=r"another process has sent: it is gone\nhint: keep it open there"):
        pickle.loads(sent)
    with pytest.raises(minibox.StoreError, match=r"send <minibox.Snapshot .*: it was closed"):
        pickle.dumps(snapshot)
