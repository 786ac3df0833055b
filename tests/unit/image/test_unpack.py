"""Unpacking a layer as whoever runs the tests: what arrives, and what a hostile one can't do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minibox.errors import StoreError
from minibox.image.layer.pack import LayerWriter
from minibox.image.layer.stack import Stack
from minibox.image.layer.unpack import unpack
from minibox.linux.removal import remove_tree
from tests.unit.layers import directory, entry, hard_link, symlink, tar, tar_of

SECRET = b"outside"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory to unpack into, with something beside it that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(SECRET)
    (tmp_path / "diff").mkdir()
    return tmp_path / "diff"


def outside(place: Path) -> list[str]:
    kept = sorted(str(path.relative_to(place.parent)) for path in place.parent.iterdir() if path != place)
    assert (place.parent / "outside/secret").read_bytes() == SECRET
    return kept + os.listdir(place.parent / "outside")


def test_files_directories_and_links_arrive(place):
    unpack(
        tar(
            [
                directory("./", 0o755),
                directory("d", 0o500, mtime=1000),
                entry("d/f", content=b"hello", mode=0o4711, mtime=1234),
                symlink("s", "/d/f"),
                hard_link("d/h", "d/f"),
                entry("p", tarfile.FIFOTYPE, mode=0o640),
                entry("/absolute/deep", content=b"x"),
                directory("tmp", 0o1777),
            ]
        ),
        str(place),
    )
    assert (place / "d/f").read_bytes() == b"hello"
    assert stat.S_IMODE((place / "d/f").stat().st_mode) == 0o4711
    assert (place / "d/f").stat().st_mtime == 1234
    assert (place / "d/f").stat().st_ino == (place / "d/h").stat().st_ino
    assert (place / "d").stat().st_mtime == 1000, "filling a directory must not change its time"
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o500
    assert os.readlink(place / "s") == "/d/f"
    assert stat.S_ISFIFO((place / "p").stat().st_mode)
    assert (place / "absolute/deep").read_bytes() == b"x"
    assert stat.S_IMODE((place / "tmp").stat().st_mode) == 0o1777


def test_umask_does_not_matter(place):
    before = os.umask(0o077)
    try:
        unpack(tar([entry("implied/f", content=b"x", mode=0o644), directory("d", 0o755)]), str(place))
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((place / name).stat().st_mode) for name in ("implied", "implied/f", "d")}
    assert modes == {"implied": 0o755, "implied/f": 0o644, "d": 0o755}


def test_later_entry_replaces_earlier(place):
    unpack(
        tar(
            [
                entry("a", content=b"1"),
                entry("a", content=b"2"),
                directory("b"),
                entry("b/in", content=b"1"),
                entry("b", content=b"file"),
                entry("c", content=b"file"),
                directory("c"),
                symlink("l", "a"),
                entry("l", content=b"no link"),
                hard_link("a", "a"),
            ]
        ),
        str(place),
    )
    assert (place / "a").read_bytes() == b"2"
    assert (place / "b").read_bytes() == b"file"
    assert (place / "c").is_dir()
    assert (place / "l").read_bytes() == b"no link"


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../secret", content=b"x")],
        [entry("a/../../secret", content=b"x")],
        [entry("/../secret", content=b"x")],
        [directory("..", 0o777)],
        [hard_link("h", "../outside/secret")],
        [hard_link("h", "/../outside/secret")],
        [entry("a", content=b""), entry("a/b", content=b"x")],
        [hard_link("h", "absent")],
        [directory("d"), hard_link("h", "d")],
        [symlink("a", "b"), symlink("b", "a"), entry("a/x", content=b"x")],
        [entry(".wh...", content=b"")],
        [entry(".wh..", content=b"")],
        [entry(".wh.", content=b"")],
        [entry(".", content=b"root")],
        [symlink(".", "/")],
        [hard_link(".", "a")],
        [entry("x" * 256, content=b"x")],
        [entry("u", uid=1 << 40)],
        [entry("k", b"Z")],
    ],
)
def test_hostile_entry_is_an_error_and_touches_nothing_outside(place, entries):
    before = outside(place)
    if entries[0][0].name == "u" and os.geteuid() != 0:
        pytest.skip("an ordinary user's unpacking ignores owners")
    with pytest.raises(StoreError) as caught:
        unpack(tar(entries), str(place))
    assert "\n" not in str(caught.value)
    assert outside(place) == before


@pytest.mark.parametrize(
    "target", ["../outside", "../../../../../../../../../../tmp", "/", "../../", "x/../../outside"]
)
def test_symlink_leads_no_write_outside(place, target):
    """Resolved as if the directory were the root, as a container will see it."""
    before = outside(place)
    real = str(place.parent / "outside") if target == "/" else target
    unpack(
        tar([symlink("s", real), entry("s/secret", content=b"in"), directory("s/sub"), entry(".wh.gone")]), str(place)
    )
    assert outside(place) == before
    assert [path for path in place.rglob("secret") if path.read_bytes() == b"in"]


def test_symlink_leads_no_other_operation_outside(place):
    before = outside(place)
    outside_path = str(place.parent / "outside")
    status = os.stat(place.parent / "outside/secret")
    for entries in (
        [symlink("s", outside_path), hard_link("h", "s/secret")],
        [symlink("t", f"{outside_path}/secret"), entry("t", content=b"overwritten")],
        [symlink("u", outside_path), entry("u/.wh.secret")],
        [symlink("v", outside_path), entry("v/.wh..wh..opq")],
        [symlink("w", outside_path), directory("w", 0o777)],
        [symlink("x", f"{outside_path}/secret"), hard_link("y", "x")],
        [symlink("z", f"{outside_path}/secret"), hard_link("y", "z"), entry("y", content=b"overwritten")],
    ):
        try:
            unpack(tar(entries), str(place))
        except StoreError:
            pass
    assert outside(place) == before
    after = os.stat(place.parent / "outside/secret")
    assert (after.st_nlink, after.st_ctime_ns) == (status.st_nlink, status.st_ctime_ns)
    assert not os.listxattr(outside_path)
    assert stat.S_IMODE(os.stat(outside_path).st_mode) == 0o755


def test_overlayfs_xattrs_are_not_an_images_to_set(place):
    hostile = {
        "SCHILY.xattr.user.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.note": "kept",
    }
    unpack(tar([entry("f", pax_headers=hostile), directory("d", pax_headers=hostile)]), str(place))
    for name in ("f", "d"):
        assert os.listxattr(place / name) == ["user.note"]
        assert os.getxattr(place / name, "user.note") == b"kept"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_and_cut_short(place, compress):
    data = compress(tar_of({"f": os.urandom(5000)}).getvalue())
    unpack(io.BytesIO(data), str(place))
    assert (place / "f").stat().st_size == 5000
    for length in (20, len(data) // 2, len(data) - 9):
        with pytest.raises(StoreError):
            unpack(io.BytesIO(data[:length]), str(place), diff_id="sha256:" + "0" * 64)


def test_another_diff_id_is_an_error(place):
    with pytest.raises(StoreError, match="another digest"):
        unpack(tar_of({"f": b"1"}), str(place), diff_id="sha256:" + "0" * 64)


def test_broken_header_in_mid_archive_is_no_silent_end(place):
    data = bytearray(tar_of({"a": b"1", "b": b"2"}).getvalue())
    data[1024 + 10] ^= 0xFF
    with pytest.raises(StoreError, match="not a valid tar archive"):
        unpack(io.BytesIO(bytes(data)), str(place))


def test_sparse_file_stays_sparse_and_right(place, tmp_path):
    with open(tmp_path / "hole", "wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
    import subprocess

    subprocess.run(["tar", "-C", tmp_path, "--sparse", "-cf", tmp_path / "s.tar", "hole"], check=True)
    with open(tmp_path / "s.tar", "rb") as archive:
        unpack(archive, str(place))
    assert (place / "hole").read_bytes() == b"\0" * (8 << 20) + b"end"
    assert (place / "hole").stat().st_blocks * 512 < 4 << 20


NAMES = st.sampled_from(["a", "a/b", "a/b/c", "b", "./a", "/b", "..", "a/..", "a/../..", ".wh.a", "a/.wh.b",
                         "a/.wh..wh..opq", ".", "", "a//b", "b/a/c"])  # fmt: skip
TARGETS = st.sampled_from(["a", "b", "..", "../outside", "/", "../outside/secret", "a/b", ".", "../..", "/a/../../b"])
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, KINDS, TARGETS), max_size=7))
def test_no_sequence_of_entries_gets_outside(place, sequence):
    remove_tree(str(place))
    place.mkdir()
    before = outside(place)
    entries = [entry(name, kind, b"x" if kind == tarfile.REGTYPE else b"", linkname=target, mode=0o700)
               for name, kind, target in sequence]  # fmt: skip
    try:
        unpack(tar(entries), str(place))
    except StoreError:
        pass
    assert outside(place) == before
    for parent, directories, names in os.walk(place):
        for name in directories + names:
            assert os.lstat(os.path.join(parent, name)).st_ino != os.stat(place.parent / "outside/secret").st_ino


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_arbitrary_headers_are_unpacked_or_refused(place, data):
    raw = bytearray(tar([directory("d"), entry("d/f", content=b"x" * 700), symlink("s", "d")]).getvalue()[:3072])
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for start in (0, 512):  # a sound checksum lets the rest be looked at
        header = raw[start : start + 512]
        total = sum(header[:148]) + 256 + sum(header[156:])
        raw[start + 148 : start + 156] = b"%06o\0 " % total
    before = outside(place)
    try:
        unpack(io.BytesIO(bytes(raw)), str(place))
    except StoreError as error:
        assert "\n" not in str(error)
    assert outside(place) == before


def test_packed_tree_is_the_same_each_time(tmp_path):
    diff_ids = []
    for number in range(2):
        tree = tmp_path / f"tree{number}"
        (tree / "d").mkdir(parents=True)
        for name in ("b", "a", "d/z", "d/y") if number else ("d/y", "a", "d/z", "b"):
            (tree / name).write_text(name)
        os.link(tree / "a", tree / "linked")
        os.symlink("a", tree / "s")
        for path in [*tree.rglob("*"), tree]:
            os.utime(path, (1, 1), follow_symlinks=False)
        file = io.BytesIO()
        writer = LayerWriter(file)
        with Stack([os.open(tree, os.O_PATH)], "") as stack:
            writer.add_below(stack.root)
        diff_ids.append(writer.close()[0])
        file.seek(0)
    assert diff_ids[0] == diff_ids[1]
    (tmp_path / "diff").mkdir()
    unpack(file, str(tmp_path / "diff"), diff_id=diff_ids[1], owner_policy="ignore")
    assert (tmp_path / "diff/linked").stat().st_ino == (tmp_path / "diff/a").stat().st_ino
    assert os.readlink(tmp_path / "diff/s") == "a"


def test_applied_layer_changes_the_tree_below(place):
    unpack(
        tar(
            [
                *(
                    entry(name, content=b"below")
                    for name in ("gone", "replaced", "d/a", "d/b", "o/a", "o/sub/b", "kind/x")
                ),
                symlink("lib", "d"),
            ]
        ),
        str(place),
    )
    unpack(
        tar(
            [
                entry(".wh.gone"),
                entry("replaced", content=b"above"),
                entry("d/.wh.a"),
                entry("o/new", content=b"above"),
                entry("o/sub/new", content=b"above"),
                entry("o/.wh..wh..opq"),
                entry("kind", content=b"a file now"),
                entry(".wh.own"),
                entry("own", content=b"above"),
                entry(".wh.own"),
                entry(".wh.absent"),
            ]
        ),
        str(place),
        form="apply",
    )
    found = {
        os.path.relpath(os.path.join(parent, name), place): Path(parent, name).read_bytes()
        for parent, _, names in os.walk(place) for name in names if not os.path.islink(os.path.join(parent, name))
    }  # fmt: skip
    assert found == {
        "replaced": b"above", "d/b": b"below", "o/new": b"above", "o/sub/new": b"above", "kind": b"a file now",
        "own": b"above",
    }  # fmt: skip
