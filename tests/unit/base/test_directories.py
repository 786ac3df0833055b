"""What is taken for a directory of ours; and what is not, since somebody else could change what is in it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from minibox.base.directories import claim_directory, is_ours
from minibox.base.home import Home
from minibox.errors import UnsafeDirectory
from tests.probes import requires

SOMEBODY = 4242


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_it_is_made_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        claim_directory(str(tmp_path / "new"))
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == 0o700 and is_ours(str(tmp_path / "new"))


def test_those_above_are_made_too_and_what_is_there_stays(tmp_path: Path) -> None:
    claim_directory(str(tmp_path / "a/b/c"))
    claim_directory(str(tmp_path / "a/b/c"))
    (tmp_path / "open").mkdir(mode=0o755)
    claim_directory(str(tmp_path / "open"))
    assert (mode(tmp_path / "a/b/c"), mode(tmp_path / "open")) == (0o700, 0o755)


def test_what_was_open_to_all_in_it_is_closed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir(mode=0o755)
    (tmp_path / "other").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("other")
    claim_directory(str(tmp_path), ("images", "link", "none"))
    assert (mode(tmp_path / "images"), mode(tmp_path / "other")) == (0o700, 0o755)


def test_nothing_is_made_where_it_is_only_asked_for(tmp_path: Path) -> None:
    assert not is_ours(str(tmp_path / "new")) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bits", [0o722, 0o702, 0o1777])
def test_others_may_not_write_to_it(tmp_path: Path, bits: int) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours").chmod(bits)
    with pytest.raises(UnsafeDirectory, match=f"{tmp_path}/ours: others may write to it") as caught:
        claim_directory(str(tmp_path / "ours"))
    assert caught.value.hint and f"chmod go-w {tmp_path}/ours" in caught.value.hint


@pytest.mark.parametrize("kind", ["file", "fifo", "dangling", "link"])
def test_it_is_a_real_directory(tmp_path: Path, kind: str) -> None:
    """A link counts where nobody else could have made it; what it leads to is looked at as well."""
    path = tmp_path / "ours"
    if kind == "file":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "there")
    if kind in ("file", "fifo"):
        with pytest.raises(UnsafeDirectory, match="ours is not a directory"):
            claim_directory(str(path))
        return
    if kind == "link":
        (tmp_path / "there").mkdir(mode=0o700)
    claim_directory(str(path))
    assert mode(tmp_path / "there") == 0o700
    (tmp_path / "there").chmod(0o777)
    with pytest.raises(UnsafeDirectory, match="others may write"):
        claim_directory(str(path))


def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "ours").symlink_to("ours")
    with pytest.raises(UnsafeDirectory, match="symbolic link"):
        claim_directory(str(tmp_path / "ours"))


def test_in_a_directory_for_all_no_link_counts_and_nobody_may_remove_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o700)
    (tmp_path / "ours").symlink_to(tmp_path / "there")
    tmp_path.chmod(0o1777)
    with pytest.raises(UnsafeDirectory, match="symbolic link"):
        claim_directory(str(tmp_path / "ours"))
    claim_directory(str(tmp_path / "new"))
    assert mode(tmp_path / "new") == 0o700
    tmp_path.chmod(0o777)
    with pytest.raises(UnsafeDirectory, match="anybody could replace new"):
        claim_directory(str(tmp_path / "new"))


@requires("root")
def test_it_and_those_above_are_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(mode=0o700, parents=True)
    os.chown(tmp_path / "a/b", SOMEBODY, SOMEBODY)
    with pytest.raises(UnsafeDirectory, match=f"a/b: it belongs to user {SOMEBODY}"):
        claim_directory(str(tmp_path / "a/b"))
    os.chown(tmp_path / "a/b", 0, 0)
    os.chown(tmp_path / "a", SOMEBODY, SOMEBODY)
    with pytest.raises(UnsafeDirectory, match=f"{tmp_path}/a above it belongs to user {SOMEBODY}"):
        claim_directory(str(tmp_path / "a/b"))
    tmp_path.chmod(0o1777)
    with pytest.raises(UnsafeDirectory, match=f"a in it belongs to user {SOMEBODY}"):
        claim_directory(str(tmp_path / "a/b"))


def test_where_it_can_not_be_made_who_needs_it_says_so() -> None:
    claim_directory("/proc/self/none/of/ours")


@pytest.mark.parametrize("hand", ["quick", "always", "full"])
def test_where_others_may_write_it_is_ours_or_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hand: str
) -> None:
    """Somebody makes and removes it all the time, or it can't be made: he could make it a moment later."""
    tmp_path.chmod(0o1777)
    real, made = os.mkdir, []

    def mkdir(path: str, mode: int) -> None:
        if hand == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        made.append(path)
        if hand == "always" or len(made) == 1:
            raise FileExistsError(path)
        real(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    if hand == "quick":
        claim_directory(str(tmp_path / "ours"))
        assert mode(tmp_path / "ours") == 0o700
        return
    with pytest.raises(UnsafeDirectory, match=f"{tmp_path}/ours: make ours in it: No "):
        claim_directory(str(tmp_path / "ours"))


def test_a_home_that_was_claimed_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[str] = []

    def noting(path: str, *given: Any) -> None:
        walks.append(path)
        claim_directory(path, *given)

    monkeypatch.setattr("minibox.base.home.claim_directory", noting)
    home = Home(str(tmp_path / "root"), str(tmp_path / "run"))
    for _ in range(3):
        home.claimed()
    assert len(walks) == 2  # one for each directory
    (tmp_path / "root").rmdir()
    home.claimed()
    assert mode(tmp_path / "root") == 0o700 and len(walks) == 4
    (tmp_path / "run").chmod(0o777)
    for _ in range(2):
        with pytest.raises(UnsafeDirectory, match="others may write to it"):
            home.claimed()
    (tmp_path / "run").chmod(0o700)
    (tmp_path / "run").rename(tmp_path / "old")
    (tmp_path / "run").symlink_to("old")
    home.claimed()  # the owner may do that


@requires("root")
def test_a_claimed_home_that_is_another_users_now_is_refused(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "root"), str(tmp_path / "run")).claimed()
    os.chown(tmp_path / "root", SOMEBODY, SOMEBODY)
    with pytest.raises(UnsafeDirectory, match=f"it belongs to user {SOMEBODY}"):
        home.claimed()
