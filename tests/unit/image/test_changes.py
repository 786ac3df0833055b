"""Stacks of layers, what changed between them, and layers packed of it: on real files, without privilege."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import tempfile
from contextlib import ExitStack
from errno import ENOENT
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minibox.errors import StoreError, Unsupported
from minibox.image.layer.changes import changes
from minibox.image.layer.pack import LayerWriter, header
from minibox.image.layer.stack import DIRECTORIES_OPEN_MAX, USERS_MARKS, Node, Stack, is_gone
from minibox.image.layer.unpack import unpack
from minibox.linux.removal import remove_tree
from tests.unit.layers import entry, tar, unpack_upon

NAMES = st.sampled_from(["a", "b", "c", "a-b", "ü", "x\udcff", "long" * 40])
FILES = st.tuples(st.just("file"), st.binary(max_size=9), st.sampled_from([0o644, 0o4755]), st.integers(-5, 1 << 33))
LINKS = st.tuples(st.just("link"), st.sampled_from(["a", "/etc", "../x", "long/" * 30]), st.integers(0, 9))
FIFOS = st.tuples(st.just("fifo"), st.integers(0, 9))
TREES = st.recursive(
    FILES | LINKS | FIFOS,
    lambda inner: st.tuples(st.just("directory"), st.dictionaries(NAMES, inner, max_size=4), st.integers(0, 9)),
    max_leaves=12,
)
ROOTS = st.dictionaries(NAMES, TREES, max_size=5)
few = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make(path, content):
    for name, node in content.items():
        here = path / name
        if node[0] == "file":
            here.write_bytes(node[1])
            here.chmod(node[2])
        elif node[0] == "link":
            here.symlink_to(node[1])
        elif node[0] == "fifo":
            os.mkfifo(here)
            here.chmod(0o600)
        else:
            here.mkdir()
            here.chmod(0o755)
            make(here, node[1])
        time = node[-1]
        os.utime(here, (time, time), follow_symlinks=False)


def seen(path):
    """All that a user sees below a directory."""
    found = {}
    for each in sorted(path.rglob("*")):
        status = each.lstat()
        content = b""
        if stat.S_ISREG(status.st_mode):
            content = each.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.fsencode(os.readlink(each))
        time = None if stat.S_ISDIR(status.st_mode) else int(status.st_mtime)
        found[str(each.relative_to(path))] = (status.st_mode, content, time)
    return found


def stack(*directories, marks=USERS_MARKS):
    return Stack([os.open(path, os.O_PATH | os.O_DIRECTORY) for path in directories], marks)


def differences(old, new):
    with old, new:
        return [(change.kind, change.path) for change in changes(old, new)]


def packed(old, new, descends=False):
    file = io.BytesIO()
    with old, new:
        writer = LayerWriter(file)
        writer.add_changes(changes(old, new, descends=descends))
        diff_id, size = writer.close()
    assert size == len(file.getvalue())
    file.seek(0)
    return file, diff_id


@pytest.fixture
def place():
    # On a disk: tmpfs has no user xattrs before Linux 6.6.
    path = Path(tempfile.mkdtemp(dir="/var/tmp"))
    yield path
    remove_tree(str(path))


@few
@given(before=ROOTS, after=ROOTS)
def test_what_changed_makes_the_one_of_the_other(before, after):
    with tempfile.TemporaryDirectory() as name:
        old, new, applied, upper = (Path(name) / each for each in ("old", "new", "applied", "upper"))
        for path, content in ((old, before), (new, after), (applied, before)):
            path.mkdir()
            make(path, content)
        layer, diff_id = packed(stack(old, marks=""), stack(new, marks=""))
        unpack(layer, str(applied), diff_id=diff_id, owner_policy="ignore", form="apply")
        assert seen(applied) == seen(new)
        assert differences(stack(applied, marks=""), stack(new, marks="")) == []

        # Stacked, it is the same; and the changes of a stack are those of the trees.
        upper.mkdir()
        layer.seek(0)
        unpack_upon(layer, upper, old)
        assert differences(stack(upper, old), stack(new, marks="")) == []
        assert packed(stack(old), stack(upper, old))[1] == diff_id


@few
@given(ROOTS)
def test_a_tree_is_like_itself_and_packed_always_the_same(content):
    with tempfile.TemporaryDirectory() as name:
        layers = []
        for each in ("one", "two"):
            path = Path(name) / each
            path.mkdir()
            make(path, content if each == "one" else dict(reversed(content.items())))
            writer = LayerWriter(io.BytesIO())
            writer.add_below(stack(path, marks="").root)
            layers.append(writer.close())
        assert layers[0] == layers[1]
        assert differences(stack(Path(name) / "one", marks=""), stack(Path(name) / "two", marks="")) == []


@given(
    name=st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and not name.endswith(b"/")),
    numbers=st.tuples(*[st.integers(0, 1 << 32)] * 2),
    time=st.integers(-(1 << 33), 1 << 40),
)
def test_any_name_and_number_is_read_back(name, numbers, time):
    data = header(name, b"2", 0o777, numbers, mtime_s=time, link=name)
    with tarfile.open(fileobj=io.BytesIO(data + bytes(1024)), encoding="utf-8", errors="surrogateescape") as file:
        (member,) = file.getmembers()
    read = member.name.encode("utf-8", "surrogateescape"), member.linkname.encode("utf-8", "surrogateescape")
    assert read == (name, name)
    assert (member.uid, member.gid, member.mtime) == (*numbers, time)


def layers_of(place, *contents):
    paths: list[Path] = []
    for number, members in enumerate(contents):
        paths.insert(0, place / str(number))
        paths[0].mkdir()
        unpack_upon(tar(members), *paths)
    return paths


def test_whiteouts_and_opaque_directories_become_deletions(place):
    layers = layers_of(
        place,
        [entry(name, content=b"1") for name in ("d/a", "d/b", "d/sub/x", "gone", "kept", "tree/x")],
        [entry("d/.wh..wh..opq"), entry("d/b", content=b"2"), entry("d/sub/y"), entry(".wh.gone"), entry(".wh.tree")],
    )
    found = differences(stack(layers[1]), stack(*layers))
    assert set(found) == {
        ("C", "/d"), ("D", "/d/a"), ("C", "/d/b"), ("C", "/d/sub"), ("D", "/d/sub/x"), ("A", "/d/sub/y"),
        ("D", "/gone"), ("D", "/tree"),
    }  # fmt: skip


def test_a_file_under_a_whiteout_of_the_middle_layer_is_new(place):
    layers = layers_of(
        place, [entry("d/old"), entry("f")], [entry(".wh.d"), entry(".wh.f")], [entry("d/new"), entry("f")]
    )
    assert differences(stack(), stack(layers[-1])) == [("A", "/d"), ("A", "/d/old"), ("A", "/f")]
    assert differences(stack(*layers[1:]), stack(*layers)) == [("A", "/d"), ("A", "/d/new"), ("A", "/f")]
    with stack(*layers) as all_layers:
        root = all_layers.root
        with root.child("d", root.children()["d"]) as directory:
            assert set(directory.children()) == {"new"}


def test_what_was_only_copied_up_has_not_changed(place):
    (layer,) = layers_of(place, [entry("d/f", content=b"same"), entry("d/g", content=b"1234")])
    upper = place / "upper"
    shutil.copytree(layer, upper)  # with the times
    assert differences(stack(layer), stack(upper, layer)) == []
    time = (layer / "d/g").stat().st_mtime
    (upper / "d/g").write_bytes(b"5678")
    os.utime(upper / "d/g", (time, time))
    shutil.copystat(layer / "d", upper / "d")
    assert differences(stack(layer), stack(upper, layer)) == [("C", "/d"), ("C", "/d/g")]


def test_a_directory_whose_attributes_changed(place):
    (layer,) = layers_of(place, [entry("d/f"), entry("e/f")])
    upper = place / "upper"
    shutil.copytree(layer, upper)
    (upper / "d").chmod(0o700)
    os.setxattr(upper / "e", "user.overlay.origin", b"1")
    os.setxattr(upper / "e", "user.overlay.impure", b"y")
    assert differences(stack(layer), stack(upper, layer)) == [("C", "/d")]
    os.setxattr(upper / "e", "user.note", b"1")
    assert differences(stack(layer), stack(upper, layer)) == [("C", "/d"), ("C", "/e")]


def test_hard_links_are_kept_and_the_marks_of_overlayfs_are_not(place):
    (layer,) = layers_of(place, [entry("f", content=b"1")])
    upper = place / "upper"
    upper.mkdir()
    shutil.copy2(layer / "f", upper / "f")
    os.link(upper / "f", upper / "g")
    os.setxattr(upper / "f", "user.overlay.origin", b"1")
    os.setxattr(upper / "f", "user.kept", b"\0\xff")
    file, _ = packed(stack(layer), stack(upper, layer), descends=True)
    with tarfile.open(fileobj=file) as archive:
        first, second = archive.getmembers()
    assert (first.name, second.name, second.linkname) == ("f", "g", "f")
    assert [key for key in first.pax_headers if key.startswith("SCHILY")] == ["SCHILY.xattr.user.kept"]


@few
@given(before=ROOTS, after=ROOTS)
def test_files_that_are_read_together_are_packed_like_others(before, after):
    with tempfile.TemporaryDirectory() as name:
        old, upper = Path(name) / "old", Path(name) / "upper"
        for path, content in ((old, before), (upper, after)):
            path.mkdir()
            make(path, content)

        def packed_layer(**how):
            file = io.BytesIO()
            with stack(old) as below, stack(upper, old) as now:
                writer = LayerWriter(file, settled=bool(how))
                writer.add_changes(changes(below, now, descends=True, **how))
                writer.close()
            return file.getvalue(), writer.files_bytes

        assert packed_layer(into_new=False) == packed_layer()


def test_a_name_with_a_meaning_in_a_new_directory_is_refused(place):
    (place / "old").mkdir()
    (place / "new/d").mkdir(parents=True)
    (place / "new/d/.wh.x").touch()
    with stack(place / "old") as below, stack(place / "new", place / "old") as now:
        writer = LayerWriter(io.BytesIO(), settled=True)
        with pytest.raises(StoreError, match="^pack '/d/.wh.x': in a layer, such a name means"):
            writer.add_changes(changes(below, now, descends=True, into_new=False))


def test_no_name_is_a_link_to_one_that_was_gone(place, monkeypatch):
    (place / "tree").mkdir()
    (place / "tree/f").write_text("1")
    os.link(place / "tree/f", place / "tree/g")
    os.link(place / "tree/f", place / "tree/h")
    opened = Node.open

    def open_others(node, flags):
        if node.path == "f":
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), node.path)
        return opened(node, flags)

    monkeypatch.setattr(Node, "open", open_others)
    file = io.BytesIO()
    writer = LayerWriter(file)
    writer.add_below(stack(place / "tree", marks="").root)
    writer.close()
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        assert [(member.name, member.linkname) for member in archive] == [("g", ""), ("h", "g")]


def test_what_changes_places_meanwhile_is_told_and_read_as_one(place):
    """Of each file there is one look: a directory is never told as the symlink that took its name, nor the other way."""
    (place / "tree/d/e").mkdir(parents=True)
    (place / "tree/d/e/f").write_text("inside")
    (place / "outside/e").mkdir(parents=True)
    (place / "outside/e/f").write_text("secret")
    (place / "tree/link").symlink_to(place / "outside")
    with stack(place / "tree", marks="") as tree:
        listed = tree.root.children()
        with tree.root.child("d", listed["d"]) as directory:
            (place / "tree/d").rename(place / "tree/old")
            (place / "tree/link").rename(place / "tree/d")
            written = io.BytesIO()
            LayerWriter(written).add_node(directory)
            LayerWriter(written).add_below(directory)
            assert b"secret" not in written.getvalue() and b"inside" in written.getvalue()
        with tree.root.child("d", listed["d"]) as link:  # by now
            assert not link.is_directory and link.readlink() == os.fsencode(place / "outside")
        with pytest.raises(OSError) as caught:
            tree.root.child("link", listed["link"])
        assert is_gone(caught.value)


def test_a_directory_that_had_to_be_closed_is_the_same_when_it_is_opened_again(place):
    deep = place / "tree" / "/".join(["d"] * (DIRECTORIES_OPEN_MAX + 1))
    deep.mkdir(parents=True)
    (place / "other/inside").mkdir(parents=True)
    with stack(place / "tree", marks="") as tree, ExitStack() as nodes:
        first = node = nodes.enter_context(tree.root.child("d", tree.root.children()["d"]))
        for _ in range(DIRECTORIES_OPEN_MAX):
            node = nodes.enter_context(node.child("d", node.children()["d"]))
        assert set(first.children()) == {"d"}
        node.children()
        (place / "tree/d").rename(place / "elsewhere")
        (place / "other").rename(place / "tree/d")
        for each in list(tree.held):
            each.close()
        with pytest.raises(OSError) as caught:
            first.children()
        assert is_gone(caught.value)


@pytest.mark.parametrize("mark", ["redirect", "metacopy"])
def test_what_overlayfs_keeps_elsewhere_is_refused(place, mark):
    (layer,) = layers_of(place, [entry("d/f", content=b"1")])
    upper = place / "upper"
    shutil.copytree(layer, upper)
    (upper / "d/f").write_text("2")
    os.setxattr(upper / ("d" if mark == "redirect" else "d/f"), f"user.overlay.{mark}", b"/other")
    with pytest.raises(Unsupported, match=mark):
        packed(stack(layer), stack(upper, layer))


def test_a_name_that_would_be_a_whiteout_is_refused(place):
    (place / "old").mkdir()
    (place / "new").mkdir()
    (place / "new/.wh.f").touch()
    with pytest.raises(StoreError, match="another file was removed"):
        packed(stack(place / "old"), stack(place / "new"))


def test_a_file_capability_loses_the_id_of_this_hosts(place):
    bound = bytes.fromhex("01000003" + "0020000000000000" * 2 + "00000070")
    data = header(b"f", b"0", 0o755, (0, 0), xattrs={"security.capability": bound})
    with tarfile.open(fileobj=io.BytesIO(data + bytes(1024))) as file:
        value = file.getmembers()[0].pax_headers["SCHILY.xattr.security.capability"]
    assert value.encode() == bytes.fromhex("01000002" + "0020000000000000" * 2)


def test_sockets_are_left_out_and_deep_trees_are_not(place):
    import socket

    path = place / "tree"
    path.mkdir()
    deep = "/".join(["d"] * 1200)
    for depth in range(1, 1201):
        (path / deep[: 2 * depth - 1]).mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path / "socket"))
    file = io.BytesIO()
    writer = LayerWriter(file)
    writer.add_below(stack(path, marks="").root)
    writer.close()
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        names = archive.getnames()
    assert "socket" not in names and names[-1] == deep
    (place / "empty").mkdir()
    assert len(differences(stack(place / "empty", marks=""), stack(path, marks=""))) == 1201


def copied(place, name, content, links=()):
    """A tree, as the storage driver copy has a layer's or a container's."""
    path = place / name
    path.mkdir()
    make(path, content)
    for target, *names in links:
        for each in names:
            os.link(path / target, path / each)
    os.utime(path, (0, 0))
    return path


def changed_in_container(old, new):
    with stack(old, marks="") as before, stack(new, marks="") as now:
        return [(change.kind, change.path) for change in changes(before, now, descends=True)]


def test_links_of_a_layers_files_to_those_of_other_layers_are_no_change(place):
    """With the driver copy layers of one image share inodes: another image that is unpacked changes all link counts."""
    files = {"one": ("file", b"1", 0o644, 0), "two": ("file", b"2", 0o644, 0)}
    layer, container = copied(place, "layer", files, [("one", "uno")]), copied(place, "box", files, [("one", "uno")])
    assert changed_in_container(layer, container) == []
    os.link(layer / "two", place / "another-layer")
    os.link(layer / "one", place / "another")
    assert changed_in_container(layer, container) == []


def test_a_file_has_changed_when_it_got_a_name_and_not_when_it_lost_one(place):
    files = dict.fromkeys(("a", "b", "c"), ("file", b"1", 420, 0))
    layer, container = (
        copied(place, "layer", files, [("a", "a2", "a3")]),
        copied(place, "box", files, [("a", "a2", "a3")]),
    )
    (container / "a2").unlink()
    os.link(container / "b", container / "b2")
    (container / "c").unlink()
    os.link(container / "b", container / "c")
    os.utime(container, (0, 0))
    assert changed_in_container(layer, container) == [("D", "/a2"), ("C", "/b"), ("A", "/b2"), ("C", "/c")]
