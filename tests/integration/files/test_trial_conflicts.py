"""tried --apply: what changed on the host meanwhile, what was mounted meanwhile, and a full disk."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests import isolation
from tests.conftest import Run
from tests.file_trees import tree_of
from tests.leaks import SLOWNESS
from tests.probes import requires, requires_user
from tests.trial_host import Host

CHANGES = {
    "a changed file": ("echo more >> d/f", "echo host >> d/f", "d/f"),
    "a file that was made": ("echo mine > made", "echo host > made", "made"),
    "a removed file": ("echo more >> d/f", "rm d/f", "d/f"),
    "a file put in its place": ("echo more >> d/f", "mv one d/f", "d/f"),
    "something in a removed directory": ("rm -r d", "echo host >> d/e/g", "d/e/g"),
    "a new file in a removed directory": ("rm -r d", "echo host > d/e/new", "d/e"),
    "something in a replaced directory": ("rm -r d; echo x > d", "echo host >> d/e/g", "d/e/g"),
    "a removed directory above": ("echo x > d/e/new", "rm -r d", "d/e/new"),
    "a changed mode": ("chmod 700 d/f", "chmod 755 d/f", "d/f"),
    "a symlink in its place": ("echo more >> d/f", "rm d/f; ln -s /etc/hostname d/f", "d/f"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_on_the_host_meanwhile_is_not_overwritten(root_host: Host, name: str) -> None:
    script, meanwhile, path = CHANGES[name]
    kept, _ = root_host.keep(f"{script}; echo x > other")
    root_host.sh(meanwhile)
    before = tree_of(root_host.path)
    done = root_host.minibox("tried", kept, "--apply")
    assert done.returncode == 125
    assert f"{root_host.path}/{path}" in done.stderr and "--force" in done.stderr
    assert tree_of(root_host.path) == before, "nothing at all is applied"
    root_host.tried(kept, "--apply", "--force")
    assert (root_host.path / "other").exists()


def test_a_change_while_the_command_ran_counts_too(
    root_host: Host, minibox_command: list[str], environment: dict[str, str]
) -> None:
    running = subprocess.Popen(
        [*minibox_command, "try", "--apply", "sh", "-c", "echo mine >> d/f; echo ready; read go"],
        cwd=root_host.path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout and running.stdout.readline() == "ready\n"
    root_host.sh("echo host >> d/f")
    _, told = running.communicate("go\n", timeout=60 * SLOWNESS)
    assert running.returncode == 125 and "changed while the command ran" in told
    assert (root_host.path / "d/f").read_text() == "old\nhost\n"


def test_a_neighbour_that_changed_is_no_conflict(host: Host) -> None:
    name, _ = host.keep("echo more >> d/f; echo x > d/new")
    host.sh("echo host > d/e/elsewhere; echo host > d/else")
    host.tried(name, "--apply")
    assert (host.path / "d/new").exists() and (host.path / "d/else").exists()


@requires_user
def test_a_directory_that_vanished_meanwhile_is_no_change(
    minibox_user: Run, user_state: Path, session_directory: Path
) -> None:
    """An ordinary user's trial has an overlay on each directory beside those that he writes to."""
    host = Host(minibox_user, user_state / "host", isolation.USER_ID)
    beside = host.path / "beside"
    host.sh("mkdir beside beside/mount beside/vanishes")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", beside / "mount"], check=True)
    try:
        name, _ = host.keep(f"echo x > {beside}/vanishes/made")
        (beside / "vanishes").rmdir()
        assert f"A {beside}/vanishes/made" in host.tried(name).stdout
        assert "the directory that it is in was removed" in host.minibox("tried", name, "--apply").stderr
        host.tried(name, "--apply", "--force")
        assert (beside / "vanishes/made").read_text() == "x\n"
    finally:
        subprocess.run(["umount", beside / "mount"], check=True)


@requires("root")
@pytest.mark.parametrize(
    "script", ["rm -r d", "rm -r d; echo x > d", "rm -r d; mkdir -p d/e", "echo x > d/e/theirs", "chmod 700 d/e"]
)
def test_what_was_mounted_meanwhile_is_neither_removed_nor_written_to(root_host: Host, script: str) -> None:
    """Files on a disk have old times: they aren't what tells that the disk was mounted."""
    point = root_host.path / "d/e"
    kept, _ = root_host.keep(script)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
    try:
        (point / "theirs").write_text("theirs")
        for words in ((), ("--force",)):
            done = root_host.minibox("tried", kept, "--apply", *words)
            assert done.returncode == 125
        assert f"what is mounted on {point}" in done.stderr and "nothing was applied" in done.stderr
        assert (point / "theirs").read_text() == "theirs" and (root_host.path / "d/f").exists()
    finally:
        subprocess.run(["umount", point], check=True)
    root_host.tried(kept, "--apply", "--force")


@requires("root")
def test_apply_after_a_full_disk_goes_on_where_it_ended(root_host: Host) -> None:
    disk = root_host.path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        (disk / "changed").write_text("old")
        script = "cd disk; echo new > changed; mkdir -m 750 d; head -c 100000 /dev/zero > d/a; ln -s a d/l; head -c 1500000 /dev/zero > d/z"
        name, _ = root_host.keep(script)
        done = root_host.minibox("tried", name, "--apply")
        assert done.returncode == 125
        assert f"apply {disk}/d/z: No space left on device" in done.stderr and "are applied: try again" in done.stderr
        assert (disk / "changed").read_text() == "new\n" and stat.S_IMODE((disk / "d").stat().st_mode) == 0o750
        assert sorted(os.listdir(disk / "d")) == ["a", "l"]
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        root_host.tried(name, "--apply")
        assert (disk / "d/z").stat().st_size == 1500000
    finally:
        subprocess.run(["umount", disk], check=True)
    assert root_host.tried().stdout == ""


@pytest.mark.parametrize("over", ["d", "d/e"])
def test_a_symlink_in_place_of_its_root_leads_nowhere(root_host: Host, over: str) -> None:
    """Root tries something over a user's directory, who then exchanges it, or one above it, for a symlink."""
    root_host.sh("mkdir -p outside/e; cp $(command -v busybox) d/e; cp d/e/busybox d")
    root_host.attempt("--keep", "--over", over, "/busybox", "touch", "/made")
    [row] = json.loads(root_host.minibox("tried", "--json").stdout)
    root_host.sh("mv d d.real; ln -s outside d")
    for words in ((), ("--force",)):
        done = root_host.minibox("tried", row["Name"], "--apply", *words)
        assert done.returncode == 125 and f"open {root_host.path}/{over}: " in done.stderr
    assert os.listdir(root_host.path / "outside") == ["e"] and not os.listdir(root_host.path / "outside/e")
    root_host.sh("rm d; mv d.real d")
    root_host.tried(row["Name"], "--apply")
    assert (root_host.path / over / "made").exists()
