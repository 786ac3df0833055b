"""Fill a new named volume with what the image has at its mount point, as Docker does.

The layers are read through `minibox.image.layer.stack`: mounting them would need a mount namespace, only to copy a few
files once.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from errno import EEXIST, ENOTEMPTY

from minibox.base.files import close_descriptors, sync_directory
from minibox.errors import StoreError, kernel_says, suppress
from minibox.image.layer.stack import READ_DIRECTORY, Stack, own_marks
from minibox.linux.removal import remove_tree
from minibox.storage.clone import OVERLAY_MARKS, fill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.storage.drivers import Snapshotter
    from minibox.storage.snapshot import Snapshot


@contextmanager
def opened(storage: Snapshotter, snapshot: Snapshot) -> Iterator[tuple[str, ...]]:
    """Yield /proc/self/fd paths of a snapshot's layers, topmost first: an image file has no other path."""
    fds: list[int] = []
    try:
        for lower in snapshot.lowers:
            fds.append(storage.open_lower(lower))
        yield tuple(f"/proc/self/fd/{fd}/." for fd in fds)
    finally:
        close_descriptors(*fds)


def make_volume(path: str, lowerdirs: tuple[str, ...], destination: str, *, durable: bool = False) -> None:
    """Make the volume directory ``path``. One that exists and isn't empty stays as it is.

    The caller makes sure that no other process makes it at the same time.

    Args:
        lowerdirs: the image's layers, topmost first; () for an empty volume.
        destination: where the container will see it, absolute and normalised.
        durable: make sure that after a power loss it is either complete or missing.

    Raises:
        StoreError: the disk is full, or the kernel refused; nothing is left behind.
    """
    new = f"{path}.new"
    try:
        os.makedirs(os.path.dirname(os.path.dirname(path)), 0o700, exist_ok=True)  # hides set-uid files
        remove_tree(new)  # of a killed process
        os.makedirs(new)
        os.chmod(new, 0o755)
        if not _fill(new, lowerdirs, destination, durable) and os.path.isdir(path):
            os.rmdir(new)  # the empty volume that exists will do
            return
        os.rename(new, path)
        if durable:
            for directory in (os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
                sync_directory(directory)
    except BaseException as error:
        with suppress(OSError):  # the first error says more
            remove_tree(new)
        if not isinstance(error, OSError):
            raise
        if error.errno in (EEXIST, ENOTEMPTY) and os.path.isdir(path):
            return  # it isn't empty
        where = f" ({error.filename})" if error.filename and error.filename != new else ""
        raise StoreError(
            f"fill the new volume {path} from the image's {destination}{where}: {kernel_says(error)}"
        ) from error


def _fill(new: str, lowerdirs: tuple[str, ...], destination: str, durable: bool) -> bool:
    """Copy the image's directory ``destination`` to ``new``; return whether the image has one."""
    with Stack([os.open(layer, READ_DIRECTORY | os.O_CLOEXEC) for layer in lowerdirs], own_marks()) as image:
        source = image.find(destination)
        if source is None:
            return False
        with source:
            if source.is_directory:
                fill(source, new, without=OVERLAY_MARKS, durable=durable)
            return source.is_directory
