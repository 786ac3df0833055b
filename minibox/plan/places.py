"""Decide through which descriptor a mount, device, mask or setting is reached, and whether symlinks are allowed.

/proc and /sys show and control the host, and a container without a user namespace is kept from that only by masks and
read-only mounts. The image may have a symlink there, and a container that shares a volume may swap directories between
two system calls (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881). So these are mounted where no symlink leads, and what
is below them is reached only through the descriptor of that mount. The same goes for /dev.
"""

from __future__ import annotations

from os.path import normpath

from minibox.errors import ConfigError
from minibox.plan import operations as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.plan.operations import Argument

# The mounts of every container, and the slots of their descriptors.
HELD = {"/proc": op.CONTAINERS_PROC, "/sys": op.CONTAINERS_SYS, "/dev": op.CONTAINERS_DEV}
OF_THE_KERNEL = ("proc", "sysfs")


def clean(path: str) -> str:
    """Normalise an absolute path: no empty parts, and neither "." nor ".." in it."""
    return normpath("/" + path.lstrip("/"))


def from_top(root: Argument, path: str) -> str:
    """Return the path from the container's root directory, also of something reached through a mount in `HELD`."""
    above = next((each for each, slot in HELD.items() if type(root) is int and root & ~op.NO_LINKS == slot), "")
    return above if above and path == "/" else above + path


class Places:
    """The mounts made so far that are reached through their descriptors."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._types: dict[str, str] = {}
        self._further: Iterator[int] = iter(range(op.FIRST_FURTHER, op.SLOTS))

    def slot(self, destination: str, fstype: str) -> int | None:
        """Return the slot for a mount's descriptor; None if nobody needs it.

        Args:
            fstype: the type of a new file system; "" for a bind mount.
        """
        if destination in HELD:
            return HELD[destination]
        if fstype not in OF_THE_KERNEL:
            return None
        slot = self._slots.get(destination) or next(self._further, None)
        if slot is None:
            raise ConfigError(
                f"more than {op.SLOTS - op.FIRST_FURTHER} mounts of proc and sysfs in addition to /proc and /sys"
            )
        return slot

    def hold(self, path: str, slot: int, fstype: str) -> None:
        """From now on, reach what is below ``path`` through the descriptor in ``slot``."""
        self._slots[path], self._types[path] = slot, fstype

    def is_held(self, path: str) -> bool:
        """Return whether something was mounted or opened there."""
        return path in self._slots

    def of(self, path: str, fstype: str = "", *, look: bool = False) -> tuple[int, str]:
        """Return the root to look below (a slot, perhaps with `operations.NO_LINKS`) and the path from there.

        Args:
            fstype: the type of what is to be mounted there.
            look: look for the kernel's own files, and follow the kernel's own links.
        """
        path = clean(path)
        above = [each for each in self._slots if path == each or path.startswith(each.rstrip("/") + "/")]
        if above:
            held = max(above, key=len)
            links = look and self._types[held] in OF_THE_KERNEL
            return self._slots[held] | (0 if links else op.NO_LINKS), path[len(held) :] or "/"
        protected = fstype in OF_THE_KERNEL or any(path == each or path.startswith(each + "/") for each in HELD)
        return op.ROOT | (op.NO_LINKS if protected else 0), path
