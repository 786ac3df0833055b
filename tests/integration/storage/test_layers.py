"""Layers by all storage drivers: what they cost, when they come, and what is left of one that was damaged or killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from minibox.engine.files.tree import Directories, Tree
from minibox.engine.files.writable_rootfs import writable_root
from minibox.errors import RegistryError, StoreError
from minibox.image.layer import unpack as layer
from minibox.image.layout.image import ResolvedImage
from minibox.image.store import ImageStore
from minibox.record import replace
from tests.conftest import CHECKOUT, Run
from tests.leaks import SLOWNESS
from tests.probes import requires
from tests.storage_places import Place, add, containers, prepared, unfinished, used_bytes
from tests.unit.layers import directory, entry

if TYPE_CHECKING:
    from minibox.image.layer.unpack import LayerSource
    from minibox.storage.drivers import Snapshotter

pytestmark = requires("root", "idmap")

RUN = ("run", "--rm", "--network", "none")
KEPT = ("run", "--network", "none", "--name", "kept")
KIBIBYTE = 1 << 10


# ---- what it costs ------------------------------------------------------------------------------


def big_image(root: Path, name: str, files: int) -> ResolvedImage:
    members = [entry(f"f{number}", content=os.urandom(2 * KIBIBYTE)) for number in range(files)]
    return add(root, name, [*members, entry("big", content=os.urandom(4 << 20))])


def test_a_second_container_costs_no_copy(place: Place, root: Path, storage: Snapshotter) -> None:
    if not place.clones:
        pytest.skip("this file system copies")
    image = big_image(root, "big", 100)
    prepared(storage, image, "first")
    containers_before, used = 0, []
    for count in (8, 40):
        for number in range(containers_before, count):
            storage.prepare(f"c{number}", image.chain_ids)
            assert storage.snapshot_bytes(f"c{number}") <= 64 * KIBIBYTE
        containers_before = count
        used.append(used_bytes(root))
    if place.directory.is_mount():  # nobody else writes there
        limit = 64 if place.driver != "copy" else 512  # an inode a file, but no block
        assert (used[1] - used[0]) / 32 < limit * KIBIBYTE
    else:
        du = subprocess.run(["du", "-s", "-k", str(root / "containers/c0")], capture_output=True, text=True, check=True)
        assert int(du.stdout.split()[0]) <= 64


@requires("command:strace")
def test_a_container_takes_the_same_steps_whatever_the_image_holds(
    place: Place, root: Path, storage: Snapshotter
) -> None:
    if place.driver == "copy":
        pytest.skip("a file at a time, with or without its blocks")
    code = "import sys; from minibox.storage.drivers import snapshotter\nsnapshotter(*sys.argv[1:3]).prepare(*sys.argv[3:4], tuple(sys.argv[4:]))"
    counts = []
    for files in (2, 1, 400):  # the first one makes directories that the others find
        image = big_image(root, f"of-{files}", files)
        storage.unpack(ImageStore(str(root)).layer_sources(image))
        words = [sys.executable, "-B", "-c", code, str(root), place.driver, f"c{files}", *image.chain_ids]
        done = subprocess.run(
            ["strace", "-qq", "-o", "/dev/stdout", *words], capture_output=True, text=True, check=True, cwd=CHECKOUT
        )
        assert (root / "containers" / f"c{files}").is_dir()
        counts.append(len(done.stdout.splitlines()))
    assert abs(counts[1] - counts[2]) < 40, counts  # an import more or less; 400 files would be 400 calls


def test_layers_are_shared_measured_and_removed(place: Place, root: Path, storage: Snapshotter) -> None:
    one, two = big_image(root, "one", 10), add(root, "two", [entry("small", content=b"1")])
    store = ImageStore(str(root))
    assert storage.layers() == []
    for image in (one, two, one):
        storage.unpack(store.layer_sources(image))
    assert sorted(storage.layers()) == sorted({*one.chain_ids, *two.chain_ids})
    assert storage.layer_bytes(one.chain_ids[-1]) >= 4 << 20
    assert storage.layer_bytes(one.chain_ids[0]) >= 1 << 20, "what others stand on counts once"
    assert storage.layer_bytes(two.chain_ids[-1]) < 200 * KIBIBYTE, "what is below counts too"
    own = place.directory.is_mount()  # nobody else writes there
    before = used_bytes(root) if own else 0
    storage.remove_layer(one.chain_ids[-1])
    assert storage.layers() and not storage.is_unpacked(one.chain_ids) and storage.is_unpacked(two.chain_ids)
    assert storage.layer_bytes(one.chain_ids[-1]) == 0
    if own:
        deadline = time.monotonic() + 60 * SLOWNESS  # btrfs frees later
        while before - used_bytes(root) < 4 << 20:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    for chain_id in storage.layers():
        storage.remove_layer(chain_id)
    assert storage.layers() == []


# ---- layers that are still being downloaded -----------------------------------------------------


def coming(root: Path, image: ResolvedImage) -> tuple[list[LayerSource], list[Future[bool]]]:
    blobs: list[Future[bool]] = [Future() for _ in image.chain_ids]
    sources = ImageStore(str(root)).layer_sources(image)
    return [replace(source, coming=blob) for source, blob in zip(sources, blobs, strict=True)], blobs


def test_each_layer_is_made_when_it_has_come(root: Path, storage: Snapshotter) -> None:
    sources, blobs = coming(root, add(root, "app", [directory("d", 0o700)], [entry("d/a")], [entry("d/b")]))
    made: list[str] = []

    def bring_next(chain_id: str) -> None:
        made.append(chain_id)
        assert storage.layers() and len(storage.layers()) == len(made)
        if len(made) < len(blobs):
            blobs[len(made)].set_result(True)

    blobs[0].set_result(True)
    storage.unpack(sources, bring_next)
    assert made == [source.chain_id for source in sources] and not unfinished(root)


def test_a_layer_that_does_not_come_is_told_at_once(root: Path, storage: Snapshotter) -> None:
    """Though one below it may still come."""
    sources, blobs = coming(root, add(root, "app", [entry("a")], [entry("b")]))

    def fail(_: str) -> None:
        blobs[2].set_exception(RegistryError("it broke off"))

    blobs[0].set_result(True)
    with pytest.raises(RegistryError, match="it broke off"):
        storage.unpack(sources, fail)
    assert storage.layers() == [sources[0].chain_id] and not unfinished(root)


def test_layers_of_their_own_are_unpacked_side_by_side(
    root: Path, storage: Snapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    if storage.driver not in ("overlay", "erofs"):
        pytest.skip("each layer is made of the one below")
    image = add(root, "app", [entry("a")])
    both, unpack = Barrier(2), layer.unpack

    def unpack_both(*arguments: Any, **options: Any) -> Any:
        both.wait(30)
        return unpack(*arguments, **options)

    monkeypatch.setattr(layer, "unpack", unpack_both)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    storage.unpack(ImageStore(str(root)).layer_sources(image))
    assert storage.is_unpacked(image.chain_ids)


# ---- what is left -------------------------------------------------------------------------------


def test_a_damaged_layer_leaves_nothing(root: Path, storage: Snapshotter) -> None:
    image = add(root, "app", [entry("a", content=os.urandom(1 << 20))])
    store = ImageStore(str(root))
    source = store.layer_sources(image)[-1]
    content = Path(source.blob_path).read_bytes()
    Path(source.blob_path).write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError):
        storage.unpack(store.layer_sources(image))
    assert storage.layers() == [image.chain_ids[0]]
    assert not unfinished(root)
    Path(source.blob_path).write_bytes(content)
    storage.unpack(store.layer_sources(image))
    assert storage.is_unpacked(image.chain_ids)


def test_the_first_containers_of_an_image_start_at_once(minibox_here: Run, root: Path, storage: Snapshotter) -> None:
    image = add(root, "app", [entry("a", content=os.urandom(1 << 20))])
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: minibox_here(*RUN, "app", "stat", "-c", "%s", "/a"), range(4)))
    assert [each.stdout for each in done] == [f"{1 << 20}\n"] * 4, [each.stderr for each in done]
    assert sorted(storage.layers()) == sorted(image.chain_ids)
    assert not unfinished(root) and containers(root) == []


def test_killed_while_it_unpacks(minibox_here: Run, root: Path, minibox_command: list[str], environment: dict[str, str],
                                 place: Place) -> None:  # fmt: skip
    """It runs when nobody else wants the processor, so that it is seen long before its end."""
    add(root, "large", [entry(f"zeros{number}", content=bytes(2 << 20)) for number in range(16)])
    own = {**environment, "MINIBOX_ROOT": str(root), "MINIBOX_STORAGE_DRIVER": place.driver}
    with subprocess.Popen([*minibox_command, *RUN, "large", "true"], env=own) as process:
        os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
        deadline = time.monotonic() + 60 * SLOWNESS
        while not any("zeros0" in files for _, _, files in os.walk(root)):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert unfinished(root)
    done = minibox_here(*RUN, "large", "ls", "/zeros15")
    assert (done.returncode, done.stdout) == (0, "/zeros15\n"), done.stderr
    assert not unfinished(root)


def test_a_killed_minibox_leaves_nothing_after_the_next(
    minibox_here: Run, root: Path, minibox_command: list[str], environment: dict[str, str], place: Place
) -> None:
    own = {**environment, "MINIBOX_ROOT": str(root), "MINIBOX_STORAGE_DRIVER": place.driver}
    words = [*minibox_command, *RUN, "base", "sh", "-c", "echo x > /new; echo ready; sleep 100"]
    with subprocess.Popen(words, env=own, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    assert len(containers(root)) == 1
    assert minibox_here("--storage-driver", "overlay", "ps", "-a", "-q").stdout == ""
    assert containers(root) == []


def test_a_container_is_looked_into_and_removed(
    minibox_here: Run, root: Path, storage: Snapshotter, place: Place
) -> None:
    script = "echo x > /new; mkdir -m 0 /closed; rm /etc/hosts; head -c 300000 /dev/urandom > /big"
    assert minibox_here(*KEPT, "base", "sh", "-c", script).returncode == 0
    (key,) = containers(root)
    assert 300_000 <= storage.snapshot_bytes(key) < (600_000 if place.clones else 8 << 20)
    with writable_root(str(root), key, (), read_only=True) as fd:
        assert Path(f"/proc/self/fd/{fd}/new").read_text() == "x\n"
        with pytest.raises(OSError, match="Read-only"):
            os.unlink(f"/proc/self/fd/{fd}/new")
    assert minibox_here("rm", "kept").returncode == 0
    assert containers(root) == []
    storage.remove(key)


# ---- made of a container --------------------------------------------------------------------------


def test_a_container_is_committed(root: Path, storage: Snapshotter, place: Place) -> None:
    image = add(root, "app", [entry("kept", content=b"1"), entry("gone", content=b"1")])
    prepared(storage, image, "c")
    upper = Path(storage.describe("c", image.chain_ids).upper)
    (upper / "new").write_text("written")
    os.chown(upper / "new", 7, 8)
    if place.driver in ("overlay", "erofs"):
        os.mknod(upper / "gone", stat.S_IFCHR, 0)  # overlayfs's whiteout
    else:
        (upper / "gone").unlink()
    chain_id = f"sha256:{'c' * 64}"
    (root / "snapshots" / "work").mkdir(parents=True)
    storage.commit("c", chain_id, str(root / "snapshots" / "work"))
    (upper / "new").write_text("written later")
    chain_ids = (*image.chain_ids, chain_id)
    assert chain_id in storage.layers() and storage.is_unpacked(chain_ids)
    with Directories(str(root)) as directories, directories.stack(Tree(storage.driver, chain_ids)) as stack:
        assert sorted({*stack.root.children()} & {"kept", "gone", "new"}) == ["kept", "new"]
        new = stack.find("new")
        assert new is not None
        with new, open(new.open(os.O_RDONLY)) as file:
            assert file.read() == "written"
            assert (new.status.st_uid, new.status.st_gid) == (7, 8)
    if place.driver == "btrfs":
        with pytest.raises(OSError, match="Read-only"):
            (Path(storage.describe("none", chain_ids).lowers[0]) / "x").touch()
    storage.prepare("on-it", chain_ids)
    for key in ("on-it", "c"):
        storage.remove(key)
    storage.remove_layer(chain_id)
    assert chain_id not in storage.layers()
