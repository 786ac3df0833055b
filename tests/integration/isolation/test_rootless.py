"""`minibox run` as an ordinary user: with a range of subordinate ids, and with a single id."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images, isolation
from tests.conftest import Run
from tests.probes import requires

pytestmark = requires("user")

NO_NETWORK = ("--rm", "--network", "none")


@pytest.fixture
def one_id() -> Iterator[None]:
    """No ranges for anybody: /etc/subuid and /etc/subgid are empty, in the tests' own mount namespace."""
    files = [path for path in ("/etc/subuid", "/etc/subgid") if os.path.exists(path)]
    for path in files:
        subprocess.run(["mount", "--bind", "/dev/null", path], check=True)
    yield
    for path in files:
        subprocess.run(["umount", path], check=True)


def left(user_state: Path) -> list[str]:
    """What containers left in the user's state, but for what is kept for the next."""
    root = user_state / "root"
    found = [*root.glob("containers/*"), *root.glob("live/*"), *root.glob("names/*"), *root.glob("ids/*")]
    found += [path for path in (user_state / "run").rglob("*") if path.name != "events"]
    return [str(path.relative_to(user_state)) for path in found]


def owned(state: Path) -> None:
    """Give the user what root has put into his store."""
    for path in (state / "root").rglob("*"):
        if path.lstat().st_uid == 0:
            os.lchown(path, isolation.USER_ID, isolation.USER_ID)


def test_echo(minibox_user: Run, user_state: Path) -> None:
    done = minibox_user("run", *NO_NETWORK, "base", "echo", "hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")
    assert left(user_state) == []


@pytest.mark.kernel
def test_a_range_of_ids(minibox_user: Run, user_state: Path) -> None:
    script = "cat /proc/self/uid_map; id -u; touch /x; chown 1000:1000 /x; stat -c %u:%g /x"
    done = minibox_user("run", *NO_NETWORK, "base", "sh", "-c", script)
    lines = [line.split() for line in done.stdout.splitlines()]
    start, count = isolation.SUBORDINATE_IDS
    assert lines[:2] == [["0", str(isolation.USER_ID), "1"], ["1", str(start), str(count)]], done.stderr
    assert lines[2:] == [["0"], ["1000:1000"]]
    assert left(user_state) == []


