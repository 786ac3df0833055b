"""Make, list and remove the layers in a driver's directory. Off the hot path.

A layer is complete or doesn't exist. To remove one you must hold the lock of the garbage collection.
"""

from __future__ import annotations

import os
from errno import EEXIST, ENOTEMPTY

from minibox.base.files import closing, replace_link
from minibox.errors import StoreError, suppress, trying
from minibox.linux.removal import remove_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minibox.image.layer.unpack import LayerSource

HEX_LENGTH = 64
HEXADECIMAL = frozenset("0123456789abcdef")
REMOVED, UNFINISHED = "removed-", "unfinished-"


def chain_ids_in(directory: str, suffix: str = "") -> list[str]:
    """Return the chain IDs of the layers in ``directory``, in no order; none if it doesn't exist."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    stems = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return [f"sha256:{stem}" for stem in stems if len(stem) == HEX_LENGTH and HEXADECIMAL.issuperset(stem)]


def move_layer(source: str, path: str) -> None:
    """Rename a finished layer to its place; another process may have put the same layer there already.

    Raises:
        OSError: the kernel refused.
    """
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    try:
        os.rename(source, path)
    except OSError as error:
        if error.errno not in (ENOTEMPTY, EEXIST):
            raise


def link_layer(path: str, target: str) -> None:
    """Give a layer a second name.

    Args:
        target: the file name of the layer, in the same directory.

    Raises:
        OSError: the kernel refused.
    """
    try:
        os.symlink(target, path)
    except FileExistsError:
        if not os.path.exists(path):  # its layer was removed
            replace_link(path, target)


def links_in(directory: str, suffix: str = "") -> dict[str, str]:
    """Return the chain IDs of layers that are second names, each with the layer that it means."""
    found = {}
    for chain_id in chain_ids_in(directory, suffix):
        try:
            found[chain_id] = f"sha256:{os.readlink(f'{directory}/{chain_id[7:]}{suffix}').removesuffix(suffix)}"
        except OSError:
            continue  # a layer of its own
    return found


def make_layers(
    directory: str,
    sources: Sequence[LayerSource],
    *,
    place: Callable[[str], str],
    make: Callable[[LayerSource, str, str], None],
    remove_first: Callable[[str], None],
    on_progress: Callable[[str], None] | None = None,
) -> None:
    """Make those layers of an image that are not in ``directory`` yet, each from the one below it, under a lock.

    Layers whose blobs have arrived are made together and synced to disk once. Only then do they get their names,
    because a layer with a name counts as complete. If one fails, those below it are kept.

    Args:
        place: returns the path for the layer of a chain ID.
        make: makes a layer, from its source, the path to make it at, and the path of the layer below ("" for none).
        remove_first: see `remove_at_once`.

    Raises:
        StoreError: the disk is full; or an error of ``make``.
        MiniboxError: a blob can't be downloaded.
    """
    from minibox.image.layer.unpack import wait_for_blobs
    from minibox.image.layout.layout import disk_error, locked

    below = ""
    while sources:
        ready = wait_for_blobs(sources)
        sources = sources[len(ready) :]
        made: list[tuple[str, str]] = []  # chain IDs and paths of new layers
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

    with closing(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        sync_file_system(fd)


def remove_at_once(directory: str, name: str, remove_first: Callable[[str], None] = lambda path: None) -> None:
    """Remove the layer ``name`` in ``directory`` if it exists. Nobody can see a layer that is half removed.

    This also removes what is left of an earlier removal that was killed.

    Args:
        remove_first: a quicker way, which is tried first.

    Raises:
        StoreError: the kernel refused.
    """
    with trying(StoreError, f"remove the layer {directory}/{name}"), suppress(FileNotFoundError):
        os.rename(f"{directory}/{name}", f"{directory}/{REMOVED}{name}")
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for each in names:
        if each.startswith(REMOVED):
            remove_first(f"{directory}/{each}")
            remove_directory(f"{directory}/{each}")
