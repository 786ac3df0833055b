"""A store on a file system that older kernels can't id-map: tmpfs, before Linux 6.3."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.probes import requires

pytestmark = [requires("root"), pytest.mark.kernel]


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A directory on a tmpfs of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_store_that_can_not_be_mapped_costs_the_user_namespace_and_a_note(
    minibox: Run, seed: Path, tmpfs: Path
) -> None:
    shutil.copytree(seed, tmpfs / "root", symlinks=True)
    for answer in (tmpfs / "root/cache").glob("id-map-*"):  # the seed's own, of another file system
        answer.unlink()
    run = ("--root", tmpfs / "root", "run", "--rm", "--network", "none", "base", "cat", "/proc/self/uid_map")
    first, second = minibox(*run), minibox(*run)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    has_own_ids = first.stdout.split() != ["0", "0", "4294967295"]
    assert ("no user namespace" in first.stderr) is not has_own_ids
    assert second.stderr == ""


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
