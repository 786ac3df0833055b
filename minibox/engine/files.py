"""Layers and a container's files, by whoever may touch them: an ordinary user's belong to ids that he has inside only."""

from __future__ import annotations

import os
from errno import EACCES, EPERM

from minibox.errors import StoreError
from minibox.storage.overlay import Overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.image.store import ImageStore, ResolvedImage


def unpack(store: ImageStore, image: ResolvedImage) -> None:
    """Unpack the layers of an image that are not yet.

    Raises:
        StoreError: a layer is damaged, or there is no space to unpack it.
    """
    if store.is_unpacked(image):
        return
    if os.geteuid() == 0:
        store.unpack_missing(image)
        return
    from minibox.engine.user_namespace import run_inside

    run_inside(lambda: store.unpack_missing(image))


def remove(root: str, container_id: str) -> None:
    """Remove the directory of a container; none is fine.

    Raises:
        StoreError: the kernel refused.
    """
    try:
        Overlay(root).remove(container_id)
    except StoreError as error:
        cause = error.__cause__
        if os.geteuid() == 0 or not isinstance(cause, OSError) or cause.errno not in (EACCES, EPERM):
            raise
        from minibox.engine.user_namespace import run_inside

        run_inside(lambda: Overlay(root).remove(container_id))
