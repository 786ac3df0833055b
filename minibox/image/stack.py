"""Directories stacked as overlayfs does it, read without mounting them.

Mounting would need a mount namespace, and would hide which layer a file comes from; two stacks that share layers
are compared by just that. Works on layers, on the upperdir of a container that runs, and on plain trees. No
symlink is followed, whatever a running container does meanwhile: each open is one openat2(2) below a layer's
directory.

Source: https://docs.kernel.org/filesystems/overlayfs.html.
"""

from __future__ import annotations

import os
import stat
from errno import ELOOP, ENOENT, ENOTDIR

from minibox.errors import Unsupported
from minibox.image.owners import CAPABILITY, Owners
from minibox.linux.files import open_beneath
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from minibox.image.owners import Owner

AS_ON_DISK = Owners()
READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
LOOK = os.O_PATH | os.O_NOFOLLOW
# Where overlayfs keeps its marks: root's mounts, and mounts with userxattr.
ROOTS_MARKS, USERS_MARKS = "trusted.overlay.", "user.overlay."


@record
class Node:
    """A file of a stack.

    Attributes:
        path: relative to the root, "" for the root itself.
        layers: the layers that have a part in it, topmost first: many for a directory, one for anything else.
    """

    path: str
    layers: tuple[int, ...]
    is_directory: bool


class Stack:
    """A stack of directories.

    Attributes:
        identities: device and inode of each directory: two stacks share a layer when they are equal.
    """

    def __init__(
        self, fds: Sequence[int], marks: str, without: frozenset[int] = frozenset(), owners: Owners | None = None
    ) -> None:
        """
        Args:
            fds: of the directories, topmost first (O_PATH will do); closed with the stack.
            marks: `ROOTS_MARKS` or `USERS_MARKS`; "" for a single tree, which has no whiteouts.
            without: devices, as of ``st_dev``, whose directories are taken for empty: /proc and its like.
            owners: of the topmost directory's files, where they aren't as on disk.
        """
        self._owners = owners or AS_ON_DISK
        self._fds = tuple(fds)
        self._marks = marks
        self._without = without
        statuses = [os.fstat(fd) for fd in self._fds]
        self.identities = tuple((status.st_dev, status.st_ino) for status in statuses)
        self.root = Node("", self._merging("", tuple(range(len(self._fds)))), True)

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._fds:
            os.close(fd)

    def identity(self, node: Node) -> tuple[tuple[int, int], ...]:
        """The layers that ``node`` is made of: where they are the same in another stack, so is the whole node."""
        return tuple(self.identities[layer] for layer in node.layers)

    def children(self, directory: Node) -> dict[str, Node]:
        """What is in a directory, in no order.

        Raises:
            OSError: with the path; ELOOP or ENOTDIR when the directory was replaced meanwhile.
            Unsupported: overlayfs has moved it (redirect_dir), which our mounts forbid.
        """
        files: dict[str, int] = {}
        directories: dict[str, list[int]] = {}
        covered: set[str] = set()  # what is no directory, or removed: layers below add nothing to it
        for layer in directory.layers:
            for name, kind in self._scan(layer, directory.path):
                if name in covered:
                    continue
                if stat.S_ISDIR(kind):
                    directories.setdefault(name, []).append(layer)
                    continue
                covered.add(name)
                if kind and name not in directories:
                    files[name] = layer
        prefix = f"{directory.path}/" if directory.path else ""
        found = {name: Node(prefix + name, (layer,), False) for name, layer in files.items()}
        for name, layers in directories.items():
            found[name] = Node(prefix + name, self._merging(prefix + name, tuple(layers)), True)
        return found

    def open(self, node: Node, flags: int) -> int:
        """A descriptor of ``node`` as its topmost layer has it.

        Raises:
            OSError: with the path.
        """
        return open_beneath(self._fds[node.layers[0]], node.path or ".", flags)

    def status(self, node: Node) -> os.stat_result:
        """lstat(2)."""
        fd = self.open(node, LOOK)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def owner(self, node: Node, status: os.stat_result) -> Owner:
        """Whose a node is, by its status, as the image's ids are."""
        return self._owners_of(node).of(status)

    def readlink(self, node: Node) -> bytes:
        """The target of a symlink."""
        fd = self.open(node, LOOK)
        try:
            return os.readlink(b"", dir_fd=fd)
        finally:
            os.close(fd)

    def _owners_of(self, node: Node) -> Owners:
        return AS_ON_DISK if node.layers[0] else self._owners

    def xattrs(self, fd: int, node: Node) -> dict[str, bytes]:
        """The extended attributes that a layer may have, of a node that is open: an image's, not the host's.

        Raises:
            Unsupported: the file's content is in another layer (metacopy), which our mounts forbid.
        """
        found = {}
        for name in sorted(os.listxattr(fd)):
            if self._marks and name == f"{self._marks}metacopy":
                raise _elsewhere(node.path, "metacopy")
            if name == CAPABILITY or name.startswith(("user.", "system.posix_acl_")):
                if not name.startswith(USERS_MARKS):
                    found[name] = self._owners_of(node).xattr(name, os.getxattr(fd, name))
        return found

    def _merging(self, path: str, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Those of the layers that have the directory ``path`` which are seen: none below one that is opaque."""
        if not self._marks:
            return layers
        for number, layer in enumerate(layers[:-1], 1):
            fd = open_beneath(self._fds[layer], path or ".", READ_DIRECTORY)
            try:
                if os.getxattr(fd, f"{self._marks}opaque") == b"y":
                    return layers[:number]
            except OSError:
                continue  # no such attribute
            finally:
                os.close(fd)
        return layers

    def _scan(self, layer: int, path: str) -> list[tuple[str, int]]:
        """Name and type (as of ``st_mode``) of what one layer has in a directory: 0 for a whiteout, and for a file
        whose type the listing doesn't tell and nobody needs, ``S_IFREG``."""
        fd = open_beneath(self._fds[layer], path or ".", READ_DIRECTORY)
        try:
            if self._marks and f"{self._marks}redirect" in os.listxattr(fd):
                raise _elsewhere(path, "redirect_dir")
            if self._without and os.fstat(fd).st_dev in self._without:
                return []
            found = []
            with os.scandir(fd) as entries:
                for entry in entries:
                    kind = stat.S_IFREG
                    if entry.is_dir(follow_symlinks=False):
                        kind = stat.S_IFDIR
                    elif self._marks and not (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                        kind = 0 if is_whiteout(entry.stat(follow_symlinks=False)) else kind
                    found.append((entry.name, kind))
            return found
        finally:
            os.close(fd)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether overlayfs says by this file that there is none of its name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_gone(error: OSError) -> bool:
    """Whether a file that was listed has been removed or replaced since."""
    return error.errno in (ENOENT, ENOTDIR, ELOOP)


def _elsewhere(path: str, feature: str) -> Unsupported:
    return Unsupported(
        f"read /{path}: overlayfs keeps it elsewhere ({feature})",
        f"it was mounted by another tool, or by another minibox; mount it with {feature}=off",
    )
