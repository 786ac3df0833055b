"""A full disk below the state root: nothing is lost that was promised, and all goes on when there is space again."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

import minibox
from tests.container_box import until
from tests.probes import requires

pytestmark = requires("root")
ROOM = 4 << 20
WHEN_FULL = "until [ -e /signals/full ]; do sleep 0.02; done"


class Disk:
    """A small file system with a state root, which can be filled.

    Attributes:
        signal: the options of a container whose script waits for it (`WHEN_FULL`) until the disk is full.
    """

    def __init__(self, place: Path, signals: Path) -> None:
        self.place = place
        self.ballast = place / "ballast"
        self.signals = signals
        self.signal = ("-v", f"{signals}:/signals:ro")
        self._is_full = signals / "full"

    def fill(self) -> None:
        """Until not a page is left."""
        with open(self.ballast, "ab", 0) as file:
            for chunk in (1 << 16, 4096, 1):
                try:
                    while file.write(bytes(chunk)):
                        pass
                except OSError:
                    continue
        self._is_full.touch()

    def empty(self) -> None:
        self.ballast.unlink()


@pytest.fixture
def disk(state: Path):
    """Mounted at the state root, with the image in it."""
    root = state / "root"
    place = state / "disk"
    place.mkdir()
    used = 1024 * int(subprocess.run(["du", "-sk", root], capture_output=True, text=True, check=True).stdout.split()[0])
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={used + ROOM}", "tmpfs", place], check=True)
    subprocess.run(["cp", "-a", root, place], check=True)
    signals = state / "signals"
    signals.mkdir()
    yield Disk(place, signals)
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def box(minibox, disk):
    """`minibox` with its root on the small disk."""
    return lambda *words, **more: minibox("--root", f"{disk.place}/root", *words, **more)


def test_nothing_can_be_started_and_nothing_is_left(box, disk):
    disk.fill()
    before = (
        sorted(os.listdir(f"{disk.place}/root/containers")) if os.path.isdir(f"{disk.place}/root/containers") else []
    )
    for words in (["run", "-d"], ["run", "--rm"], ["create"], ["run"]):
        done = box(*words, "--network", "none", "--name", "web", "base", "true")
        assert done.returncode == 125 and "No space left on device (ENOSPC)" in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    done = box("volume", "create", "data")
    assert done.returncode == 125 and "No space left on device (ENOSPC)" in done.stderr
    assert box("ps", "-aq").stdout == "" and box("volume", "ls", "-q").stdout == ""
    assert os.listdir(f"{disk.place}/root/names") == []
    disk.empty()
    assert sorted(os.listdir(f"{disk.place}/root/containers")) == before
    assert box("run", "--rm", "--network", "none", "--name", "web", "base", "echo", "again").stdout == "again\n"
    checked = box("system", "check", "--quick")
    assert checked.stdout.endswith("nothing damaged, nothing left over\n"), checked.stdout


def test_what_a_container_writes_waits_for_space_under_its_log(box, disk):
    script = (
        'i=0; while [ -e /run/more ] || [ $i -lt 3000 ]; do i=$((i+1)); echo "line $i ................"; done; echo end'
    )
    options = ("--network", "none", "--name", "web", "--tmpfs", "/run", *disk.signal)
    started = box("run", "-d", *options, "base", "sh", "-c", f"{WHEN_FULL}; {script}")
    assert started.returncode == 0, started.stderr
    disk.fill()
    time.sleep(2)
    assert box("ps", "--format", "{{.State}}").stdout == "running\n"
    logs = box("logs", "web")
    assert logs.returncode == 0 and "end" not in logs.stdout
    disk.empty()
    assert box("wait", "web", timeout_s=60).stdout == "0\n"
    lines = box("logs", "web").stdout.splitlines()
    assert lines == [f"line {i} ................" for i in range(1, 3001)] + ["end"]
    assert box("rm", "web").returncode == 0


def waits_for_log(pid: int) -> None:
    """Until a process can't write."""
    until(lambda: "pipe_write" in Path(f"/proc/{pid}/wchan").read_text(), "its pipe is full")


CHATTERS = f"{WHEN_FULL}; while :; do echo 'a line of the log, for which there is no space'; done"


def test_one_that_logs_is_stopped_at_once_and_says_what_is_lost(box, disk):
    for name in ("stops", "killed", "ends"):
        script = f"{WHEN_FULL}; seq 20000; exit 3" if name == "ends" else CHATTERS
        started = box("run", "-d", "--network", "none", "--name", name, *disk.signal, "base", "sh", "-c", script)
        assert started.returncode == 0, started.stderr
    disk.fill()
    for name in ("stops", "killed"):
        waits_for_log(int(box("inspect", "-f", "{{.State.Pid}}", name).stdout))
    assert box("stop", "-t", "1", "stops").returncode == 0
    assert box("kill", "killed").returncode == 0
    assert [box("wait", name).stdout for name in ("stops", "killed")] == ["137\n", "137\n"]
    disk.empty()  # `ends` has waited, and goes on
    assert box("wait", "ends", timeout_s=60).stdout == "3\n"
    assert box("logs", "ends").stdout.splitlines() == [str(number) for number in range(1, 20001)]
    lost = "of its last output are not in its log"
    assert lost in box("why", "stops").stdout and lost not in box("why", "ends").stdout
    for name in ("stops", "killed", "ends"):
        assert box("rm", name).returncode == 0


def test_a_sandbox_that_logs_is_closed_at_once(api, disk):
    with minibox.Sandbox("base", ["sh", "-c", CHATTERS], root=f"{disk.place}/root",
                         mounts=[(f"{disk.signals}", "/signals", "ro")]) as box:  # fmt: skip
        disk.fill()
        waits_for_log(box.pid)
        began = time.monotonic()
    assert time.monotonic() - began < 20


def test_ended_stopped_and_removed_on_a_full_disk(box, disk):
    for name in ("ends", "stops", "goes"):
        script = f"{WHEN_FULL}; exit 3" if name == "ends" else "sleep 1000"
        started = box("run", "-d", "--network", "none", "--name", name, *disk.signal, "base", "sh", "-c", script)
        assert started.returncode == 0, started.stderr
    disk.fill()
    stopped = box("stop", "-t", "0", "stops")
    assert "Traceback" not in stopped.stderr and "internal error" not in stopped.stderr
    removed = box("rm", "-f", "goes")
    assert removed.returncode == 0, removed.stderr
    until(lambda: "ends\texited" in box("ps", "-a", "--format", "{{.Names}}\t{{.State}}").stdout)
    listed = dict(
        line.split("\t") for line in box("ps", "-a", "--format", "{{.Names}}\t{{.State}}").stdout.splitlines()
    )
    assert listed == {"ends": "exited", "stops": "exited"}
    disk.empty()
    listed = dict(
        line.split("\t") for line in box("ps", "-a", "--format", "{{.Names}}\t{{.Status}}").stdout.splitlines()
    )
    assert listed["ends"].startswith("Exited (3)") and listed["stops"].startswith("Exited (137)")
    checked = box("system", "check", "--quick")
    assert checked.stdout.endswith("nothing damaged, nothing left over\n"), checked.stdout
    for name in listed:
        assert box("rm", name).returncode == 0
