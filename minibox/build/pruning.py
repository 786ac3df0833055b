"""What the cache of builds takes on disk, and its removal: by age, or down to a size."""

from __future__ import annotations

import fcntl
import os
import time

from minibox.base.codec import NO_FILE_OF_OURS
from minibox.base.files import discard
from minibox.build.cache import LOCK, OPEN, REPLACED, lines_directory, stored
from minibox.build.history import HISTORY, note_pruned
from minibox.errors import Unreadable
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minibox.build.cache import Stored

#: Digests of contexts and histories that no build has used for so long are removed by every `prune`.
UNUSED_S = 30 * 86400
#: A build writes a line's manifest before the line itself, so a new one may be needed.
NEW_S = 3600


@record
class Usage:
    """The disk space of the cache.

    Attributes:
        lines: the stored lines, the last used first.
        bytes_of_lines: of their layers.
        bytes_of_notes: of digests, manifests and histories.
    """

    lines: tuple[Stored, ...]
    bytes_of_lines: int
    bytes_of_notes: int


def usage(root: str) -> Usage:
    """Measure the cache."""
    lines = sorted(stored(root), key=lambda each: each.used_s, reverse=True)
    notes = sum(status.st_size for name in ("contexts", "manifests", "histories") for _, status in _files(root, name))
    return Usage(tuple(lines), sum(each.line.size_bytes for each in lines), notes)


def prune(
    root: str,
    release: Callable[[str, str], None],
    *,
    unused_s: float = 0,
    keep_bytes: int = -1,
    choose: Callable[[Stored], bool] = lambda each: True,
) -> list[Stored]:
    """Remove lines, the least recently used first, and return them. A line stays while a build or another line needs it.

    Args:
        release: called with the driver and the chain id of each line's own layer, after its line is gone.
        unused_s: only remove lines that no build has used for so many seconds.
        keep_bytes: stop when the remaining ones are no larger; -1 to remove all.
        choose: tells whether a line may be removed.

    Raises:
        OSError: a file can't be removed; with the path.
    """
    now_s = time.time()
    removed: list[Stored] = []
    lines = stored(root)
    remaining = {each.path: each for each in lines}
    kept_bytes = sum(each.line.size_bytes for each in lines)
    dependents = _dependents(lines)
    for each in _by_use(lines):
        is_replaced = REPLACED in each.path
        if not is_replaced and (kept_bytes <= keep_bytes or now_s - each.used_s < unused_s or not choose(each)):
            continue
        own = each.driver, each.line.own_layer
        if dependents.get(own) or not _remove(each):
            continue
        del remaining[each.path]
        removed.append(each)
        kept_bytes -= each.line.size_bytes
        for layer in each.line.layers:
            if layer != each.line.own_layer:
                dependents[each.driver, layer] -= 1
        if each.line.has_layer and own not in {(left.driver, left.line.own_layer) for left in remaining.values()}:
            release(*own)
    note_pruned(root, [each.line.key.id for each in removed if REPLACED not in each.path], now_s)
    _remove_notes(root, list(remaining.values()), now_s)
    return removed


def _by_use(lines: list[Stored]) -> list[Stored]:
    """Sort lines by their last use, where using a line uses all lines below it; those above come first."""
    used: dict[tuple[str, str], float] = {}
    for each in lines:
        for layer in each.line.layers:
            used[each.driver, layer] = max(each.used_s, used.get((each.driver, layer), 0))

    def order(each: Stored) -> tuple[float, int, bool]:
        own = used[each.driver, each.line.own_layer] if each.line.has_layer else each.used_s
        return own, -len(each.line.layers), each.line.has_layer

    return sorted(lines, key=order)


def _dependents(lines: list[Stored]) -> dict[tuple[str, str], int]:
    """Return how many lines are on top of each layer."""
    found: dict[tuple[str, str], int] = {}
    for each in lines:
        for layer in each.line.layers:
            if layer != each.line.own_layer:
                found[each.driver, layer] = found.get((each.driver, layer), 0) + 1
    return found


def _remove(each: Stored) -> bool:
    """Remove a line's file unless a build holds it."""
    try:
        fd = os.open(each.path, OPEN)
    except FileNotFoundError:
        return False  # another `prune`
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(each.path)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(fd)
    return True


def _remove_notes(root: str, remaining: list[Stored], now_s: float) -> None:
    """Remove what no line needs any more: digests of contexts, histories, manifests, and locks that nobody holds."""
    for name in ("contexts", "histories"):
        for path, status in _files(root, name):
            if now_s - status.st_mtime > UNUSED_S:
                discard(path)
    needed = {digest for each in remaining for digest in each.line.key.inputs.values()}
    for path, _ in _files(root, "histories"):
        try:
            needed.update(digest for line in HISTORY.read(path)["Lines"] for digest in line["Inputs"].values())
        except (FileNotFoundError, Unreadable):
            continue
    for path, status in _files(root, "manifests"):
        if os.path.basename(path) not in needed and now_s - status.st_mtime > NEW_S:
            discard(path)
    for driver in {each.driver for each in remaining} | set(_drivers(root)):
        for path, _ in _files(root, f"lines/{driver}"):
            if path.endswith(LOCK):
                _remove_lock(path)


def _remove_lock(path: str) -> None:
    try:
        fd = os.open(path, OPEN)
    except OSError as error:
        if error.errno in NO_FILE_OF_OURS:
            discard(path)
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        discard(path)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


def _drivers(root: str) -> list[str]:
    try:
        return os.listdir(os.path.dirname(lines_directory(root, "any")))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files(root: str, name: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        names = os.listdir(f"{root}/build/{name}")
    except (FileNotFoundError, NotADirectoryError):
        return
    for each in names:
        try:
            yield f"{root}/build/{name}/{each}", os.lstat(f"{root}/build/{name}/{each}")
        except FileNotFoundError:
            continue
