"""`minibox.Snapshot`: frozen once, forked for each use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import minibox
from minibox.engine import removal

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


def test_it_can_be_frozen_again(api: None) -> None:
    with minibox.Sandbox("base", env={"A": "1"}, cwd="/tmp") as box:
        box.write_file("/1", "1")
        with box.snapshot() as first, first.sandbox(env={"B": "2"}) as next_box:
            next_box.write_file("/2", "2")
            with next_box.snapshot() as second:
                done = minibox_run(second, ["sh", "-c", "cat /1 /2; echo $A$B; pwd"])
    assert done == "1212\n/tmp\n"


def minibox_run(snapshot: minibox.Snapshot, command: list[str]) -> str:
    with snapshot.sandbox() as box:
        return box.run(command, capture_output=True, text=True, check=True).stdout


def test_a_sandbox_outlives_its_snapshot(api: None, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "EVERY_S", 0)
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
