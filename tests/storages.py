"""File systems made for tests, and state roots on them, for tests of storage drivers."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minibox.storage import DRIVERS, snapshotter
from minibox.storage.removal import remove_tree

MEBIBYTE = 1 << 20
# Close to the least that mkfs accepts; the files are sparse.
SIZES = {"btrfs": 256 * MEBIBYTE, "xfs": 300 * MEBIBYTE}
OPTIONS = {"btrfs": "loop,commit=1", "xfs": "loop"}  # what is removed from btrfs is freed by a later commit


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
