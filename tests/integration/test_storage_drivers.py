"""All storage drivers under one suite: what a container sees, what it costs, what is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from minibox.engine.view import container_view, image_view
from minibox.errors import RegistryError, StoreError
from minibox.image import layer
from minibox.image.importer import add_image
from minibox.image.manifest import layer_descriptors
from minibox.image.store import ImageStore, ResolvedImage
from minibox.linux.images import open_image
from minibox.record import record, replace
from minibox.storage import read_record, snapshotter
from minibox.storage.erofs import make_image
from tests import isolation
from tests.conftest import CHECKOUT, Run
from tests.probes import requires
from tests.storages import loop_files, new_file_system, state_root, unfinished, used_bytes
from tests.unit.layers import directory, entry, hard_link, symlink, tar

if TYPE_CHECKING:
    from minibox.image.layer import LayerSource
    from minibox.storage import Snapshotter

pytestmark = requires("root", "idmap")

RUN = ("run", "--rm", "--network", "none")
KEPT = ("run", "--network", "none", "--name", "kept")
CAPABILITY = b"\x01\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"  # cap_net_bind_service=ep, VFS_CAP_REVISION_2
KIBIBYTE = 1 << 10


@record
class Place:
    """A driver, and a directory on a file system to use it on; ``clones``: a container takes no copy."""

    driver: str
    directory: Path
    clones: bool


PLACES = [
    pytest.param(("overlay", ""), id="overlay"),
    pytest.param(("erofs", ""), id="erofs", marks=requires("command:mkfs.erofs")),
    pytest.param(("btrfs", "btrfs"), id="btrfs", marks=requires("command:mkfs.btrfs")),
    pytest.param(("copy", "xfs"), id="copy-reflink", marks=requires("command:mkfs.xfs")),
    pytest.param(("copy", ""), id="copy"),
]


@pytest.fixture(scope="session", params=PLACES)
def place(request: pytest.FixtureRequest, session_directory: Path) -> Iterator[Place]:
    driver, file_system = request.param
    if not file_system:
        yield Place(driver, session_directory, clones=driver != "copy")
        return
    with new_file_system(file_system, session_directory) as point:
        yield Place(driver, point, clones=True)


@pytest.fixture
def root(place: Place, seed: Path) -> Iterator[Path]:
    with state_root(place.directory, seed) as path:
        yield path


@pytest.fixture
def storage(place: Place, root: Path) -> Snapshotter:
    return snapshotter(str(root), place.driver)


@pytest.fixture
def box(minibox: Run, place: Place, root: Path) -> Run:
    """`minibox` with this driver."""
    environment = {"MINIBOX_ROOT": str(root), "MINIBOX_STORAGE_DRIVER": place.driver}
    return lambda *arguments, **more: minibox(*arguments, **{"env": environment, **more})


def add(root: Path, name: str, *layers: Any) -> ResolvedImage:
    """The image `base` with more layers on top, each a list of entries."""
    store = ImageStore(str(root))
    base = store.resolve("base")
    below: list[Any] = [
        store.layout.blob_path(descriptor["digest"])
        for descriptor, _ in layer_descriptors(store.layout, base.digest, base.config)
    ]
    add_image(store, name, [*below, *(tar(members) for members in layers)], base.config.get("config"))
    return store.resolve(name)


def sparse(name: str, size: int) -> Any:
    """A file that is one hole, as GNU tar writes it."""
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": name, "GNU.sparse.size": str(size),
               "GNU.sparse.realsize": str(size), "GNU.sparse.numblocks": "1", "GNU.sparse.map": f"{size},0"}  # fmt: skip
    return entry(name, pax_headers=headers)


def prepared(storage: Snapshotter, image: ResolvedImage, key: str) -> None:
    storage.unpack(ImageStore(storage.root).layer_sources(image))
    storage.prepare(key, image.chain_ids)


def containers(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("containers/*"))


# ---- what a container sees ----------------------------------------------------------------------


def test_layers_are_merged_as_the_image_means_it(box: Run, root: Path, storage: Snapshotter) -> None:
    image = add(
        root,
        "merged",
        [
            directory("d"), entry("d/old", content=b"1"), directory("d/sub"), entry("gone", content=b"1"),
            directory("replaced"), entry("replaced/old"), directory("implied", 0o700, uid=7), entry("kept", content=b"1", uid=1234, gid=60000, mode=0o640),
            entry("tool", content=b"x", mode=0o755, pax_headers={
                "SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape"),
                "SCHILY.xattr.user.note": "said"}),
        ],
        [
            entry(".wh.gone"), entry("d/.wh..wh..opq"), entry("d/new", content=b"2"), entry(".wh.replaced"),
            entry("replaced", content=b"a file now"), entry("set-uid", content=b"3", mode=0o4755, uid=7),
            hard_link("other", "set-uid"), sparse("hole", 9 << 20), symlink("link", "../../kept"),
            directory("closed", 0o700, uid=7, mtime=12345), entry("closed/in", mtime=99999), entry("implied/in"),
        ],
    )  # fmt: skip
    script = """
