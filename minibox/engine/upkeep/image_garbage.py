"""Garbage collection: remove blobs and unpacked layers that neither index.json nor a container needs.

The order makes it safe to be killed at any time. To remove an image, we set the times of the blobs that only it has
to 1970 (`condemn`), and write index.json without it. Only then, under the lock `Layout.collecting`, do we look for
things that nothing needs, and remove them. If we are killed, the next collection finds what is left.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from minibox.engine.resources.image_usage import blobs_of, garbage, look
from minibox.image.layer.size import note_path
from minibox.image.layout.inventory import inventory
from minibox.image.layout.layout import disk_error
from minibox.record import record
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import DRIVERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from minibox.engine.resources.image_usage import Uses
    from minibox.image.layout.inventory import StoredImage
    from minibox.image.layout.layout import Layout

POLL_S = 0.05
# Removing this layer, which doesn't exist, only removes what is left of a removal that was killed. It comes first,
# because the same layer may have been unpacked since, and must be removed again.
NO_LAYER = "sha256:" + 64 * "0"


@record
class Collected:
    """What was removed.

    Attributes:
        blobs: the digests of blobs.
        chain_ids: the chain IDs of layers, of all drivers.
        freed_bytes: the disk space that was freed.
    """

    blobs: tuple[str, ...]
    chain_ids: tuple[str, ...]
    freed_bytes: int


@contextmanager
def alone(layout: Layout, wait_s: float) -> Iterator[bool]:
    """Take the lock `Layout.collecting`; wait ``wait_s`` for pulls and loads to end. Yields whether we got it."""
    deadline = time.monotonic() + wait_s
    while True:
        with layout.collecting(wait=False) as held:
            if held or time.monotonic() > deadline:
                yield held
                return
        time.sleep(POLL_S)


def condemn(layout: Layout, gone: Sequence[StoredImage], images: Sequence[StoredImage]) -> None:
    """Set the times of blobs that only the images in ``gone`` have to 1970, before these leave index.json.

    A collection spares young blobs without a name, since another tool may be writing them. This tells every
    collection not to spare these.
    """
    kept = [image for image in images if image not in gone]
    for digest in blobs_of(layout, gone) - blobs_of(layout, kept):
        try:
            os.utime(layout.blob_path(digest), (0, 0))
        except OSError:
            continue  # it doesn't exist


def collect(layout: Layout, uses: Callable[[], Uses]) -> Collected:
    """Remove what nothing needs. Call it inside `alone`.

    Args:
        uses: returns what containers need; called after index.json was read.

    Raises:
        StoreError: index.json is damaged, or the kernel refused.
    """
    images = inventory(layout)
    needed = uses()
    disk = look(layout)
    things = garbage(layout, disk, images, needed)
    blobs = [thing for thing in things if isinstance(thing, str)]
    layers = [thing for thing in things if not isinstance(thing, str)]
    layers.sort(key=lambda layer: layer not in disk.aliases)  # a second name never outlives its layer
    # Layers first: whoever finds a layer whose blobs are gone can't tell it from the layer of a complete image.
    for driver, chain_id in (*((driver, NO_LAYER) for driver in DRIVERS), *layers):
        snapshotter(layout.root, driver).remove_layer(chain_id)
        _unlink(f"{layout.root}/cache/usage/{driver}-{chain_id[7:]}")
        _unlink(note_path(layout.root, chain_id))
    for digest in blobs:
        _unlink(layout.blob_path(digest))
    if things:
        _forget_answers(f"{layout.root}/cache/resolve")
    return Collected(tuple(blobs), tuple(dict.fromkeys(chain_id for _, chain_id in layers)), disk.bytes_of(things))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_error(f"remove {path}", error) from error


def _forget_answers(directory: str) -> None:
    """Remove the store's cached answers, which are for an older index.json."""
    try:
        for name in os.listdir(directory):
            _unlink(f"{directory}/{name}")
    except FileNotFoundError:
        return
