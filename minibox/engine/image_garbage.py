"""Garbage collection: removing blobs and unpacked layers that neither index.json nor a container needs.

The order makes it safe to be killed anywhere. Who removes an image dates back what it has alone (`condemn`), and writes
index.json without it; only then, and under the lock `Layout.collecting`, is what nothing needs any more looked for and
removed. What is left by one who was killed is found by the next.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from minibox.engine.image_usage import blobs_of, garbage, look
from minibox.image.inventory import inventory
from minibox.image.layer_size import note_path
from minibox.image.layout import disk_error
from minibox.record import record
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import DRIVERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from minibox.engine.image_usage import Uses
    from minibox.image.inventory import StoredImage
    from minibox.image.layout import Layout

POLL_S = 0.05
# Removing it removes what a removal left that was killed, and nothing else. It comes first: the same layer may have been
# unpacked again since, and is to be removed again.
NO_LAYER = "sha256:" + 64 * "0"


@record
class Collected:
    """What was removed.

    Attributes:
        blobs: digests.
        chain_ids: of layers, unpacked by whatever driver.
        freed_bytes: of the disk.
    """

    blobs: tuple[str, ...]
    chain_ids: tuple[str, ...]
    freed_bytes: int


@contextmanager
def alone(layout: Layout, wait_s: float) -> Iterator[bool]:
    """`Layout.collecting`, with patience for those who pull or load just now; whether it was enough."""
    deadline = time.monotonic() + wait_s
    while True:
        with layout.collecting(wait=False) as held:
            if held or time.monotonic() > deadline:
                yield held
                return
        time.sleep(POLL_S)


def condemn(layout: Layout, gone: Sequence[StoredImage], images: Sequence[StoredImage]) -> None:
    """Date back the blobs that of all ``images`` only those in ``gone`` have; before they leave index.json.

    A collection spares what is young and has no name, since another tool may be writing it: not these, whoever
    comes to collect them.
    """
    kept = [image for image in images if image not in gone]
    for digest in blobs_of(layout, gone) - blobs_of(layout, kept):
        try:
            os.utime(layout.blob_path(digest), (0, 0))
        except OSError:
            continue  # it isn't there


def collect(layout: Layout, uses: Callable[[], Uses]) -> Collected:
    """Remove what nothing needs; for who is `alone`.

    Args:
        uses: asked after index.json was read.

    Raises:
        StoreError: index.json is damaged, or the kernel refused.
    """
    images = inventory(layout)
    needed = uses()
    disk = look(layout)
    things = garbage(layout, disk, images, needed)
    blobs = [thing for thing in things if isinstance(thing, str)]
    layers = [thing for thing in things if not isinstance(thing, str)]
    # Layers first: one that is there without its blobs could not be told from a whole image's by who looks for both.
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
    """The store's answers for another index.json are of no use to anybody."""
    try:
        for name in os.listdir(directory):
            _unlink(f"{directory}/{name}")
    except FileNotFoundError:
        return
