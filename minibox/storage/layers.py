"""The directory in which a driver keeps its layers: making, listing, and removing them.

A layer is there whole or not at all. Off the hot path. Removing is for who holds the lock of the garbage collection.
"""

from __future__ import annotations

import os

from minibox.errors import StoreError, kernel_says
from minibox.linux.removal import remove_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minibox.image.layer import LayerSource

HEX_LENGTH = 64
HEXADECIMAL = frozenset("0123456789abcdef")
REMOVED, UNFINISHED = "removed-", "unfinished-"


def chain_ids_in(directory: str, suffix: str = "") -> list[str]:
    """The chain IDs of the layers in ``directory``, in no order; none when it isn't there."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    stems = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return [f"sha256:{stem}" for stem in stems if len(stem) == HEX_LENGTH and HEXADECIMAL.issuperset(stem)]


def make_layers(
    directory: str,
    sources: Sequence[LayerSource],
    *,
    place: Callable[[str], str],
    make: Callable[[LayerSource, str, str], None],
    remove_first: Callable[[str], None],
    on_progress: Callable[[str], None] | None = None,
) -> None:
    """Make the layers of an image that are not in ``directory`` yet, each of the one below it, under a lock.

    Those whose blobs are there are made together, and synced to the disk, once, before they get their names, by which
    they will be taken for whole. When one can't be made, those below it are kept.

    Args:
        place: where the layer of a chain ID belongs.
        make: makes a layer; of its source, the path to make it at, and the place of the layer below, "" for none.
        remove_first: as for `remove_at_once`.

    Raises:
        StoreError: the disk is full; and what ``make`` raises.
        MiniboxError: a blob can't be had.
    """
    from minibox.image.layer import wait_for_blobs
    from minibox.image.layout import disk_error, locked

    below = ""
    while sources:
        ready = wait_for_blobs(sources)
        sources = sources[len(ready) :]
        made: list[tuple[str, str]] = []  # chain IDs, and where the layers are
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            with locked(f"{directory}.lock"):
                _collect_unfinished(directory, remove_first)
                try:
                    for source in ready:
                        path = place(source.chain_id)
                        if not os.access(path, os.F_OK):
                            path = f"{directory}/{UNFINISHED}{source.chain_id[7:]}"
                            make(source, path, below)
                            made.append((source.chain_id, path))
                        below = path
                finally:
                    if made:
                        _sync(directory)
                    for chain_id, path in made:
                        os.rename(path, place(chain_id))
                        if on_progress:
                            on_progress(chain_id)
                    _collect_unfinished(directory, remove_first)
        except OSError as error:
            raise disk_error(f"unpack layers in {directory}", error) from error
        below = place(ready[-1].chain_id)


def _collect_unfinished(directory: str, remove_first: Callable[[str], None]) -> None:
    for name in os.listdir(directory):
        if name.startswith(UNFINISHED):
            remove_first(f"{directory}/{name}")
            remove_directory(f"{directory}/{name}")


def _sync(directory: str) -> None:
    from minibox.linux.files import sync_file_system

    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file_system(fd)
    finally:
        os.close(fd)


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
