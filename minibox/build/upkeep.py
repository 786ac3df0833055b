"""The disk space of the cache: `minibox builder du` and `minibox builder prune`."""

from __future__ import annotations

import fcntl
import os
from functools import partial

from minibox.build import pruning
from minibox.build.cache import stored
from minibox.build.image.make import forget, packed_layers
from minibox.build.steps.step import SCRATCH
from minibox.engine.host.user_namespace import run_inside
from minibox.engine.upkeep.image_garbage import alone, collect
from minibox.engine.upkeep.images import PATIENCE_S, uses
from minibox.image.layout.layout import Layout
from minibox.linux.removal import remove_directory
from minibox.record import record
from minibox.storage.snapshot import DRIVERS, kept_layers, release_layer
from minibox.storage.usage import tree_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.build.cache import Stored


@record
class CacheMount:
    """A directory of ``RUN --mount=type=cache``: its path, its size, and whether a build uses it."""

    path: str
    size_bytes: int
    in_use: bool


@record
class Pruned:
    """What `prune` has removed. ``freed_bytes`` is the disk space of layers that nothing else needs, and of mounts."""

    lines: tuple[Stored, ...]
    mounts: tuple[CacheMount, ...]
    freed_bytes: int


def usage(root: str) -> tuple[pruning.Usage, tuple[CacheMount, ...]]:
    """Measure the lines and the cache mounts."""
    return pruning.usage(root), tuple(_mounts(root))


def prune(
    root: str,
    *,
    unused_s: float = 0,
    keep_bytes: int = -1,
    mounts: bool = False,
    choose: Callable[[Stored], bool] = lambda each: True,
) -> Pruned:
    """Remove lines that no build uses, layers that nothing else needs, and what killed builds left.

    Args:
        unused_s, keep_bytes, choose: see `pruning.prune`.
        mounts: remove the directories of cache mounts, too.
    """
    lines = pruning.prune(root, partial(_release, root), unused_s=unused_s, keep_bytes=keep_bytes, choose=choose)
    gone = tuple(each for each in _mounts(root) if mounts and _remove(each))
    layout = Layout(root)
    with alone(layout, PATIENCE_S) as held:  # else the next removal frees the space
        if held:
            _release_lost(root)
        freed = run_inside(lambda: collect(layout, lambda: uses(root)).freed_bytes) if held else 0
    return Pruned(tuple(lines), gone, freed + sum(each.size_bytes for each in gone))


def _release(root: str, driver: str, layer: str) -> None:
    forget(root, driver, layer)
    release_layer(root, driver, layer)


def _release_lost(root: str) -> None:
    """Release layers that no line names: builds that were killed have left them. No build may be running."""
    needed = {(each.driver, each.line.own_layer) for each in stored(root)} | {(driver, SCRATCH) for driver in DRIVERS}
    for driver, layer in (kept_layers(root) | packed_layers(root)) - needed:
        _release(root, driver, layer)


def _mounts(root: str) -> list[CacheMount]:
    top = f"{root}/build/caches"
    try:
        names = sorted(os.listdir(top))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        path = f"{top}/{name}"
        size = run_inside(partial(tree_bytes, path))
        found.append(CacheMount(path, size, not _try(path, lambda: None)))
    return found


def _remove(mount: CacheMount) -> bool:
    return _try(mount.path, lambda: run_inside(lambda: remove_directory(mount.path)))


def _try(path: str, work: Callable[[], object]) -> bool:
    """Do something to a cache mount's directory unless a build uses it; tell whether it was done."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        work()
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