ls /d; cat /replaced; test -e /gone || echo no gone
stat -c '%n %a %u:%g %h' /kept /set-uid /other; stat -c '%a %u' /implied; stat -c '%a %u %Y' /closed; readlink /link
[ /set-uid -ef /other ] && echo same
"""
    done = box(*RUN, "merged", "sh", "-c", script)
    assert done.stdout.splitlines() == [
        *("new", "a file nowno gone", "/kept 640 1234:60000 1", "/set-uid 4755 7:0 2", "/other 4755 7:0 2"),
        *("700 7", "700 7 12345", "../../kept", "same"),
    ], done.stderr
    storage.prepare("c", image.chain_ids)
    for view in (image_view(storage, image.chain_ids), container_view(str(root), "c")):
        with view as fd:
            path = f"/proc/self/fd/{fd}"
            assert os.getxattr(f"{path}/tool", "security.capability") == CAPABILITY
            assert os.getxattr(f"{path}/tool", "user.note") == b"said"
            assert os.stat(f"{path}/closed/in").st_mtime == 99999
            assert os.path.samefile(f"{path}/set-uid", f"{path}/other")
            hole = os.stat(f"{path}/hole")
            assert hole.st_size == 9 << 20 and (hole.st_blocks < 64 or storage.driver == "erofs")


def test_the_root_directory_is_the_images(box: Run, root: Path) -> None:
    add(root, "app", [directory("./", 0o555, uid=7)], [entry("upper")])
    done = box(*RUN, "app", "stat", "-c", "%a %u", "/")
    assert done.stdout == "555 7\n", done.stderr
    add(root, "bare", [entry("gone"), directory("bin/gone")], [entry(".wh..wh..opq"), directory("bin"), entry("new")])
    assert box("diff", "bare").stdout.count("D /") and "D /gone\n" in box("diff", "bare").stdout
    done = box(*RUN, "bare", "/bin/ls")
    assert done.returncode == 127 and "/bin/ls" in done.stderr  # hidden with all else


def test_what_is_written_is_the_containers_own(box: Run, root: Path) -> None:
    add(root, "app", [directory("data"), entry("data/a", content=b"1"), entry("data/b", content=b"1")])
    script = "echo 2 > /data/a; rm /data/b; mkdir /data/c; echo new > /data/c/d; cat /data/a; ls /data"
    for _ in range(2):
        done = box(*RUN, "app", "sh", "-c", script)
        assert (done.returncode, done.stdout, done.stderr) == (0, "2\na\nc\n", "")
    assert box(*RUN, "app", "cat", "/data/a", "/data/b").stdout == "11"
    done = box(*RUN, "--read-only", "app", "sh", "-c", "echo 2 > /data/a")
    assert done.returncode == 1 and "Read-only file system" in done.stderr
    assert containers(root) == []


def test_files_keep_the_images_ids_on_disk(box: Run, root: Path, place: Place) -> None:
    add(root, "app", [entry("theirs", uid=7, gid=8)])
    script = "id -u; cat /proc/self/uid_map; touch /mine; chown 5:6 /theirs; stat -c %u:%g /mine /theirs /bin"
    done = box(*KEPT, "app", "sh", "-c", script)
    first, mapping, *owners = done.stdout.splitlines()
    assert first == "0" and mapping.split()[:2] != ["0", "0"], done.stderr
    assert owners == ["0:0", "5:6", "0:0"]
    (key,) = containers(root)
    assert read_record(str(root), key) == (place.driver, ImageStore(str(root)).resolve("app").chain_ids)
    with container_view(str(root), key) as fd:
        found = [os.stat(name, dir_fd=fd) for name in ("mine", "theirs", "bin")]
        assert [(status.st_uid, status.st_gid) for status in found] == [(0, 0), (5, 6), (0, 0)]
    for storage_driver in ("overlay", "copy"):  # whatever the default is
        assert box("--storage-driver", storage_driver, "rm", "kept").returncode in (0, 125)
    assert containers(root) == []


def test_a_user_of_the_image_and_the_hosts_ids(box: Run, root: Path) -> None:
    passwd = b"root:x:0:0::/root:/bin/sh\napp:x:12:34::/srv:/bin/sh\n"
    add(root, "app", [entry("etc/passwd", content=passwd)], [directory("srv", uid=12)])
    done = box(*RUN, "--user", "app", "app", "sh", "-c", "id -u; id -g; echo $HOME; touch /srv/x && ls /srv")
    assert done.stdout.split() == ["12", "34", "/srv", "x"], done.stderr
    done = box(*RUN, "--userns", "host", "app", "sh", "-c", "cat /proc/self/uid_map; touch /new; ls -d /new")
    assert done.stdout.split() == ["0", "0", "4294967295", "/new"], done.stderr


def test_many_layers(box: Run, root: Path) -> None:
    layers = [[entry("top", content=b"%d" % number), entry(f"in-{number}")] for number in range(70)]
    add(root, "deep", *layers)
    done = box(*RUN, "deep", "sh", "-c", "cat /top; ls / | grep -c in-")
    assert done.stdout == "6970\n", done.stderr


def test_a_new_volume_begins_with_the_images_content(box: Run, root: Path) -> None:
    add(root, "app", [directory("srv"), entry("srv/a", content=b"1"), entry("srv/gone")], [entry("srv/.wh.gone")])
    done = box(*RUN, "-v", "data:/srv", "app", "sh", "-c", "ls /srv; cat /srv/a")
    assert done.stdout == "a\n1", done.stderr


def test_devices_and_holes(box: Run, root: Path, storage: Snapshotter) -> None:
    import tarfile

    add(root, "app", [entry("pipe", tarfile.FIFOTYPE), entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3)])
    script = "test -p /pipe && test -c /null && truncate -s 1G /hole && stat -c '%s %b' /hole && cat /hole2 | wc -c"
    done = box(*RUN, "--device", "/dev/null:/dev/mine", "app", "sh", "-c", f"echo x > /dev/mine; : > /hole2; {script}")
    size, blocks, count = done.stdout.split()
    assert (size, count) == (str(1 << 30), "0") and int(blocks) < 100, done.stderr


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
    code = "import sys; from minibox.storage import snapshotter\nsnapshotter(*sys.argv[1:3]).prepare(*sys.argv[3:4], tuple(sys.argv[4:]))"
    counts = []
    for files in (1, 400):
        image = big_image(root, f"of-{files}", files)
        storage.unpack(ImageStore(str(root)).layer_sources(image))
        words = [sys.executable, "-B", "-c", code, str(root), place.driver, f"c{files}", *image.chain_ids]
        done = subprocess.run(
            ["strace", "-qq", "-o", "/dev/stdout", *words], capture_output=True, text=True, check=True, cwd=CHECKOUT
        )
        assert (root / "containers" / f"c{files}").is_dir()
        counts.append(len(done.stdout.splitlines()))
    assert abs(counts[0] - counts[1]) < 40, counts  # an import more or less; 400 files would be 400 calls


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
        deadline = time.monotonic() + 40  # btrfs frees later
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


def test_the_first_containers_of_an_image_start_at_once(box: Run, root: Path, storage: Snapshotter) -> None:
    image = add(root, "app", [entry("a", content=os.urandom(1 << 20))])
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: box(*RUN, "app", "stat", "-c", "%s", "/a"), range(4)))
    assert [each.stdout for each in done] == [f"{1 << 20}\n"] * 4, [each.stderr for each in done]
    assert sorted(storage.layers()) == sorted(image.chain_ids)
    assert not unfinished(root) and containers(root) == []


def test_killed_while_it_unpacks(box: Run, root: Path, minibox_command: list[str], environment: dict[str, str],
                                 place: Place) -> None:  # fmt: skip
    add(root, "large", [entry(f"zeros{number}", content=bytes(8 << 20)) for number in range(4)])
    own = {**environment, "MINIBOX_ROOT": str(root), "MINIBOX_STORAGE_DRIVER": place.driver}
    with subprocess.Popen([*minibox_command, *RUN, "large", "true"], env=own) as process:
        deadline = time.monotonic() + 20
        while not [*root.glob("*/unfinished-*/zeros0"), *root.glob("*/unfinished-*/**/diff/zeros0")]:
            assert time.monotonic() < deadline and process.poll() is None
        process.kill()
    assert unfinished(root)
    done = box(*RUN, "large", "ls", "/zeros3")
    assert (done.returncode, done.stdout) == (0, "/zeros3\n"), done.stderr
    assert not unfinished(root)


def test_a_killed_minibox_leaves_nothing_after_the_next(
    box: Run, root: Path, minibox_command: list[str], environment: dict[str, str], place: Place
) -> None:
    own = {**environment, "MINIBOX_ROOT": str(root), "MINIBOX_STORAGE_DRIVER": place.driver}
    words = [*minibox_command, *RUN, "base", "sh", "-c", "echo x > /new; echo ready; sleep 100"]
    with subprocess.Popen(words, env=own, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    assert len(containers(root)) == 1
    assert box("--storage-driver", "overlay", "ps", "-a", "-q").stdout == ""
    assert containers(root) == []


def test_a_container_is_looked_into_and_removed(box: Run, root: Path, storage: Snapshotter, place: Place) -> None:
    script = "echo x > /new; mkdir -m 0 /closed; rm /etc/hosts; head -c 300000 /dev/urandom > /big"
    assert box(*KEPT, "base", "sh", "-c", script).returncode == 0
    (key,) = containers(root)
    assert 300_000 <= storage.snapshot_bytes(key) < (600_000 if place.clones else 8 << 20)
    with container_view(str(root), key) as fd:
        assert Path(f"/proc/self/fd/{fd}/new").read_text() == "x\n"
        with pytest.raises(OSError, match="Read-only"):
            os.unlink(f"/proc/self/fd/{fd}/new")
    assert box("rm", "kept").returncode == 0
    assert containers(root) == []
    storage.remove(key)


# ---- who may, and where -------------------------------------------------------------------------


def test_an_ordinary_user(minibox_user: Run, user_seed: Path, place: Place) -> None:
    with state_root(place.directory, user_seed, owner=isolation.USER_ID) as root:
        add(root, "app", [entry("theirs", uid=77, mode=0o600), directory("d", 0o700, uid=77), entry("d/x", uid=78)])
        subprocess.run(["chown", "-R", f"{isolation.USER_ID}:{isolation.USER_ID}", str(root)], check=True)
        environment = {"MINIBOX_ROOT": str(root), "MINIBOX_STORAGE_DRIVER": place.driver}
        script = "id -u; stat -c '%u %a' /theirs /d/x; echo x > /new; rm -r /d; ls -d /d /new 2>&1"
        for _ in range(2):
            done = minibox_user(*RUN, "app", "sh", "-c", script, env=environment)
            if place.driver == "erofs":
                assert (done.returncode, done.stdout) == (125, "")
                assert "storage driver erofs: the kernel lets only the host's root mount an EROFS image" in done.stderr
                assert "hint: choose another: --storage-driver overlay" in done.stderr
            else:
                assert done.stdout.splitlines() == [
                    "0",
                    "77 600",
                    "78 644",
                    "ls: /d: No such file or directory",
                    "/new",
                ]
        assert containers(root) == []
        done = minibox_user("image", "prune", "--all", "--force", env=environment)
        assert done.returncode == 0, done.stderr
        assert snapshotter(str(root), place.driver).layers() == []


@requires("command:mkfs.erofs")
def test_an_image_that_the_kernel_cannot_mount_from_its_file(
    seed: Path, session_directory: Path, minibox_command: list[str], environment: dict[str, str]
) -> None:
    """As all before Linux 6.12, and on every kernel those on tmpfs, whose pages EROFS can't read by itself."""
    with new_file_system("tmpfs", session_directory) as point, state_root(point, seed) as root:
        own = {"MINIBOX_ROOT": str(root), "MINIBOX_STORAGE_DRIVER": "erofs"}
        for options in (RUN, (*RUN, "--userns", "host"), (*RUN, "-v", "data:/etc")):
            with subprocess.Popen(
                [*minibox_command, *options, "-i", "base", "sh", "-c", "ls /etc/passwd; read line"],
                env={**environment, **own}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            ) as process:  # fmt: skip
                assert process.stdout and process.stdout.readline() == "/etc/passwd\n"
                assert any(str(root / "erofs").endswith(path) for path in loop_files()), loop_files()
                process.communicate("\n", timeout=20)
        deadline = time.monotonic() + 5
        while any(str(root / "erofs").endswith(path) for path in loop_files()):
            assert time.monotonic() < deadline


