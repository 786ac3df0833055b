"""Removing what a container left: by one call into C, and by Python where something resists."""

from __future__ import annotations

import os
from contextlib import nullcontext

import pytest

from minibox.linux import removal
from minibox.linux.cgroup.cgroupfs import remove_below, subtree
from minibox.linux.files import DEPTH_MAX, remove_quickly
from minibox.linux.removal import remove_tree


@pytest.fixture
def tree(tmp_path):
    """A directory with files, directories and links, one of them to ``outside``."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    top = tmp_path / "tree"
    for number in range(300):  # more than one getdents(2) tells of
        (top / f"{number:0100d}").mkdir(parents=True)
        (top / f"{number:0100d}/file").touch()
    (top / "link").symlink_to(tmp_path / "outside")
    (top / "0").symlink_to("nowhere")
    os.mkfifo(top / "fifo")
    return top


def nested(path, depth):
    for _ in range(depth):
        path = path / "d"
    path.mkdir(parents=True)
    (path / "file").touch()


@pytest.mark.parametrize(
    "remove",
    [lambda path: remove_quickly(-100, os.fsencode(path)), lambda path: remove_tree(str(path))],
    ids=["C", "all"],
)
def test_a_tree_goes_and_what_its_links_name_stays(tree, remove):
    remove(tree)
    assert [path.name for path in tree.parent.iterdir()] == ["outside"]
    assert (tree.parent / "outside/file").exists()
    remove(tree)  # nothing there is no error


def test_a_link_to_a_directory_is_a_link(tree):
    link = tree.parent / "link"
    link.symlink_to(tree)
    remove_tree(str(link))
    assert not link.is_symlink() and (tree / "fifo").exists()


def test_what_is_too_deep_for_one_goes_by_the_other(tmp_path):
    nested(tmp_path / "deep", 2 * DEPTH_MAX)
    assert not remove_quickly(-100, os.fsencode(tmp_path / "deep"))
    remove_tree(str(tmp_path / "deep"))
    assert not list(tmp_path.iterdir())


def test_a_closed_directory_is_opened(tmp_path):
    nested(tmp_path / "closed", 2)
    (tmp_path / "closed/d").chmod(0)
    remove_tree(str(tmp_path / "closed"))
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_moved_meanwhile_takes_no_other_along(tmp_path, monkeypatch):
    """Its ".." is another's directory by then."""
    nested(tmp_path / "tree", DEPTH_MAX + 8)
    (tmp_path / "others/d").mkdir(parents=True)
    (tmp_path / "others/file").touch()
    moved = (tmp_path / "tree" / "d/d", tmp_path / "others/moved")
    open_directory = removal._open_directory

    def open_and_move(name, dir_fd):
        fd = open_directory(name, dir_fd)
        if moved[0].exists() and os.path.samestat(os.fstat(fd), moved[0].stat()):
            moved[0].rename(moved[1])
        return fd

    monkeypatch.setattr(removal, "_open_directory", open_and_move)
    with pytest.raises(OSError, match="moved"):
        remove_tree(str(tmp_path / "tree"))
    assert (tmp_path / "others/file").exists() and (tmp_path / "others/d").exists()


def test_cgroups_that_are_nested_deeper_than_python_recurses(tmp_path):
    """A container with cgroups of its own can make them; they go from the innermost on."""
    path = tmp_path / "tree"
    for depth in range(1201):
        os.mkdir("/".join([str(path), *["d"] * depth]))
    assert [len(names) for _, names in subtree(str(path))] == list(range(1201))
    remove_below(str(path))
    assert os.listdir(path) == []


def test_a_file_that_is_written_meanwhile_goes_too(tree, monkeypatch):
    """As by a `stop`, which leaves its mark in a container's directory while the owner removes it."""
    rmdir, late = removal._rmdir, ["late"]

    def written_to(name, dir_fd):
        while late and name == os.fsencode(tree.name):
            (tree / late.pop()).touch()
        rmdir(name, dir_fd)

    monkeypatch.setattr(removal, "remove_quickly", lambda *_: False)
    monkeypatch.setattr(removal, "_rmdir", written_to)
    remove_tree(str(tree))
    assert not tree.exists() and not late


def test_what_vanishes_meanwhile_is_no_error(tmp_path, monkeypatch):
    """`stop` writes its mark into the directory of a container that is being removed, by a file that it renames."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").touch()
    (tmp_path / "tree/mark.new").touch()
    scandir = os.scandir

    def scan_and_rename(fd):
        with scandir(fd) as entries:
            found = list(entries)
        if (tmp_path / "tree/mark.new").exists():
            (tmp_path / "tree/mark.new").rename(tmp_path / "tree/mark")
        return nullcontext(found)

    monkeypatch.setattr(removal, "remove_quickly", lambda dir_fd, name: False)
    monkeypatch.setattr(os, "scandir", scan_and_rename)
    remove_tree(str(tmp_path / "tree"))
    assert not list(tmp_path.iterdir())
