"""Layers that can be id-mapped, that can't, and where nobody knows: isolation is not given up in silence."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from errno import EINVAL, ENOSYS
from pathlib import Path
from typing import Any

import pytest

import minibox as minibox_api
from minibox import IsolationWarning
from minibox.engine.host import probes
from tests.conftest import Run
from tests.probes import requires

pytestmark = requires("root")


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A directory on a tmpfs of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


NO_NETWORK = ("run", "--rm", "--network", "none")
MAP = (*NO_NETWORK, "base", "cat", "/proc/self/uid_map")
HOSTS = ["0", "0", "4294967295"]


@pytest.fixture
def ramfs(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that no kernel can id-map, and that can hold an upperdir."""
    subprocess.run(["mount", "-t", "ramfs", "ramfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def without_answers(seed: Path, root: Path) -> Path:
    """A copy of a state root that nobody has asked anything."""
    shutil.copytree(seed, root, symlinks=True)
    shutil.rmtree(root / "cache")
    return root


@pytest.mark.kernel
def test_each_start_with_less_says_so(minibox: Run, seed: Path, ramfs: Path) -> None:
    root = ("--root", without_answers(seed, ramfs / "root"))
    for _ in range(2):
        done = minibox(*root, *MAP)
        assert done.stdout.split() == HOSTS, done.stderr
        assert "no user namespace, root inside is root outside: id-map the mount of a layer" in done.stderr
    for asked in ("--userns=host", "--privileged"):
        done = minibox(*root, *NO_NETWORK, asked, "base", "true")
        assert (done.returncode, done.stderr) == (0, "")
    done = minibox(*root, *NO_NETWORK, "--userns=private", "base", "true")
    assert done.returncode == 125 and "--userns private: id-map" in done.stderr
    assert "no user namespace" not in done.stderr


@pytest.mark.kernel
def test_so_does_the_api(seed: Path, ramfs: Path) -> None:
    places: dict[str, Any] = {
        "root": str(without_answers(seed, ramfs / "root")),
        "runroot": str(ramfs / "run"),
        "network": "none",
    }
    command = ["cat", "/proc/self/uid_map"]
    for _ in range(2):
        with pytest.warns(IsolationWarning, match="root inside is root outside"):
            done = minibox_api.run("base", command, capture_output=True, text=True, **places)
        assert done.stdout.split() == HOSTS
    assert minibox_api.run("base", ["true"], userns="host", **places).returncode == 0


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["plain", "a:b", "a,b", "a\\b", "a b\u2028c", "\udcff"])
def test_a_root_of_any_name(name: str, minibox: Run, seed: Path, state: Path) -> None:
    """Paths in the options of an overlay have to be escaped, or not to be there."""
    done = minibox("--root", without_answers(seed, state / name), *MAP)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() != HOSTS


def test_who_ignores_the_end_of_children_gets_the_same(minibox: Run, seed: Path, state: Path) -> None:
    root = without_answers(seed, state / "fresh")

    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    for first in (ignore, None):
        done = minibox("--root", root, *MAP, preexec_fn=first)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() != HOSTS


@requires("command:setpriv")
def test_root_without_a_capability_spoils_nothing_for_those_who_come_after(
    seed: Path, state: Path, minibox: Run, minibox_command: list[str], environment: dict[str, str]
) -> None:
    root = without_answers(seed, state / "fresh")
    for name in ("sys_admin", "setuid"):
        without = ["setpriv", f"--bounding-set=-{name}", f"--inh-caps=-{name}", *minibox_command]
        done = subprocess.run(
            [*without, "--root", root, *MAP], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (125, "")
        assert f"as root without CAP_{name.upper()}: Operation not permitted" in done.stderr
    done = minibox("--root", root, *MAP)
    assert done.returncode == 0 and done.stdout.split() != HOSTS, done.stderr


OPEN_TREE, MOUNT_SETATTR = 428, 442  # of every architecture


def answer_with(number: int, call: int) -> None:
    """A seccomp filter that answers one system call with an errno, for this process and its children."""
    load, jump_if_equal, give = 0x20, 0x15, 0x06
    allow, fail = 0x7FFF0000, 0x00050000
    steps = [(load, 0, 0, 0), (jump_if_equal, 0, 1, call), (give, 0, 0, fail | number), (give, 0, 0, allow)]
    program = b"".join(struct.pack("HBBI", *step) for step in steps)
    held = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(held)))
    assert ctypes.CDLL(None).prctl(22, 2, header) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


