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
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minibox.errors import StoreError
from minibox.image import claim, extract, layer
from minibox.image.importer import add_image
from minibox.image.layer import LayerSource, notes, unpack, unpack_layers
from minibox.image.manifest import chain_ids
from minibox.image.store import ImageStore
from minibox.storage.removal import remove_tree
from tests.unit.layers import directory, entry, hard_link, symlink, tar, tar_of

CHECKOUT = Path(__file__).parents[2]


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
    return [name for name in os.listdir(f"{root}/layers") if name.startswith(claim.UNFINISHED)]


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
    with pytest.raises(StoreError, match=f"unpack layer {sources[2].diff_id}: not a sound tar archive"):
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
from minibox.image.layer import LayerSource, unpack_layers
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
        os.makedirs(f"{root}/layers/{claim.UNFINISHED}{name}/diff/some/thing")
    os.makedirs(f"{root}/layers/{claim.UNFINISHED}live/diff")
    live = claim.lock(f"{root}/layers/{claim.UNFINISHED}live")
    assert live is not None
    unpack_layers(root, [source])
    assert left_over(root) == [f"{claim.UNFINISHED}live"]
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

    monkeypatch.setattr(claim.Claim, "keep", keep)
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
    found = layer.Unpacked(frozenset(), False, tuple(b"dev/%d" % number for number in range(9)), True)
    assert layer.notes_text(found) == (
        "device nodes are left out, which only root can make: dev/0, dev/1, dev/2, dev/3, ...\n"
    )


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([entry("a/" * 2100 + "f")], "longer than 4096 bytes"),
        ([entry("a" * 4096 + "/f")], "longer than 4096 bytes"),
        ([directory("d/" * 1500), symlink("s", "d/" * 1500), entry("s/" + "e/" * 1500 + "f")], "too deep"),
        ([directory("d/" * 2000), symlink("s", "d/" * 2000), entry("s/" + "e" * 200)], "longer than 4096"),
        ([symlink("s", "t" * 4096)], "leads to no path"),
        ([entry("n", tarfile.CHRTYPE, devmajor=1 << 12)], "no such numbers"),
        ([entry("n", tarfile.BLKTYPE, devminor=1 << 20)], "no such numbers"),
    ],
)
def test_path_bombs_are_refused(tmp_path, entries, said):
    (tmp_path / "diff").mkdir()
    with pytest.raises(StoreError, match=said) as caught:
        unpack(tar(entries), str(tmp_path / "diff"))
    assert len(str(caught.value)) < 9000
    remove_tree(str(tmp_path / "diff"))


def test_number_of_entries_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "ENTRIES_MAX", 10)
    (tmp_path / "diff").mkdir()
    with pytest.raises(StoreError, match="more than 10 entries"):
        unpack(tar([entry("a/b/c/d/e/f/g/h/i/j/k")]), str(tmp_path / "diff"))
    unpack(tar_of({f"{number}": b"" for number in range(10)}), str(tmp_path / "diff"))


# ---- the two forms mean the same ---------------------------------------------------------------


def overlaid(layers: list[Path]) -> dict[str, object]:
    """What overlayfs would show of layers, bottom first: by path, kind and content."""
    return dict(sorted(_merged(list(reversed(layers)), "").items()))


def _merged(layers: list[Path], inside: str) -> dict[str, object]:
    found: dict[str, object] = {}
    names = sorted({name for each in layers for name in os.listdir(each / inside)})
    for name in names:
        path = os.path.join(inside, name)
        parts: list[Path] = []
        for each in layers:
            try:
                status = os.lstat(each / path)
            except FileNotFoundError:
                continue
            if stat.S_ISCHR(status.st_mode):
                break
            if not stat.S_ISDIR(status.st_mode):
                if not parts:
                    found[path] = _node(each / path)
                break
            parts.append(each)
            if "user.overlay.opaque" in os.listxattr(each / path):
                break
        if parts:
            found[path] = "directory"
            found.update(_merged(parts, path))
    return found


def _node(path: Path) -> object:
    return ("symlink", os.readlink(path)) if path.is_symlink() else path.read_bytes()


def tree(place: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in place.rglob("*"):
        is_directory = path.is_dir() and not path.is_symlink()
        found[str(path.relative_to(place))] = "directory" if is_directory else _node(path)
    return dict(sorted(found.items()))


PARTS = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
WHITEOUTS = st.builds(lambda above, name: "/".join([*above, name]), st.lists(PARTS, max_size=2),
                      st.sampled_from([".wh.a", ".wh.b", ".wh.c", ".wh..wh..opq"]))  # fmt: skip
ENTRIES = st.one_of(
    st.builds(lambda name, content: entry(name, content=content), PATHS, st.binary(min_size=1, max_size=2)),
    st.builds(directory, PATHS, st.sampled_from([0o755, 0o711])),
    st.builds(symlink, PATHS, st.sampled_from(["a", "../b", "/a/b", "nowhere"])),
    st.builds(entry, WHITEOUTS),
)
# A name twice in a layer is nothing that a tool makes, and may mean either.
LAYERS = st.lists(st.lists(ENTRIES, max_size=5, unique_by=lambda each: each[0].name), min_size=1, max_size=3)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LAYERS)
def test_applied_layers_are_what_overlayfs_shows(tmp_path, layers):
    remove_tree(str(tmp_path / "root"))
    remove_tree(str(tmp_path / "tree"))
    (tmp_path / "tree").mkdir()
    try:
        paths = unpack_layers(str(tmp_path / "root"), sources_of(tmp_path, *map(tar, layers)))
    except StoreError:
        return
    for each in layers:
        unpack(tar(each), str(tmp_path / "tree"), form="apply")
    assert tree(tmp_path / "tree") == overlaid([Path(path) for path in paths])


def test_applied_directory_loses_the_xattrs_of_the_one_below(tmp_path):
    place = tmp_path / "tree"
    place.mkdir()
    unpack(tar([directory("d", pax_headers={"SCHILY.xattr.user.old": "1", "SCHILY.xattr.user.both": "1"})]), str(place))
    unpack(tar([directory("d", pax_headers={"SCHILY.xattr.user.both": "2"})]), str(place), form="apply")
    assert {name: os.getxattr(place / "d", name) for name in os.listxattr(place / "d")} == {"user.both": b"2"}


def test_hard_links_reach_below_in_a_tree_only(tmp_path, root):
    """overlayfs can't show a link between layers: an image that has one is refused, not shown wrongly."""
    layers = [tar([entry("f", content=b"x")]), tar([hard_link("g", "f")])]
    with pytest.raises(StoreError, match="'f' is not in the layer"):
        unpack_layers(root, sources_of(tmp_path, *layers))


def test_import_of_a_bomb_leaves_the_store_as_it_was(tmp_path, root, monkeypatch):
    monkeypatch.setattr(extract, "ENTRIES_MAX", 10)
    store = ImageStore(root)

    def unpack_here(sources):
        unpack_layers(root, sources)

    with pytest.raises(StoreError, match="more than 10 entries"):
        add_image(store, "app", [tar_of({f"{number}": b"" for number in range(11)})], unpack=unpack_here)
    assert store.names() == ()
    assert os.listdir(f"{root}/layers") == []
