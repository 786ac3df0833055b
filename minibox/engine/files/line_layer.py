"""Make a layer of what a line of a Dockerfile has written: its container's own files become the layer by a rename.

Nothing is copied, packed or hashed. Mount points that the start made because the image lacked them are removed first, so
that the layer has only what the line itself wrote.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK

from minibox.engine.files.tree import MOUNT_POINTS, Directories, Tree
from minibox.engine.host.user_namespace import run_inside
from minibox.errors import MiniboxError, StoreError, kernel_says
from minibox.image.layer.changes import changes
from minibox.image.layer.mount_points import absent
from minibox.image.layer.pack import LayerWriter
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import keep_layer, release_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from minibox.image.layer.compression import Writable
    from minibox.image.layer.stack import Stack
    from minibox.image.layout.layout import Layout


def take(
    root: str,
    driver: str,
    container_id: str,
    chain_ids: tuple[str, ...],
    layer: str,
    *,
    made: Iterable[str] = (),
    newest_s: int | None = None,
) -> bool:
    """Make ``layer`` of what a container has written; tell whether it has written anything. Otherwise there is none.

    All its processes must have ended. Afterwards its root file system can only be removed.

    Args:
        chain_ids: the layers that it is based on.
        layer: ``sha256:<hex>``, by which the layer is kept (`storage.snapshot.keep_layer`).
        made: mount points that its start may have made, besides the usual ones.
        newest_s: files get this time if they are newer, in seconds since 1970; None leaves times alone.

    Raises:
        MiniboxError: the disk is full, or a file can't be read.
    """
    points = tuple(sorted({*MOUNT_POINTS, *made}, reverse=True))

    def work() -> bool:
        with Directories(root) as directories:
            with directories.stack(Tree(driver, chain_ids)) as below:
                own = snapshotter(root, driver).describe(container_id, chain_ids).upper
                _remove_mount_points(own, below, absent(below, points), points)
                with directories.stack(Tree(driver, chain_ids, container_id)) as now:
                    if next(changes(below, now, descends=True), None) is None:
                        return False
            if newest_s is not None:
                _limit_times(own, newest_s)
        keep_layer(root, driver, layer)
        snapshotter(root, driver).adopt(container_id, layer)
        return True

    try:
        return run_inside(work)
    except OSError as error:
        release_layer(root, driver, layer)
        where = f" ({os.fsdecode(error.filename)!r})" if error.filename else ""
        raise MiniboxError(f"keep what the line has written{where}: {kernel_says(error)}") from error


class _Checked:
    """A file to write, and a check before each write."""

    def __init__(self, file: Writable, check: Callable[[], None]) -> None:
        self._file, self._check = file, check

    def write(self, data: bytes, /) -> object:
        self._check()
        return self._file.write(data)


def pack(
    root: str, driver: str, chain_ids: tuple[str, ...], layout: Layout, check: Callable[[], None] = lambda: None
) -> tuple[str, int, int]:
    """Pack the topmost layer of ``chain_ids`` into a blob, uncompressed. Call it inside `Layout.adding`.

    Args:
        check: called again and again meanwhile, in a child process if that reads the files; it may raise to end it.

    Returns:
        Its diff ID, which is also the blob's digest, the blob's size, and that of the files in it.

    Raises:
        MiniboxError: the disk is full, or a file can't be read.
    """

    def work() -> tuple[str, int, int]:
        with Directories(root) as directories:
            with (
                directories.stack(Tree(driver, chain_ids[:-1])) as below,
                directories.stack(Tree(driver, chain_ids)) as now,
                layout.new_blob() as blob,
            ):
                writer = LayerWriter(_Checked(blob, check), settled=True)
                try:
                    writer.add_changes(changes(below, now, descends=True, into_new=False))
                except OSError as error:
                    if error.filename:  # not an error of the blob
                        raise StoreError(f"read {os.fsdecode(error.filename)}: {kernel_says(error)}") from error
                    raise
                diff_id, size = writer.close()
                layout.keep_blob(blob, diff_id, sync=False)
        return diff_id, size, writer.files_bytes

    return run_inside(work)


def _remove_mount_points(own: str, below: Stack, missing: frozenset[str], points: tuple[str, ...]) -> None:
    """Remove the mount points that the layers below lack, and directories that have nothing else of the line's own."""
    for point in points:  # deepest first
        if point not in missing or not _is_empty(own + point):
            continue
        status = os.lstat(own + point)
        (os.rmdir if S_ISDIR(status.st_mode) else os.unlink)(own + point)
        parent = os.path.dirname(point)
        while parent != "/" and not _remove_unchanged(own + parent, below, parent):
            parent = os.path.dirname(parent)
            break


def _is_empty(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return not os.listdir(path) if S_ISDIR(status.st_mode) else status.st_size == 0 and not S_ISLNK(status.st_mode)


def _remove_unchanged(path: str, below: Stack, name: str) -> bool:
    """Remove an empty directory that overlayfs copied up, or that a start made; tell whether it did."""
    if os.listdir(path):
        return False
    status = os.lstat(path)
    node = below.find(name, follow=False)
    if node is None:
        os.rmdir(path)
        return True
    with node:
        same = node.is_directory and node.status.st_mode == status.st_mode
        if not same or node.owner != (status.st_uid, status.st_gid):
            return False
    os.rmdir(path)
    return True


def _limit_times(top: str, newest_s: int) -> None:
    limit_ns = newest_s * 1_000_000_000
    for directory, _, files in os.walk(top, topdown=False):
        for name in (*files, ""):
            path = f"{directory}/{name}" if name else directory
            status = os.lstat(path)
            if status.st_mtime_ns > limit_ns:
                os.utime(path, ns=(status.st_atime_ns, limit_ns), follow_symlinks=False)
