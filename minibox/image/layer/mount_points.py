"""Mount points that a start makes in a root file system because the image lacks them: not changes by the container."""

from __future__ import annotations

from stat import S_ISREG

from minibox.image.layer.stack import Node, Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def is_untouched(node: Node) -> bool:
    """Tell whether a mount point is still as a start made it: an empty file or an empty directory."""
    if node.is_directory:
        return not node.children()
    return S_ISREG(node.status.st_mode) and node.status.st_size == 0


def absent(stack: Stack, paths: Iterable[str]) -> frozenset[str]:
    """Return those of the absolute ``paths`` that a root file system doesn't have."""
    return frozenset(path for path in paths if not _has(stack.root, path[1:]))


def _has(directory: Node, path: str) -> bool:
    name, _, rest = path.partition("/")
    found = directory.find(name)
    if found is None:
        return False
    with found:
        return not rest or (found.is_directory and _has(found, rest))