@requires("command:mkfs.erofs")
def test_the_same_layer_is_the_same_image(tmp_path: Path) -> None:
    (tmp_path / "tree/d").mkdir(parents=True)
    (tmp_path / "tree/d/f").write_text("x")
    os.utime(tmp_path / "tree/d/f", (1234567890.5, 1234567890.5))
    images = [tmp_path / "1", tmp_path / "2"]
    for image in images:
        make_image(str(tmp_path / "tree"), str(image))
        time.sleep(1.1)  # images have the seconds of their making
    assert images[0].read_bytes() == images[1].read_bytes()
    fd = open_image(str(images[0]))
    try:
        assert os.stat("d/f", dir_fd=fd).st_mtime == 1234567890.5
    finally:
        os.close(fd)


def test_a_driver_that_cannot_work_says_why(minibox: Run, state: Path) -> None:
    def said(driver: str) -> str:
        done = minibox("--storage-driver", driver, *RUN, "base", "true")
        assert done.returncode == 125 and not unfinished(state / "root")
        return str(done.stderr)

    text = said("btrfs")
    assert f"minibox: use the storage driver btrfs: {state}/root is on " in text
    assert "hint: set --root to a directory on btrfs, or choose another: --storage-driver overlay\n" in text
    program = shutil.which("mkfs.erofs", path="/usr/bin:/bin:/usr/sbin:/sbin")
    if program:
        subprocess.run(["mount", "--bind", "/dev/null", program], check=True)
    try:
        text = said("erofs")
    finally:
        if program:
            subprocess.run(["umount", program], check=True)
    assert "storage driver erofs: make an EROFS image: there is no mkfs.erofs (apt-get install erofs-utils)" in text
    doctor = minibox("doctor").stdout
    assert re.search(r"storage drivers +overlay, copy \(by", doctor) and "not btrfs" in doctor, doctor
    text = said("zfs")
    assert text == "minibox: unknown storage driver 'zfs'\nhint: one of overlay, btrfs, erofs, copy\n"
    assert containers(state / "root") == []


