"""A new named volume begins with what the image has where it is mounted, as Docker does it.

The layers are read as of `minibox.image.layer.stack`: mounting them would need a mount namespace for some files that are
copied once.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from errno import EEXIST, ENOTEMPTY
from stat import S_ISLNK

from minibox.base.files import sync_directory
from minibox.errors import StoreError, kernel_says
from minibox.image.layer.stack import READ_DIRECTORY, Stack, own_marks
from minibox.linux.removal import remove_tree
from minibox.storage.clone import OVERLAY_MARKS, fill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.image.layer.stack import Node
    from minibox.storage.drivers import Snapshotter
    from minibox.storage.snapshot import Snapshot

SYMLINKS_MAX = 40  # path_resolution(7)


@contextmanager
def opened(storage: Snapshotter, snapshot: Snapshot) -> Iterator[tuple[str, ...]]:
    """Paths of the directories of a snapshot's layers, topmost first: of descriptors, as images have no others."""
    fds: list[int] = []
    try:
        for lower in snapshot.lowers:
            fds.append(storage.open_lower(lower))
        yield tuple(f"/proc/self/fd/{fd}/." for fd in fds)
    finally:
        for fd in fds:
            os.close(fd)


def make_volume(path: str, lowerdirs: tuple[str, ...], destination: str, *, durable: bool = False) -> None:
    """Make the volume directory ``path``; one that is there and has something in it is left as it is.

    Nobody else makes it meanwhile.

    Args:
        lowerdirs: of the image, topmost first; () for a volume that begins empty.
        destination: where the container will see it, absolute and normalised.
        durable: after a power loss too it is there whole or not at all.

    Raises:
        StoreError: the disk is full, or the kernel refused otherwise; nothing is left.
    """
    new = f"{path}.new"
    try:
        os.makedirs(os.path.dirname(os.path.dirname(path)), 0o700, exist_ok=True)  # a set-uid file is no other user's
        remove_tree(new)  # of one that was killed
        os.makedirs(new)
        os.chmod(new, 0o755)
        if not _fill(new, lowerdirs, destination, durable) and os.path.isdir(path):
            os.rmdir(new)  # it is as it was made
            return
        os.rename(new, path)
        if durable:
            for directory in (os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
                sync_directory(directory)
    except BaseException as error:
        try:
            remove_tree(new)
        except OSError:
            pass  # the first failure says more
        if not isinstance(error, OSError):
            raise
        if error.errno in (EEXIST, ENOTEMPTY) and os.path.isdir(path):
            return  # it has something in it
        where = f" ({error.filename})" if error.filename and error.filename != new else ""
        raise StoreError(
            f"fill the new volume {path} from the image's {destination}{where}: {kernel_says(error)}"
        ) from error


def _fill(new: str, lowerdirs: tuple[str, ...], destination: str, durable: bool) -> bool:
    """Whether the image has a directory there."""
    with Stack([os.open(layer, READ_DIRECTORY | os.O_CLOEXEC) for layer in lowerdirs], own_marks()) as image:
        source = _find(image, destination)
        if source is not None:
            fill(source, new, without=OVERLAY_MARKS, durable=durable)
        return source is not None


def _find(image: Stack, path: str) -> Node | None:
    """The directory ``path``, through the symlinks of the image; None where it has none."""
    waiting, found, links = path.split("/")[::-1], [image.root], 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            del found[max(1, len(found) - 1) :]
        if part in ("", ".", ".."):
            continue
        node = found[-1].find(part)
        if node is None:
            return None
        if node.is_directory:
            found.append(node)
            continue
        with node:
            links += 1
            if not S_ISLNK(node.status.st_mode) or links > SYMLINKS_MAX:
                return None
            target = os.fsdecode(node.readlink())
        waiting += target.split("/")[::-1]
        if target.startswith("/"):
            del found[1:]
    return found[-1] if image.root.layers else None
