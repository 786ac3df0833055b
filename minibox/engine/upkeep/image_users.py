"""Which images and layers are in use, and by which containers and snapshots."""

from __future__ import annotations

import os

from minibox.engine.container.snapshots import all_frozen
from minibox.engine.state.claim import live_ids, read_live
from minibox.engine.state.containers import containers
from minibox.record import record


@record
class Use:
    """What a container needs of the images.

    Attributes:
        id: the container's.
        digest: of the image's manifest; "" when it is not known.
        chain_ids: the layers of one that is being started or runs; who has a root file system has them on record in
            `minibox.storage.snapshot.layers_in_use` too.
        running: whether an owner holds it.
    """

    id: str
    digest: str
    chain_ids: tuple[str, ...]
    running: bool


def uses(root: str) -> list[Use]:
    """What all containers need: those that are being started, run, or have ended and left files.

    Who removes images calls this after he has changed the index: a container that isn't here yet looks at the index
    once more after it has noted its image.
    """
    found: dict[str, Use] = {}
    # First those that run: one that ends between the two looks is in the second.
    for name in live_ids(root):
        try:
            live = read_live(root, name)
        except OSError:
            continue  # it has just ended
        if live.digest:
            found[name] = Use(name, live.digest, live.chain_ids, True)
    if os.path.isdir(f"{root}/snapshots"):
        for frozen, held in all_frozen(root):
            found[frozen.id] = Use(frozen.id, frozen.image.digest, frozen.image.chain_ids, held)
    for state in containers(root):
        digest = state.get("ImageDigest")
        found.setdefault(state["Id"], Use(state["Id"], digest if isinstance(digest, str) else "", (), False))
    return list(found.values())
