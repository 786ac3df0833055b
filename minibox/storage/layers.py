"""The directory in which a driver keeps its layers: listing them, and removing one at once.

Off the hot path. Removing is for who holds the lock of the garbage collection.
"""

from __future__ import annotations

import os

from minibox.errors import StoreError, kernel_says
from minibox.storage.removal import remove_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEX_LENGTH = 64
HEXADECIMAL = frozenset("0123456789abcdef")
REMOVED = "removed-"


def chain_ids_in(directory: str, suffix: str = "") -> list[str]:
    """The chain IDs of the layers in ``directory``, in no order; none when it isn't there."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    stems = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return [f"sha256:{stem}" for stem in stems if len(stem) == HEX_LENGTH and HEXADECIMAL.issuperset(stem)]


def remove_at_once(directory: str, name: str, remove_first: Callable[[str], None] = lambda path: None) -> None:
    """Remove the layer ``name`` in ``directory`` such that it is there whole or not at all; none is fine.

    What an earlier removal left that was killed goes too.

    Args:
        remove_first: a quicker way that is tried before.

    Raises:
        StoreError: the kernel refused.
    """
    try:
        os.rename(f"{directory}/{name}", f"{directory}/{REMOVED}{name}")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreError(f"remove the layer {directory}/{name}: {kernel_says(error)}") from error
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for each in names:
        if each.startswith(REMOVED):
            remove_first(f"{directory}/{each}")
            remove_directory(f"{directory}/{each}")