@requires("command:mkfs.erofs")
def test_drivers_are_used_side_by_side(minibox: Run, state: Path, tmp_path: Path) -> None:
    """By option, variable and configuration file, in this order."""
    root = state / "root"
    (tmp_path / "config.toml").write_text('[storage]\ndriver = "copy"\n')
    file = {"MINIBOX_CONFIG": str(tmp_path / "config.toml")}
    runs: tuple[tuple[str, tuple[str, ...], dict[str, str]], ...] = (
        ("overlay", (), {}),
        ("copy", (), file),
        ("erofs", (), {**file, "MINIBOX_STORAGE_DRIVER": "erofs"}),
        ("overlay", ("--storage-driver=overlay",), {**file, "MINIBOX_STORAGE_DRIVER": "erofs"}),
        ("copy", ("--storage-driver", "copy"), {}),
    )
    for number, (driver, words, env) in enumerate(runs):
        name = f"{driver}-{number}"
        done = minibox(*words, "run", "--network", "none", "--name", name, "base", "touch", "/new", env=env)
        assert done.returncode == 0, done.stderr
    records = [read_record(str(root), key) for key in containers(root)]
    assert sorted(record[0] for record in records if record) == sorted(driver for driver, *_ in runs)
    for number, (driver, *_) in enumerate(runs):
        assert minibox("rm", f"{driver}-{number}").returncode == 0
    assert containers(root) == []


