"""Where a mount, a device, a mask or a setting goes: below which descriptor, and whether by links.

The kernel tells of the host in /proc and /sys, and a container without a user namespace is kept from that by nothing
but masks and read-only mounts. The image may have a symlink on the way there, and a container that shares a volume may
exchange directories between two looks (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881). So these are mounted where no
link leads, and what is below one is found by the descriptor of that very mount. The same holds for /dev.
"""

from __future__ import annotations

from os.path import normpath

from minibox.errors import ConfigError
from minibox.plan import operations as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.plan.operations import Argument

# Where every container has mounts, and the slots of their descriptors.
HELD = {"/proc": op.CONTAINERS_PROC, "/sys": op.CONTAINERS_SYS, "/dev": op.CONTAINERS_DEV}
OF_THE_KERNEL = ("proc", "sysfs")


def clean(path: str) -> str:
    """An absolute path as its words say: no empty one, no "." and no ".."."""
    return normpath("/" + path.lstrip("/"))


def from_top(root: Argument, path: str) -> str:
    """The path from the container's root directory, to tell of one that is looked for below a mount of `HELD`."""
    above = next((each for each, slot in HELD.items() if type(root) is int and root & ~op.NO_LINKS == slot), "")
    return above if above and path == "/" else above + path


class Places:
    """What has been mounted so far, of that which is found by its descriptor."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._types: dict[str, str] = {}
        self._further: Iterator[int] = iter(range(op.FIRST_FURTHER, op.SLOTS))

    def slot(self, destination: str, fstype: str) -> int | None:
        """Where the descriptor of a mount is kept; None for one of which nobody needs it.

        Args:
            fstype: of a new file system; "" for a bind mount.
        """
        if destination in HELD:
            return HELD[destination]
        if fstype not in OF_THE_KERNEL:
            return None
        slot = self._slots.get(destination) or next(self._further, None)
        if slot is None:
            raise ConfigError(f"more than {op.SLOTS - op.FIRST_FURTHER} mounts of proc and sysfs beside /proc and /sys")
        return slot

    def hold(self, path: str, slot: int, fstype: str) -> None:
        """From now on what is below ``path`` is found by the descriptor in ``slot``."""
        self._slots[path], self._types[path] = slot, fstype

    def is_held(self, path: str) -> bool:
        """Has something been mounted there, or been opened?"""
        return path in self._slots

    def of(self, path: str, fstype: str = "", *, look: bool = False) -> tuple[int, str]:
        """The root to look below, a slot with or without `operations.NO_LINKS`, and the path from there.

        Args:
            fstype: of what is to be mounted there.
            look: for what the kernel has there, and by its own links.
        """
        path = clean(path)
        above = [each for each in self._slots if path == each or path.startswith(each.rstrip("/") + "/")]
        if above:
            held = max(above, key=len)
            links = look and self._types[held] in OF_THE_KERNEL
            return self._slots[held] | (0 if links else op.NO_LINKS), path[len(held) :] or "/"
        protected = fstype in OF_THE_KERNEL or any(path == each or path.startswith(each + "/") for each in HELD)
        return op.ROOT | (op.NO_LINKS if protected else 0), path
