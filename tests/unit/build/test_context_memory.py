"""A file is read again only if stat(2) says that something has changed, and never overlooked if it has."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from minibox.build.context import fingerprint, memory
from minibox.build.context.context import Context
from minibox.build.context.memory import COARSE_GRAIN_NS, Memory, clock_ns, is_settled
from minibox.linux.listing import RECORD, record_of


@pytest.fixture
def reads(monkeypatch):
    """The paths that are read."""
    found = []
    read, read_small = fingerprint.Reader.read, fingerprint.Reader.read_small

    def noting(reader, path, record):
        found.append(path)
        return read(reader, path, record)

    def noting_small(reader, directory, names):
        found.extend(f"{directory}/{name}" if directory else name for name in names)
        return read_small(reader, directory, names)

    monkeypatch.setattr(fingerprint.Reader, "read", noting)
    monkeypatch.setattr(fingerprint.Reader, "read_small", noting_small)
    return found


def digest(tree: Path, place: Path, *sources: str) -> str:
    with Context(str(tree), memory=str(place)) as context:
        return context.select(sources or ["."]).digest


def wait_until_settled(tree: Path) -> None:
    """Wait until the newest change is older than the clock's grain."""
    newest = max(record_of(os.lstat(path)) for path in (tree, *tree.rglob("*")))
    paths = [tree, *tree.rglob("*")]
    while not all(is_settled(record_of(os.lstat(path)), clock_ns()) for path in paths):
        time.sleep(0.01)
    assert newest


