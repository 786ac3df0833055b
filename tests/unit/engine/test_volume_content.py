"""What a new volume begins with, from layers made by hand."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from minibox.engine.files.volume_content import make_volume
from minibox.errors import StoreError
from minibox.linux.removal import remove_tree
from minibox.storage.usage import tree_bytes


@pytest.fixture
def layers(tmp_path):
    """``layers({"etc/a": "text", "etc/gone": None, "etc/link": ("target",)}, ...)``, topmost first."""

    def make(*trees):
        result = []
        for number, tree in enumerate(trees):
            root = tmp_path / f"layer{number}"
            root.mkdir()
            for name, content in tree.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if content is None:
                    os.mknod(path, stat.S_IFCHR, 0)  # a whiteout; anybody may make one since Linux 5.8
                elif isinstance(content, tuple):
                    path.symlink_to(content[0])
                else:
                    path.write_text(content)
            result.append(str(root))
        return tuple(result)

    return make


@pytest.fixture
def content(tmp_path):
    """``content(layers, "/etc")``: names and texts of the volume made from it."""

    def make(lowerdirs, destination):
        target = tmp_path / "volumes" / "name" / "_data"
        make_volume(str(target), lowerdirs, destination)
        assert [path.name for path in target.parent.iterdir()] == ["_data"]
        return {
            str(path.relative_to(target)): os.readlink(path) if path.is_symlink() else path.read_text()
            for path in target.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }

    return make


def test_layers_are_merged_and_the_topmost_wins(layers, content):
    stack = layers({"etc/b": "new"}, {"etc/a": "1", "etc/b": "old", "other": "x"})
    assert content(stack, "/etc") == {"a": "1", "b": "new"}


def test_a_whiteout_hides_a_file_and_a_directory(layers, content):
    stack = layers({"etc/a": None, "etc/d": None}, {"etc/a": "1", "etc/d/e": "2", "etc/c": "3"})
    assert content(stack, "/etc") == {"c": "3"}


def test_a_removed_directory_is_empty(layers, content):
    assert content(layers({"etc": None}, {"etc/a": "1"}), "/etc") == {}


def test_a_kind_that_changes(layers, content):
    stack = layers({"d/x": "file", "d/y/z": "below"}, {"d/x/was": "directory", "d/y": "file"})
    assert content(stack, "/d") == {"x": "file", "y/z": "below"}


def test_symlinks_are_kept_inside_and_followed_on_the_way(layers, content):
    stack = layers({"var": ("/real/var",)}, {"real/var/lib/a": "1", "real/var/lib/out": ("/etc/passwd",)})
    assert content(stack, "/var/lib") == {"a": "1", "out": "/etc/passwd"}


def test_a_symlink_never_leads_to_the_host(layers, content):
    assert content(layers({"data": ("/../../etc",)}), "/data") == {}


def test_a_loop_of_symlinks_is_empty(layers, content):
    assert content(layers({"a": ("b",), "b": ("a",)}), "/a/x") == {}


def test_what_the_image_lacks_is_empty_and_mode_0755(layers, content, tmp_path):
    assert content(layers({"etc/a": "1"}), "/data") == {}
    assert stat.S_IMODE((tmp_path / "volumes/name/_data").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "volumes").stat().st_mode) == 0o700


def test_modes_and_times_are_kept(layers, content, tmp_path):
    stack = layers({"d/tool": "x"})
    path = f"{stack[0]}/d/tool"
    os.chmod(path, 0o4755)
    os.chmod(f"{stack[0]}/d", 0o1777)
    os.utime(path, (1, 2))
    content(stack, "/d")
    copied = (tmp_path / "volumes/name/_data/tool").stat()
    assert (stat.S_IMODE(copied.st_mode), copied.st_mtime) == (0o4755, 2)
    assert stat.S_IMODE((tmp_path / "volumes/name/_data").stat().st_mode) == 0o1777


def test_a_volume_that_is_there_is_left_alone(layers, content, tmp_path):
    (tmp_path / "volumes/name/_data").mkdir(parents=True)
    (tmp_path / "volumes/name/_data/mine").write_text("kept")
    assert content(layers({"etc/a": "1"}), "/etc") == {"mine": "kept"}


def test_a_failure_leaves_nothing(layers, tmp_path):
    (tmp_path / "volumes/name").mkdir(parents=True)
    (tmp_path / "volumes/name/_data").write_text("in the way")
    with pytest.raises(StoreError, match="fill the new volume"):
        make_volume(str(tmp_path / "volumes/name/_data"), layers({"etc/a": "1"}), "/etc")
    assert [path.name for path in (tmp_path / "volumes/name").iterdir()] == ["_data"]


def test_names_of_one_file_stay_names_of_one(layers, content, tmp_path):
    stack = layers({"d/a": "1"}, {"d/lower": "2"})
    for first, second in (("d/a", "d/b"), ("d/a", "d/in/c"), ("d/b", "outside")):
        Path(stack[0], second).parent.mkdir(exist_ok=True)
        os.link(f"{stack[0]}/{first}", f"{stack[0]}/{second}")
    os.link(f"{stack[1]}/d/lower", f"{stack[1]}/d/twice")
    os.symlink("a", f"{stack[0]}/d/link")
    os.link(f"{stack[0]}/d/link", f"{stack[0]}/d/same", follow_symlinks=False)
    assert content(stack, "/d") == {
        "a": "1", "b": "1", "in/c": "1", "lower": "2", "twice": "2", "link": "a", "same": "a"
    }  # fmt: skip
    made = {name: (tmp_path / "volumes/name/_data" / name).lstat() for name in ("a", "b", "in/c", "lower", "link")}
    assert made["a"].st_ino == made["b"].st_ino == made["in/c"].st_ino
    assert [status.st_nlink for status in made.values()] == [3, 3, 3, 2, 2]


@pytest.mark.parametrize("name", ["d", "long" * 50])
def test_a_deep_directory(tmp_path, name):
    """Deeper than Python recurses, and than the kernel takes a path."""
    (tmp_path / "layer/data").mkdir(parents=True)
    depth = 1200 if name == "d" else 40
    make_deep(tmp_path / "layer/data", name, depth)
    path = tmp_path / "volumes/name/_data"
    try:
        make_volume(str(path), (str(tmp_path / "layer"),), "/data", durable=True)
        assert depth_of(path, name) == depth
        assert tree_bytes(str(path)) == tree_bytes(str(tmp_path / "layer/data")) > 0
    finally:
        remove_tree(str(tmp_path / "layer"))  # too deep for pytest's own
        remove_tree(str(path))


def make_deep(path, name, depth):
    fd = os.open(path, os.O_PATH)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        fd, above = os.open(name, os.O_PATH, dir_fd=fd), fd
        os.close(above)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def depth_of(path, name):
    """How deep the file is."""
    fd, depth = os.open(path, os.O_PATH), 0
    while True:
        try:
            fd, above = os.open(name, os.O_PATH, dir_fd=fd), fd
        except FileNotFoundError:
            os.stat("file", dir_fd=fd)
            os.close(fd)
            return depth
        os.close(above)
        depth += 1


def test_an_interrupt_leaves_nothing_and_what_a_killed_one_left_goes(layers, content, tmp_path, monkeypatch):
    stack = layers({"etc/a": "1"})

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("minibox.storage.clone._Filling._copy", interrupted)
        make_volume(str(tmp_path / "volumes/name/_data"), stack, "/etc")
    assert list((tmp_path / "volumes/name").iterdir()) == []
    (tmp_path / "volumes/name/_data.new/half").mkdir(parents=True)
    assert content(stack, "/etc") == {"a": "1"}