# ---- the Plan tells the truth -------------------------------------------------------------------

SIMPLE = ("--network", "none", "--userns", "host", "--rm")


def test_explain_shows_what_run_does(box: Run, place: Place) -> None:
    for options in (("--rm", "--network", "none"), SIMPLE):
        steps = json.loads(box("explain", "--json", "run", *options, "base", "true").stdout)
        names = [step["operation"] for step in steps]
        done = box("run", "--trace", *options, "base", "true")
        traced = [words[2:4] for line in done.stderr.splitlines() if (words := line.split()) and words[0].isdigit()]
        assert traced == [[step["actor"], step["does"].split()[0]] for step in steps]
        has = {"overlay": {"mount_overlay"}, "erofs": {"open_image", "mount_overlay"}}.get(place.driver, set())
        assert {"mount_overlay", "open_image"} & set(names) == has


def test_the_script_starts_the_same_container(box: Run, root: Path, environment: dict[str, str], place: Place) -> None:
    report = "awk '{print $5, $6, $(NF-2)}' /proc/self/mountinfo; ls /; touch /new; stat -c %u:%g /new /bin; exit 7"
    printed = box("explain", "--shell", "run", *SIMPLE, "base", "sh", "-c", report)
    if place.driver == "erofs":
        assert printed.returncode == 125 and "no --storage-driver erofs" in printed.stderr
        return
    assert printed.returncode == 0, printed.stderr
    script = root / "start.sh"
    script.write_text(printed.stdout)
    by_hand = subprocess.run(["sh", str(script)], env=environment, capture_output=True, text=True, check=False,
                             stdin=subprocess.DEVNULL)  # fmt: skip
    ours = box("run", *SIMPLE, "base", "sh", "-c", report)
    assert (by_hand.returncode, ours.returncode) == (7, 7), by_hand.stderr + ours.stderr
    assert sorted(by_hand.stdout.splitlines()) == sorted(ours.stdout.splitlines())
    assert containers(root) == []
