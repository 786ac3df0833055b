"""Which images and layers are in use, and by which containers and snapshots."""

from __future__ import annotations

import os

from minibox.engine.container.snapshots import all_snapshots
from minibox.engine.state.claim import live_ids, read_live
from minibox.engine.state.containers import containers
from minibox.record import record


@record
class Use:
    """The images and layers that a container needs.

    Attributes:
        id: the container's id.
        digest: the digest of the image's manifest; "" if unknown.
        chain_ids: the layers of a container that is starting or running. Once it has a root file system,
            `minibox.storage.snapshot.layers_in_use` has them as well.
        running: whether its owner is alive.
    """

    id: str
    digest: str
    chain_ids: tuple[str, ...]
    running: bool


def uses(root: str) -> list[Use]:
    """Return what all containers need: starting, running, or ended with files left.

    Call this after you have removed an image from the index. A container that isn't listed yet records its image first
    and then looks at the index again.
    """
    found: dict[str, Use] = {}
    # Running ones first: one that ends between the two loops is in the second.
    for name in live_ids(root):
        try:
            live = read_live(root, name)
        except OSError:
            continue  # it has just ended
        if live.digest:
            found[name] = Use(name, live.digest, live.chain_ids, True)
    if os.path.isdir(f"{root}/snapshots"):
        for frozen, held in all_snapshots(root):
            found[frozen.id] = Use(frozen.id, frozen.image.digest, frozen.image.chain_ids, held)
    for state in containers(root):
        digest = state.get("ImageDigest")
        found.setdefault(state["Id"], Use(state["Id"], digest if isinstance(digest, str) else "", (), False))
    return list(found.values())