@pytest.mark.parametrize(("number", "call"), [(ENOSYS, MOUNT_SETATTR), (EINVAL, MOUNT_SETATTR), (ENOSYS, OPEN_TREE)])
def test_what_a_callers_filter_answers_is_nobody_elses(
    number: int, call: int, minibox: Run, seed: Path, state: Path
) -> None:
    root = without_answers(seed, state / "fresh")
    for _ in range(2):
        done = minibox("--root", root, *MAP, preexec_fn=lambda: answer_with(number, call))
        assert "no user namespace, root inside is root outside: " in done.stderr
    done = minibox("--root", root, *MAP)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.split() != HOSTS


@pytest.fixture
def no_mount_point(tmp_path: Path) -> Iterator[Path]:
    """A root directory as chroot(1) gets one: all that the host has, but not a mount itself."""
    place = tmp_path / "place"
    place.mkdir()
    mounted = []
    for each in Path("/").iterdir():
        if each.is_symlink():
            (place / each.name).symlink_to(each.readlink())
        elif each.is_dir():
            (place / each.name).mkdir()
            subprocess.run(["mount", "--rbind", "--make-rslave", str(each), str(place / each.name)], check=True)
            mounted.append(place / each.name)
    yield place
    for mount in mounted:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_what_a_root_directory_brings_about_is_nobody_elses(
    no_mount_point: Path, minibox: Run, seed: Path, state: Path
) -> None:
    root = without_answers(seed, state / "fresh")
    for _ in range(2):
        done = minibox("--root", root, *MAP, preexec_fn=lambda: os.chroot(no_mount_point), cwd="/")
        assert "make its mounts private: Invalid argument" in done.stderr
    done = minibox("--root", root, *MAP)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.split() != HOSTS


def test_a_probe_that_fails_is_an_error_that_says_so(seed: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: dict[str, Any] = {
        "root": str(without_answers(seed, state / "fresh")),
        "runroot": str(state / "run"),
        "network": "none",
    }
    with monkeypatch.context() as patch:
        patch.setattr(probes, "SOURCE", "import os; os.abort()")
        with pytest.raises(minibox_api.MiniboxError, match="find out whether this host has idmapped layers: "):
            minibox_api.run("base", ["true"], **places)
        assert minibox_api.run("base", ["true"], userns="host", **places).returncode == 0
    done = minibox_api.run("base", ["cat", "/proc/self/uid_map"], capture_output=True, text=True, **places)
    assert done.stdout.split() != HOSTS


def test_nothing_is_loaded_from_where_the_caller_happens_to_be(
    minibox: Run, seed: Path, state: Path, tmp_path: Path
) -> None:
    """A directory of somebody else's, with a minibox of his."""
    (tmp_path / "minibox").mkdir()
    (tmp_path / "minibox/__init__.py").write_text(f"open({str(tmp_path / 'taken')!r}, 'w')")
    root = without_answers(seed, state / "fresh")
    assert minibox("--root", root, *MAP, cwd=tmp_path).returncode == 0
    assert minibox("--root", root, "doctor", cwd=tmp_path, timeout_s=120).stdout
    assert not (tmp_path / "taken").exists()


@pytest.mark.kernel
def test_a_volume_that_can_not_be_mapped_is_named(minibox: Run, tmpfs: Path) -> None:
    (tmpfs / "source").mkdir()
    run = ("run", "--rm", "--network", "none", "-v")
    done = minibox(*run, f"{tmpfs}/source:/v", "base", "stat", "-c", "%u", "/v")
    if done.returncode == 0:  # Linux 6.3
        assert done.stdout == "0\n"
        return
    assert done.returncode == 125
    assert f"{tmpfs}/source: Invalid argument" in done.stderr
    assert ":noidmap" in done.stderr
    without = minibox(*run, f"{tmpfs}/source:/v:noidmap", "base", "stat", "-c", "%u", "/v")
    assert (without.returncode, without.stdout) == (0, "65534\n"), without.stderr