def test_a_thousand_files_that_change_right_after_a_build_without_a_trace_in_size_and_mtime(tmp_path):
    tree, place = tmp_path / "context", tmp_path / "memory"
    tree.mkdir()
    files = [tree / f"{number}" for number in range(1000)]
    for each in files:
        each.write_text("before")
    seen = {digest(tree, place)}
    for each in files:
        status = each.stat()
        with each.open("r+") as file:
            file.write("AFTER!")
        os.utime(each, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert each.stat().st_mtime_ns == status.st_mtime_ns
    seen.add(digest(tree, place))
    assert len(seen) == 2
    with Context(str(tree)) as context:
        assert context.select(["."]).digest in seen
    # And one by one, each right after a build.
    for number in range(20):
        status = files[number].stat()
        files[number].write_text(f"{number:06d}")
        os.utime(files[number], ns=(status.st_atime_ns, status.st_mtime_ns))
        seen.add(digest(tree, place))
        assert len(seen) == 3 + number


def test_what_is_settled_is_read_once(tmp_path, reads):
    tree, place = tmp_path / "context", tmp_path / "memory"
    (tree / "d").mkdir(parents=True)
    for name in ("a", "b", "d/c"):
        (tree / name).write_text(name)
    (tree / "link").symlink_to("a")
    wait_until_settled(tree)
    first = digest(tree, place)
    assert sorted(reads) == ["", "a", "b", "d", "d/c", "link"]
    reads.clear()
    assert digest(tree, place) == first
    assert reads == []
    (tree / "b").write_text("x")
    assert digest(tree, place) != first
    assert reads == ["b"]


def test_what_is_not_settled_is_read_again_until_it_is(tmp_path, reads):
    tree, place = tmp_path / "context", tmp_path / "memory"
    tree.mkdir()
    (tree / "a").write_text("a")
    os.utime(tree / "a", (1, 1))
    record = record_of(os.stat(tree / "a"))
    kept = Memory(str(place))
    kept.put(record, b"f" * fingerprint.FINGERPRINT.size, read_ns=record_of_change(record) + 1)
    kept.save()
    assert Memory(str(place)).get(record) is None
    kept.put(record, b"f" * fingerprint.FINGERPRINT.size, read_ns=record_of_change(record) + COARSE_GRAIN_NS + 1)
    kept.save()
    assert Memory(str(place)).get(record) == b"f" * fingerprint.FINGERPRINT.size


def record_of_change(record: bytes) -> int:
    return RECORD.unpack(record)[4]


@pytest.mark.parametrize(
    "device, changed_ns, read_ns, settled",
    [
        (os.makedev(8, 1), 5_000_000_001, 5_000_000_001 + memory.GRAIN_NS + 1, True),
        (os.makedev(8, 1), 5_000_000_001, 5_000_000_001 + memory.GRAIN_NS, False),
        (os.makedev(8, 1), 5_000_000_001, 5_000_000_001, False),
        (os.makedev(8, 1), 5_000_000_001, 4_000_000_000, False),  # the clock was set back
        (os.makedev(8, 1), 5_000_000_000, 5_900_000_000, False),  # the file system counts whole seconds
        (os.makedev(8, 1), 5_000_000_000, 7_000_000_001, True),
        (os.makedev(0, 44), 5_000_000_001, 5_900_000_000, False),  # a network file system has another's clock
        (os.makedev(0, 44), 5_000_000_001, 7_000_000_002, True),
    ],
)
def test_when_a_change_would_be_seen(device, changed_ns, read_ns, settled):
    assert is_settled(RECORD.pack(device, 1, 1, 1, changed_ns, 0, 0, 0, 1, 0), read_ns) is settled


@pytest.mark.parametrize("change", ["content", "mode", "rename", "replace", "link"])
def test_every_change_is_seen(tmp_path, change):
    tree, place = tmp_path / "context", tmp_path / "memory"
    tree.mkdir()
    for name in ("a", "b"):
        (tree / name).write_text(name)
    (tree / "link").symlink_to("a")
    wait_until_settled(tree)
    before = digest(tree, place)
    status = (tree / "a").stat()
    if change == "content":
        (tree / "a").write_text("x")
    elif change == "mode":
        (tree / "a").chmod(0o600)
    elif change == "rename":
        (tree / "a").rename(tree / "c")
        (tree / "b").rename(tree / "a")
        (tree / "c").rename(tree / "b")
    elif change == "replace":
        (tree / "new").write_text("x")
        (tree / "new").rename(tree / "a")
    else:
        (tree / "link").unlink()
        (tree / "link").symlink_to("b")
    os.utime(tree / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest(tree, place) != before


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "directory", "fifo"])
def test_a_damaged_memory_counts_as_none(tmp_path, damage):
    tree, place = tmp_path / "context", tmp_path / "memory"
    tree.mkdir()
    for name in ("a", "b"):
        (tree / name).write_text(name)
    wait_until_settled(tree)
    before = digest(tree, place)
    data = place.read_bytes()
    assert len(data) > 300
    if damage == "cut":
        place.write_bytes(data[:-100])
    elif damage == "flip":
        place.write_bytes(data[:150] + bytes([data[150] ^ 1]) + data[151:])
    elif damage == "empty":
        place.write_bytes(b"")
    else:
        place.unlink()
        place.mkdir() if damage == "directory" else os.mkfifo(place)
    assert digest(tree, place) == before


def test_the_memory_does_not_grow_with_what_is_gone(tmp_path):
    tree, place = tmp_path / "context", tmp_path / "memory"
    tree.mkdir()
    sizes = []
    for number in range(4):
        for each in range(600):
            (tree / f"{each}").write_text(f"{number}")
        wait_until_settled(tree)
        digest(tree, place)
        sizes.append(place.stat().st_size)
    assert sizes[-1] <= sizes[1] + 100 * memory.ENTRY.size


def test_another_dockerfile_of_the_same_context_keeps_what_is_known(tmp_path, reads):
    tree, place = tmp_path / "context", tmp_path / "memory"
    tree.mkdir()
    for name in ("a", "b"):
        (tree / name).write_text(name)
    wait_until_settled(tree)
    digest(tree, place, "a")
    digest(tree, place, "b")
    reads.clear()
    digest(tree, place, "a", "b")
    assert reads == []