@pytest.mark.kernel
def test_a_single_id(minibox_user: Run, user_state: Path, one_id: None) -> None:
    script = "cat /proc/self/uid_map; echo x > /x; cat /x; chown 1000 /x 2>/dev/null || echo refused"
    done = minibox_user("run", *NO_NETWORK, "base", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines == [["0", str(isolation.USER_ID), "1"], ["x"], ["refused"]]
    (note,) = done.stderr.splitlines()
    assert note.startswith("minibox: you have no range of subordinate ids") and "usermod --add-subuids" in note
    assert left(user_state) == []


def test_another_user_with_a_single_id(minibox_user: Run, user_state: Path, one_id: None) -> None:
    done = minibox_user("run", *NO_NETWORK, "-u", "1000", "base", "true")
    assert done.returncode == 125
    assert "1000" in done.stderr.splitlines()[-2 if "hint" in done.stderr else -1], done.stderr
    assert left(user_state) == []


@pytest.mark.parametrize("user", ["1000", "1000:2000", "nobody"])
def test_users_inside(minibox_user: Run, user: str) -> None:
    done = minibox_user("run", *NO_NETWORK, "-u", user, "base", "sh", "-c", "id -u; touch /tmp/x && stat -c %u /tmp/x")
    assert done.returncode == 0, done.stderr
    mine, files = done.stdout.split()
    assert mine == files == (user.partition(":")[0] if user[0].isdigit() else "65534")


@pytest.mark.kernel
def test_the_root_is_an_overlay_that_can_be_changed(minibox_user: Run) -> None:
    script = "awk '$2 == \"/\" {print $3}' /proc/mounts; rm -r /etc/group /media; mv /etc/passwd /etc/x; ls /etc | grep -c group"
    done = minibox_user("run", *NO_NETWORK, "base", "sh", "-c", script)
    assert done.stdout == "overlay\n0\n", done.stderr


def test_files_in_a_bind_mount_are_the_users(minibox_user: Run, user_state: Path) -> None:
    shared = user_state / "shared"
    shared.mkdir()
    os.chown(shared, isolation.USER_ID, isolation.USER_ID)
    done = minibox_user("run", *NO_NETWORK, "-v", f"{shared}:/shared", "base", "touch", "/shared/made")
    assert done.returncode == 0, done.stderr
    assert (shared / "made").stat().st_uid == isolation.USER_ID


@pytest.mark.kernel
def test_owners_in_layers(minibox_user: Run, user_state: Path) -> None:
    """Layers that are not unpacked yet are unpacked where their owners are."""
    name = images.derive(
        user_state / "root",
        "owners",
        images.directory("srv/own", 1000, 1000, 0o700),
        images.file("srv/own/file", b"mine", 1000, 1000, 0o600),
        images.file("srv/.wh.nothing", b""),
    )
    owned(user_state)
    script = "stat -c %u:%g:%a /srv/own /srv/own/file; cat /srv/own/file"
    done = minibox_user("run", *NO_NETWORK, name, "sh", "-c", script)
    assert done.stdout == "1000:1000:700\n1000:1000:600\nmine", done.stderr


def test_explain_unpacks_likewise(minibox_user: Run, user_state: Path) -> None:
    name = images.derive(user_state / "root", "owners", images.file("srv/file", b"mine", 1000, 1000, 0o600))
    owned(user_state)
    assert minibox_user("explain", "run", *NO_NETWORK, name, "true").returncode == 0
    done = minibox_user("run", *NO_NETWORK, name, "stat", "-c", "%u", "/srv/file")
    assert done.stdout == "1000\n", done.stderr


FILES = "mkdir -p /x/y && echo > /x/y/z && chown -R 1000:1000 /x && chmod 500 /x/y && chmod 700 /x"


@pytest.mark.kernel
def test_files_of_subordinate_ids_are_removed(minibox_user: Run, user_state: Path) -> None:
    done = minibox_user("run", *NO_NETWORK, "base", "sh", "-c", FILES)
    assert (done.returncode, done.stderr) == (0, "")
    assert left(user_state) == []


def test_a_kept_container_is_removed(minibox_user: Run, user_state: Path) -> None:
    done = minibox_user("run", "--network", "none", "--name", "kept", "base", "sh", "-c", FILES)
    assert done.returncode == 0, done.stderr
    assert left(user_state)
    done = minibox_user("rm", "kept")
    assert (done.returncode, done.stderr) == (0, "")
    assert left(user_state) == []


@pytest.mark.parametrize("option", [("-m", "64m"), ("--pids-limit", "20"), ("--cpus", "0.5")])
def test_limits_that_can_not_be_applied_are_refused(
    minibox_user: Run, user_state: Path, option: tuple[str, str]
) -> None:
    done = minibox_user("run", *NO_NETWORK, *option, "base", "true")
    assert done.returncode == 125
    first, hint, *_ = done.stderr.splitlines()
    assert first.startswith("minibox: ") and hint.startswith("hint: ")
    assert left(user_state) == []


@pytest.mark.parametrize("options", [("--userns", "host"), ("--privileged", "--userns", "host")])
def test_what_needs_root_says_so(minibox_user: Run, options: tuple[str, ...]) -> None:
    done = minibox_user("run", *NO_NETWORK, *options, "base", "true")
    assert (done.returncode, done.stderr.splitlines()[0]) == (125, "minibox: --userns host needs root")


def test_no_privilege_comes_of_it(minibox_user: Run) -> None:
    script = "mount -t tmpfs none /mnt 2>/dev/null && echo mounted; cat /proc/self/setgroups; grep -E '^(Cap(Eff|Bnd)|Seccomp):' /proc/self/status"
    done = minibox_user("run", *NO_NETWORK, "base", "sh", "-c", script)
    lines = done.stdout.split()
    assert lines[:1] == ["allow"], done.stderr
    assert lines[lines.index("CapEff:") + 1] == lines[lines.index("CapBnd:") + 1] == "00000000a80425fb"
    assert lines[lines.index("Seccomp:") + 1] == "2"


def test_a_terminal(minibox_user: Run) -> None:
    done = minibox_user("run", *NO_NETWORK, "-t", "base", "tty")
    assert "/dev/pts/0" in done.stdout or "/dev/console" in done.stdout, done.stderr
