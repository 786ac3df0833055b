"""Unpacked layers: whole or not there, whoever is killed or damaged meanwhile; as overlayfs and as a tree the same."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from minibox.errors import StoreError
from minibox.image.archive.importer import add_image
from minibox.image.layer import lock
from minibox.image.layer import tree as layer_tree
from minibox.image.layer import unpack as layer
from minibox.image.layer.check import compare
from minibox.image.layer.stack import is_whiteout
from minibox.image.layer.tree import Directory
from minibox.image.layer.unpack import LayerSource, notes, unpack, unpack_layers
from minibox.image.layout.manifest import chain_ids
from minibox.image.store import ImageStore
from minibox.linux.removal import remove_tree
from tests.unit.layers import directory, entry, hard_link, symlink, tar, tar_of
from tests.unit.unusual_layers import unusual_layers

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "root")


def sources_of(tmp_path: Path, *layers: io.BytesIO) -> list[LayerSource]:
    """Blobs on disk, as an image would have them."""
    import hashlib

    ids = ["sha256:" + hashlib.sha256(each.getvalue()).hexdigest() for each in layers]
    sources = []
    for each, diff_id, chain_id in zip(layers, ids, chain_ids(ids)):
        path = tmp_path / diff_id[7:]
        path.write_bytes(each.getvalue())
        sources.append(LayerSource(str(path), diff_id, chain_id))
    return sources


def left_over(root: str) -> list[str]:
    return [name for name in os.listdir(f"{root}/layers") if name.startswith(lock.UNFINISHED)]


def test_layers_are_unpacked_once_in_order(tmp_path, root):
    sources = sources_of(tmp_path, *(tar_of({f"f{number}": b"x" * number}) for number in range(8)))
    seen: list[str] = []
    paths = unpack_layers(root, sources, on_progress=seen.append)
    assert seen == [source.chain_id for source in sources]
    assert [os.listdir(path) for path in paths] == [[f"f{number}"] for number in range(8)]
    inodes = [os.stat(path).st_ino for path in paths]
    assert unpack_layers(root, sources, on_progress=seen.append) == paths
    assert (len(seen), [os.stat(path).st_ino for path in paths]) == (8, inodes)
    assert stat.S_IMODE(os.stat(f"{root}/layers").st_mode) == 0o700
    assert left_over(root) == []


def test_damaged_layer_is_an_error_and_those_below_are_there(tmp_path, root):
    sources = sources_of(tmp_path, *(tar_of({f"f{number}": b"x"}) for number in range(4)))
    Path(sources[2].blob_path).write_bytes(b"damaged" * 200)
    with pytest.raises(StoreError, match=f"unpack layer {sources[2].diff_id}: not a valid tar archive"):
        unpack_layers(root, sources)
    assert left_over(root) == []
    there = [os.path.exists(f"{root}/layers/{source.chain_id[7:]}/diff") for source in sources]
    assert there == [True, True, False, False]
    os.unlink(sources[3].blob_path)
    Path(sources[2].blob_path).write_bytes(tar_of({"f2": b"x"}).getvalue())
    with pytest.raises(StoreError, match=r"read the blob of layer .*: No such file"):
        unpack_layers(root, sources)


def test_implied_directory_looks_as_below(tmp_path, root):
    """overlayfs shows the topmost layer's: 0755 of root's would open a directory that is closed, or close /tmp."""
    below = tar([directory("tmp", 0o1777, mtime=5), directory("closed", 0o700), directory("closed/in", 0o711)])
    above = tar([entry("tmp/f"), entry("closed/in/f"), entry("new/f")])
    hidden = tar([entry(".wh.tmp"), symlink("closed", "tmp")])
    top = tar([entry("tmp/g"), entry("closed/g")])
    paths = [Path(path) for path in unpack_layers(root, sources_of(tmp_path, below, above, hidden, top))]
    modes = {name: stat.S_IMODE((paths[1] / name).stat().st_mode) for name in ("tmp", "closed", "closed/in", "new")}
    assert modes == {"tmp": 0o1777, "closed": 0o700, "closed/in": 0o711, "new": 0o755}
    assert (paths[1] / "tmp").stat().st_mtime == 5
    assert [stat.S_IMODE((paths[3] / name).stat().st_mode) for name in ("tmp", "closed")] == [0o755, 0o755]


UNPACK = """
import sys
from minibox.image.layer.unpack import LayerSource, unpack_layers
words = sys.argv[2:]
unpack_layers(sys.argv[1], [LayerSource(*words[at : at + 3]) for at in range(0, len(words), 3)])
"""


def start_unpacking(root: str, sources: list[LayerSource]) -> subprocess.Popen[str]:
    words = [word for source in sources for word in (source.blob_path, source.diff_id, source.chain_id)]
    return subprocess.Popen(
        [sys.executable, "-c", UNPACK, root, *words], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True
    )


def test_killed_processes_leave_nothing_that_lasts(tmp_path, root):
    many = [tar_of({f"d{number}/f{each}": os.urandom(64) for each in range(400)}) for number in range(4)]
    sources = sources_of(tmp_path, *many)
    processes = [start_unpacking(root, sources) for _ in range(4)]
    time.sleep(0.25)
    for process in processes[:2]:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process in processes[:2] or (process.returncode, said) == (0, "")
    for number, source in enumerate(sources):
        assert len(os.listdir(f"{root}/layers/{source.chain_id[7:]}/diff/d{number}")) == 400
    assert left_over(root) == []


def test_unfinished_directory_of_a_dead_process_goes_and_that_of_a_live_one_stays(tmp_path, root):
    (source,) = sources_of(tmp_path, tar_of({"f": b"x"}))
    for name in ("dead", source.chain_id[7:]):
        os.makedirs(f"{root}/layers/{lock.UNFINISHED}{name}/diff/some/thing")
    os.makedirs(f"{root}/layers/{lock.UNFINISHED}live/diff")
    live = lock.lock(f"{root}/layers/{lock.UNFINISHED}live")
    assert live is not None
    unpack_layers(root, [source])
    assert left_over(root) == [f"{lock.UNFINISHED}live"]
    assert os.listdir(f"{root}/layers/{source.chain_id[7:]}/diff") == ["f"]
    live.give_up()
    assert left_over(root) == []


def test_layers_are_on_disk_before_they_have_their_names(tmp_path, root, monkeypatch):
    """After a power failure a name is all that anybody looks at."""
    events: list[str] = []
    monkeypatch.setattr(layer, "sync_file_system", lambda fd: events.append("sync"))

    def keep(finished, name):
        events.append("name")
        finished.give_up()

    monkeypatch.setattr(lock.Claim, "keep", keep)
    unpack_layers(root, sources_of(tmp_path, tar_of({"f": b"x"})))
    assert events == ["sync", "name"]


def test_an_interrupt_waits_for_no_layer(tmp_path, root, monkeypatch):
    first, second = sources = sources_of(tmp_path, tar_of({"f": b"x"}), tar_of({"g": b"x"}))
    begun = threading.Event()

    def unpack_forever(blob, directory, *, diff_id, **options):
        while diff_id == second.diff_id:
            begun.set()
            blob.read(1)
        return unpack(blob, directory, diff_id=diff_id, **options)

    def interrupt(chain_id):
        assert chain_id == first.chain_id and begun.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(layer, "unpack", unpack_forever)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        unpack_layers(root, sources, on_progress=interrupt)
    assert os.listdir(f"{root}/layers") == [first.chain_id[7:]]


def test_what_was_lost_is_noted(tmp_path, root):
    source, other = sources_of(tmp_path, tar_of({"f": b"x"}), tar_of({"g": b"x"}))
    unpack_layers(root, [source], owner_policy="ignore")
    assert notes(root, [source.chain_id, other.chain_id]) == [layer.OWNERS_LOST]
    found = layer.Unpacked(Directory(), 0, tuple(b"dev/%d" % number for number in range(9)), True)
    assert layer.notes_text(found) == (
        "device nodes are left out, because only root can make them: dev/0, dev/1, dev/2, dev/3, ...\n"
    )


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([entry("a/" * 2100 + "f")], "longer than 4096 bytes"),
        ([entry("a" * 4096 + "/f")], "longer than 4096 bytes"),
        ([directory("d/" * 1500), symlink("s", "d/" * 1500), entry("s/" + "e/" * 1500 + "f")], "too deep"),
        ([directory("d/" * 2000), symlink("s", "d/" * 2000), entry("s/" + "e" * 200)], "longer than 4096"),
        ([symlink("s", "t" * 4096)], "an invalid target"),
        ([entry("n", tarfile.CHRTYPE, devmajor=1 << 12)], "not valid numbers"),
        ([entry("n", tarfile.BLKTYPE, devminor=1 << 20)], "not valid numbers"),
    ],
)
def test_path_bombs_are_refused(tmp_path, entries, said):
    (tmp_path / "diff").mkdir()
    with pytest.raises(StoreError, match=said) as caught:
        unpack(tar(entries), str(tmp_path / "diff"))
    assert len(str(caught.value)) < 9000
    remove_tree(str(tmp_path / "diff"))


def test_number_of_entries_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(layer_tree, "ENTRIES_MAX", 10)
    (tmp_path / "diff").mkdir()
    with pytest.raises(StoreError, match="more than 10 entries"):
        unpack(tar([entry("a/b/c/d/e/f/g/h/i/j/k")]), str(tmp_path / "diff"))
    unpack(tar_of({f"{number}": b"" for number in range(10)}), str(tmp_path / "diff"))


# ---- the two forms mean the same ---------------------------------------------------------------


def overlaid(layers: list[Path]) -> dict[str, object]:
    """What overlayfs would show of layers, bottom first: by path, what `_node` tells."""
    return _with_links(_merged(list(reversed(layers)), ""))


def _merged(layers: list[Path], inside: str) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    names = sorted({name for each in layers for name in os.listdir(each / inside)})
    for name in names:
        path = os.path.join(inside, name)
        parts: list[Path] = []
        for each in layers:
            try:
                status = os.lstat(each / path)
            except FileNotFoundError:
                continue
            if is_whiteout(status):
                if len(layers) == 1 and inside:
                    found[path] = (path, "listed, and not there")  # nothing is merged, and so overlayfs lists all
                break
            if not stat.S_ISDIR(status.st_mode):
                if not parts:
                    found[path] = _node(each / path)
                break
            parts.append(each)
            if "user.overlay.opaque" in os.listxattr(each / path):
                break
        if parts:
            found[path] = _node(parts[0] / path)
            found.update(_merged(parts, path))
    return found


def _node(path: Path) -> tuple[object, ...]:
    status, told = path.lstat(), b""
    if path.is_symlink():
        told = os.readlink(os.fsencode(path))
    elif path.is_file():
        told = path.read_bytes()
    return status.st_ino, oct(status.st_mode), status.st_uid, status.st_mtime_ns, told


def tree(place: Path) -> dict[str, object]:
    return _with_links({str(path.relative_to(place)): _node(path) for path in place.rglob("*")})


def _with_links(found: dict[str, tuple[object, ...]]) -> dict[str, object]:
    """Instead of inodes, the first name of each."""
    first: dict[object, str] = {}
    return {path: (first.setdefault(inode, path), *told) for path, (inode, *told) in sorted(found.items())}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(unusual_layers)
def test_applied_layers_are_what_overlayfs_shows(tmp_path, layers):
    """And the check of the store has nothing to say of it."""
    remove_tree(str(tmp_path / "root"))
    remove_tree(str(tmp_path / "tree"))
    (tmp_path / "tree").mkdir()
    sources = sources_of(tmp_path, *map(tar, layers))
    try:
        paths = unpack_layers(str(tmp_path / "root"), sources)
    except StoreError as error:
        paths, refused = [], str(error).partition(": ")[2]
    try:
        for number, each in enumerate(layers):
            unpack(tar(each), str(tmp_path / "tree"), form="apply" if number else "overlay")
    except StoreError as error:
        assert (paths, refused) == ([], str(error).partition(": ")[2])
        return
    assert tree(tmp_path / "tree") == overlaid([Path(path) for path in paths])
    with ExitStack() as stack:
        fds = [os.open(path, os.O_RDONLY) for path in paths]
        for fd in fds:
            stack.callback(os.close, fd)
        for number, source in enumerate(sources):
            assert compare(source.blob_path, fds[number], fds[:number][::-1]) == ()


def test_whiteouts_have_overlayfs_form_where_they_hide_something(tmp_path, root):
    """A whiteout in a directory that overlayfs merges with no other would be listed."""
    below = tar([*(directory(name) for name in ("d", "again", "kept", "way")), entry("way/gone"), entry("removed")])
    above = tar(
        [entry("d/.wh..wh..opq"), entry("d/new"), entry("d/.wh.old"), entry(".wh.removed"), entry(".wh.again"),
         directory("again"), directory("kept"), entry(".wh.kept"), entry(".wh.file"), entry("file", content=b"new"),
         entry(".wh..wh.plnk"), entry("way/.wh.gone"), entry("ghost/.wh.a"), entry(".wh.never")]
    )  # fmt: skip
    place = Path(unpack_layers(root, sources_of(tmp_path, below, above))[1])
    assert sorted(os.listdir(place)) == ["again", "d", "file", "kept", "removed", "way"]
    assert is_whiteout((place / "removed").lstat()) and is_whiteout((place / "way/gone").lstat())
    for name in ("d", "again", "kept"):
        assert os.getxattr(place / name, "user.overlay.opaque") == b"y"
    assert os.listdir(place / "d") == ["new"]
    assert os.listxattr(place / "way") == []


@pytest.mark.parametrize(
    ("entries", "shown"),
    [
        ([entry("a/.wh.a"), symlink("a", "b")], ["a"]),
        ([entry("a/.wh.a"), entry("a", content=b"1")], ["a"]),
        ([entry("a/.wh.a"), entry("a", tarfile.FIFOTYPE)], ["a"]),
        ([entry("a/.wh.a"), entry("a/.wh..wh..opq")], ["a"]),
        ([entry("a/.wh.a"), entry(".wh.a")], []),
        ([entry("a", content=b"1"), entry("a/.wh..wh..opq"), entry("a/.wh.a")], ["a"]),
        ([entry(".wh.a"), entry("a/.wh.a")], []),
        ([entry("a/b/.wh..wh..opq"), entry("a/.wh.b")], ["a", "a/x"]),
        ([entry("a", content=b"1"), directory("a")], ["a"]),
        ([entry(".wh..wh..opq"), entry("a/y")], ["a", "a/y"]),
    ],
)
def test_what_hides_adds_nothing_in_whatever_order(tmp_path, root, entries, shown):
    below = [directory("a", 0o700), entry("a/x"), entry("a/a"), directory("a/b"), entry("a/b/c")]
    expected = sorted({*shown, *(["a/x"] if "a/x" in shown else []), *(["a/a"] if "a/x" in shown else [])})
    sources = sources_of(tmp_path, tar(below), tar(entries))
    paths = unpack_layers(root, sources)
    assert list(overlaid([Path(path) for path in paths])) == expected
    fds = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        assert compare(sources[1].blob_path, fds[1], fds[:1]) == ()
    finally:
        for fd in fds:
            os.close(fd)


def test_applied_directory_loses_the_xattrs_of_the_one_below(tmp_path):
    place = tmp_path / "tree"
    place.mkdir()
    unpack(tar([directory("d", pax_headers={"SCHILY.xattr.user.old": "1", "SCHILY.xattr.user.both": "1"})]), str(place))
    unpack(tar([directory("d", pax_headers={"SCHILY.xattr.user.both": "2"})]), str(place), form="apply")
    assert {name: os.getxattr(place / "d", name) for name in os.listxattr(place / "d")} == {"user.both": b"2"}


def test_hard_links_reach_below_in_no_form(tmp_path, root):
    """overlayfs can't show a link between layers: an image that has one is refused, not shown wrongly."""
    layers = [tar([entry("f", content=b"x")]), tar([hard_link("g", "f")])]
    with pytest.raises(StoreError, match="'f' is not in the layer"):
        unpack_layers(root, sources_of(tmp_path, *layers))
    (tmp_path / "tree").mkdir()
    unpack(tar([entry("f", content=b"x")]), str(tmp_path / "tree"))
    with pytest.raises(StoreError, match="'f' is not in the layer"):
        unpack(tar([hard_link("g", "f")]), str(tmp_path / "tree"), form="apply")


def test_import_of_a_bomb_leaves_the_store_as_it_was(tmp_path, root, monkeypatch):
    monkeypatch.setattr(layer_tree, "ENTRIES_MAX", 10)
    store = ImageStore(root)

    def unpack_here(sources):
        unpack_layers(root, sources)

    with pytest.raises(StoreError, match="more than 10 entries"):
        add_image(store.layout, "app", [tar_of({f"{number}": b"" for number in range(11)})], unpack=unpack_here)
    assert store.names() == ()
    assert os.listdir(f"{root}/layers") == []
