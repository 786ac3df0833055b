"""For tests of storage drivers: each driver on a file system that suits it, state roots there, and images."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from minibox.image.archive.importer import add_image
from minibox.image.layout.image import ResolvedImage
from minibox.image.layout.manifest import layer_descriptors
from minibox.image.store import ImageStore
from minibox.linux.removal import remove_tree
from minibox.record import record
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import DRIVERS
from tests.conftest import Run
from tests.probes import requires
from tests.unit.layers import entry, tar

if TYPE_CHECKING:
    from minibox.storage.drivers import Snapshotter

MEBIBYTE = 1 << 20
# Close to the least that mkfs accepts; the files are sparse.
SIZES = {"btrfs": 256 * MEBIBYTE, "xfs": 300 * MEBIBYTE, "ext4": 64 * MEBIBYTE}
OPTIONS = {
    "btrfs": "loop,commit=1",  # what is removed from btrfs is freed by a later commit
    "xfs": "loop",
    "ext4": "loop,commit=900",  # nothing gets to the disk by itself meanwhile
}


@contextmanager
def new_file_system(kind: str, directory: Path) -> Iterator[Path]:
    """A file system of that kind, mounted in this mount namespace, for as long as the block runs: tmpfs, or on a file."""
    point = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=directory))
    image = point.with_name(f"{point.name}.image")
    if kind in SIZES:
        with open(image, "wb") as file:
            file.truncate(SIZES[kind])
        subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, stdout=subprocess.DEVNULL, env=_with_sbin())
        subprocess.run(["mount", "-o", OPTIONS[kind], str(image), str(point)], check=True)
    else:
        subprocess.run(["mount", "-t", kind, kind, str(point)], check=True)
    try:
        os.chmod(point, 0o755)
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)
        image.unlink(missing_ok=True)
        point.rmdir()


@contextmanager
def state_root(place: Path, seed: Path, owner: int | None = None) -> Iterator[Path]:
    """A state root in ``place`` with the images of ``seed``, and no layers; removed by the drivers themselves."""
    root = Path(tempfile.mkdtemp(dir=place))
    subprocess.run(["cp", "-a", str(seed / "images"), str(root)], check=True)
    if owner is not None:
        subprocess.run(["chown", "-R", f"{owner}:{owner}", str(root)], check=True)
    try:
        yield root
    finally:
        for driver in DRIVERS:
            storage = snapshotter(str(root), driver)
            for chain_id in storage.layers():
                storage.remove_layer(chain_id)
        remove_tree(str(root))


def used_bytes(path: Path) -> int:
    """What is used of the file system, when all is written."""
    subprocess.run(["sync", "--file-system", str(path)], check=True)
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _with_sbin() -> dict[str, str]:
    return {**os.environ, "PATH": os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"}


def unfinished(root: Path) -> list[Path]:
    """Layers that are being made, or were when somebody was killed."""
    found = []
    for place in ("layers", "erofs", "btrfs", "copy"):
        with suppress(FileNotFoundError):
            found += [root / place / name for name in os.listdir(root / place) if name.startswith("unfinished-")]
    return found


def loop_files() -> list[str]:
    """Directories of the files that loop devices show, as seen from the file system's own root."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            found.append(os.path.dirname(path.read_text().strip()))
    return [path for path in found if path.strip("/")]


# ---- each driver, on a file system ---------------------------------------------------------------


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
def minibox_here(minibox: Run, place: Place, root: Path) -> Run:
    """`minibox` with this driver."""
    environment = {"MINIBOX_ROOT": str(root), "MINIBOX_STORAGE_DRIVER": place.driver}
    return lambda *arguments, **more: minibox(*arguments, **{"env": environment, **more})


# ---- images and containers -----------------------------------------------------------------------


def add(root: Path, name: str, *layers: Any) -> ResolvedImage:
    """The image `base` with more layers on top, each a list of entries."""
    store = ImageStore(str(root))
    base = store.resolve("base")
    below: list[Any] = [
        store.layout.blob_path(descriptor["digest"])
        for descriptor, _ in layer_descriptors(store.layout, base.digest, base.config)
    ]
    add_image(store.layout, name, [*below, *(tar(members) for members in layers)], base.config.get("config"))
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
