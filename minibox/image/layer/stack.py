"""Read directories as if overlayfs stacked them, without mounting them.

Mounting would need a mount namespace, and would hide which layer a file comes from: exactly what we use to compare
two stacks that share layers. It works on layers, on the upperdir of a running container, and on plain trees.

A running container may change the topmost directory while we read it. So we look up each file only once, in its
directory's descriptor, and read everything else through the file's own descriptor. We follow no symlinks.

Source: https://docs.kernel.org/filesystems/overlayfs.html.
"""

from __future__ import annotations

import os
import stat
from errno import ELOOP, ENOENT, ENOTDIR

from minibox.base.files import AutoClose, close_descriptors, closing
from minibox.errors import Unsupported, on_failure
from minibox.image.layer.owners import CAPABILITY, Owners
from minibox.linux.files import open_beneath
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minibox.image.layer.owners import Owner

    SmallFile = tuple[int, Owner, int, bytes]

AS_ON_DISK = Owners()
READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
LIST_OPEN = os.O_RDONLY | os.O_DIRECTORY  # for a directory that is open already
LOOK = os.O_PATH | os.O_NOFOLLOW
SYMLINKS_MAX = 40  # path_resolution(7)
# Prefixes of the xattrs with overlayfs's marks: in root's mounts, and in mounts with userxattr.
ROOTS_MARKS, USERS_MARKS = "trusted.overlay.", "user.overlay."
FIRST_USER_NAMESPACE = "user:[4026531837]"  # PROC_USER_INIT_INO of linux/proc_ns.h
#: A tree may be deeper than the limit of open descriptors, so we keep only this many directories open.
DIRECTORIES_OPEN_MAX = 16


@record
class Child:
    """A name in a directory's listing.

    Attributes:
        layers: the layers that it comes from, topmost first: several for a merged directory, one for anything else.
    """

    layers: tuple[int, ...]
    is_directory: bool


class Node(AutoClose):
    """An open file of a stack; use it in a ``with`` statement.

    Attributes:
        path: relative to the root, "" for the root itself.
        layers: see `Child`.
        status: its status in its topmost layer.
    """

    __slots__ = ("_fd", "_stack", "layers", "path", "status")

    def __init__(self, stack: Stack, path: str, layers: tuple[int, ...], fd: int) -> None:
        """``fd`` was opened with O_PATH, and is closed with the node."""
        self._stack, self._fd = stack, fd
        self.path, self.layers = path, layers
        self.status = os.fstat(fd)

    def close(self) -> None:
        """Close the descriptor. You may call this twice."""
        fd, self._fd = self._fd, -1
        self._stack.held.pop(self, None)
        if fd >= 0:
            os.close(fd)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def fd(self) -> int:
        """An O_PATH descriptor, valid until you use another node.

        Raises:
            OSError: with the path; `is_gone` if it had to be opened again, but was removed meanwhile.
        """
        if self._fd < 0:
            self._fd = self._stack.open_beneath(self.layers[0], self.path, LOOK | os.O_DIRECTORY)
            if not os.path.samestat(os.fstat(self._fd), self.status):
                self.close()
                raise FileNotFoundError(ENOENT, os.strerror(ENOENT), self.path)
        if self.is_directory:
            self._stack.hold(self)  # mark it as the last used
        return self._fd

    @property
    def proc_path(self) -> str:
        """A path of the open file; for a symlink, of the symlink itself."""
        return f"/proc/self/fd/{self.fd}"

    @property
    def owner(self) -> Owner:
        """Its owner, in the image's ids."""
        return self._owners.of(self.status)

    @property
    def identity(self) -> tuple[int, int]:
        """Its device and inode number."""
        return self.status.st_dev, self.status.st_ino

    def open(self, flags: int) -> int:
        """Open the file or directory for reading.

        Raises:
            OSError: with the path.
        """
        try:
            return os.open(self.proc_path, flags | os.O_CLOEXEC)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), self.path or ".") from error

    def readlink(self) -> bytes:
        """Return the target of a symlink."""
        return os.readlink(b"", dir_fd=self.fd)

    def xattrs(self) -> dict[str, bytes]:
        """Return the extended attributes that a layer may have: those of the image, not of the host.

        Raises:
            Unsupported: the file's content is in another layer (metacopy). Our mounts forbid that.
        """
        found, marks, name = {}, self._stack.marks, self.proc_path
        for key in sorted(os.listxattr(name)):
            if marks and key == f"{marks}metacopy":
                raise _elsewhere(self.path, "metacopy")
            if key == CAPABILITY or key.startswith(("user.", "system.posix_acl_")):
                if not key.startswith(USERS_MARKS):
                    found[key] = self._owners.xattr(key, os.getxattr(name, key))
        return found

    def all_xattrs(self) -> dict[str, bytes]:
        """Return all extended attributes, also overlayfs's marks and those of the kernel."""
        name = self.proc_path
        return {key: self._owners.xattr(key, os.getxattr(name, key)) for key in os.listxattr(name)}

    def children(self) -> dict[str, Child]:
        """Return the content of a directory, in no order.

        Raises:
            OSError: with the path.
            Unsupported: overlayfs moved the directory (redirect_dir). Our mounts forbid that.
        """
        files: dict[str, int] = {}
        directories: dict[str, list[int]] = {}
        covered: set[str] = set()  # files and removed names, which hide those in the layers below
        for layer in self.layers:
            for name, kind in self._scan(layer):
                if name in covered:
                    continue
                if stat.S_ISDIR(kind):
                    directories.setdefault(name, []).append(layer)
                    continue
                covered.add(name)
                if kind and name not in directories:
                    files[name] = layer
        found = {name: Child((layer,), False) for name, layer in files.items()}
        for name, layers in directories.items():
            found[name] = Child(tuple(layers), True)
        return found

    def child(self, name: str, listed: Child) -> Node:
        """Open a name in a directory. It may have changed its type since it was listed.

        Raises:
            OSError: with the path; `is_gone` if it was removed since.
        """
        layer, path = listed.layers[0], self.path_of(name)
        node = Node(self._stack, path, listed.layers, self._look(layer, name))
        with on_failure(node.close):
            if self._stack.marks and is_whiteout(node.status):
                raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)
            if node.is_directory:
                self._stack.hold(node)
            if not node.is_directory or not listed.is_directory:
                node.layers = (layer,)
            elif len(node.layers) > 1:
                node.layers = self._stack.merging(node)
            return node

    def read_small(self, names: Sequence[str]) -> Iterator[SmallFile | None]:
        """Yield mode, owner, mtime in ns and content of small files in this directory's topmost layer.

        None stands for a file that must be opened: see `read_small_files`. Nobody may change the tree meanwhile.
        """
        from minibox.linux.listing import RECORD
        from minibox.linux.small_files import read_small_files

        for found in read_small_files(self.fd, names):
            if found is None:
                yield None
                continue
            fields = RECORD.unpack(found[0])
            yield stat.S_IMODE(fields[5]), self._owners.of_ids(fields[6], fields[7]), fields[3], found[1]

    def find(self, name: str) -> Node | None:
        """Open a name in a directory without listing it; None if it doesn't exist."""
        layers: list[int] = []
        for layer in self.layers:
            try:
                fd = self._look(layer, name)
            except FileNotFoundError:
                continue
            with closing(fd):
                status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                layers.append(layer)
                continue
            if not layers and not (self._stack.marks and is_whiteout(status)):
                return self.child(name, Child((layer,), False))
            break
        return self.child(name, Child(tuple(layers), True)) if layers else None

    @property
    def _owners(self) -> Owners:
        return AS_ON_DISK if self.layers[0] else self._stack.owners

    def path_of(self, name: str) -> str:
        """Return the path of a name in this directory."""
        return f"{self.path}/{name}" if self.path else name

    def _look(self, layer: int, name: str) -> int:
        path = self.path_of(name)
        if layer != self.layers[0]:
            return self._stack.open_beneath(layer, path, LOOK)
        try:
            return os.open(name, LOOK | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), path) from error

    def _scan(self, layer: int) -> list[tuple[str, int]]:
        """Return name and type (as in ``st_mode``) of this directory's entries in one layer.

        The type is 0 for a whiteout, and ``S_IFREG`` for other files that aren't directories.
        """
        marks = self._stack.marks
        if layer == self.layers[0]:
            fd = self.open(LIST_OPEN)
        else:
            fd = self._stack.open_beneath(layer, self.path, READ_DIRECTORY)
        with closing(fd):
            if marks and f"{marks}redirect" in os.listxattr(fd):
                raise _elsewhere(self.path, "redirect_dir")
            if self._stack.without and os.fstat(fd).st_dev in self._stack.without:
                return []
            found = []
            with os.scandir(fd) as entries:
                for entry in entries:
                    kind = stat.S_IFREG
                    if entry.is_dir(follow_symlinks=False):
                        kind = stat.S_IFDIR
                    elif marks and not (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                        kind = _kind_of_special(entry)
                    found.append((entry.name, kind))
            return found


class Stack(AutoClose):
    """A stack of directories; use it in a ``with`` statement, and its nodes in one thread.

    Attributes:
        identities: device and inode of each directory. Two stacks share a layer if these are equal.
        root: the merged root directory.
    """

    def __init__(
        self, fds: Sequence[int], marks: str, without: frozenset[int] = frozenset(), owners: Owners | None = None
    ) -> None:
        """
        Args:
            fds: the open directories, topmost first (O_PATH suffices); closed with the stack. Others may change only
                the topmost one meanwhile. If there is only one, it may be a file, which is then the root.
            marks: `ROOTS_MARKS` or `USERS_MARKS`; "" for a single tree, which has no whiteouts.
            without: devices (``st_dev``) whose directories count as empty: /proc and the like.
            owners: converts the owners of the topmost directory's files, if they differ from those on disk.
        """
        self.marks, self.without, self.owners = marks, without, owners or AS_ON_DISK
        self._fds = tuple(fds)
        self.held: dict[Node, None] = {}  # open directories, the last used last
        statuses = [os.fstat(fd) for fd in self._fds]
        self.identities = tuple((status.st_dev, status.st_ino) for status in statuses)
        self.root = self._root() if fds else _Nothing(self)

    def close(self) -> None:
        """Close the layers and all nodes."""
        for node in list(self.held):
            node.close()
        self.root.close()
        close_descriptors(*self._fds)

    def identity(self, child: Child) -> tuple[tuple[int, int], ...]:
        """Return the layers that a file comes from. If they are equal in another stack, the file is the same."""
        return tuple(self.identities[layer] for layer in child.layers)

    def open_beneath(self, layer: int, path: str, flags: int) -> int:
        """Open a path in one layer; an OSError has the path."""
        return open_beneath(self._fds[layer], path or ".", flags)

    def find(self, path: str, *, follow: bool = True) -> Node | None:
        """Open a path, following symlinks as a process with this root would; None if it doesn't exist.

        Args:
            follow: follow a symlink in the last part, too.
        """
        waiting, above, links = path.split("/")[::-1], [self.root], 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                del above[max(1, len(above) - 1) :]
            if part in ("", ".", ".."):
                continue
            node = above[-1].find(part)
            if node is None:
                return None
            if node.is_directory:
                above.append(node)
                continue
            is_link, is_last = stat.S_ISLNK(node.status.st_mode), not any(waiting)
            if is_last and not (is_link and follow):
                return node
            with node:
                links += 1
                if not is_link or links > SYMLINKS_MAX:
                    return None
                target = os.fsdecode(node.readlink())
            waiting += target.split("/")[::-1]
            if target.startswith("/"):
                del above[1:]
        return above[-1] if self.root.layers else None

    def hold(self, node: Node) -> None:
        """Keep a directory open. If there are too many, close the one that was used longest ago."""
        self.held.pop(node, None)
        self.held[node] = None
        if len(self.held) > DIRECTORIES_OPEN_MAX:
            next(iter(self.held)).close()

    def merging(self, node: Node) -> tuple[int, ...]:
        """Return the layers of a directory that are visible: none below an opaque one."""
        opaque = f"{self.marks}opaque"
        for number, layer in enumerate(node.layers[:-1], 1):
            topmost = number == 1
            fd = node.open(LIST_OPEN) if topmost else self.open_beneath(layer, node.path, READ_DIRECTORY)
            try:
                if os.getxattr(fd, opaque) == b"y":
                    return node.layers[:number]
            except OSError:
                continue  # no such attribute
            finally:
                os.close(fd)
        return node.layers

    def _root(self) -> Node:
        node = Node(self, "", tuple(range(len(self._fds))), os.dup(self._fds[0]))
        if self.marks and len(node.layers) > 1:
            node.layers = self.merging(node)
        return node


class _Nothing(Node):
    """The root of a stack without a layer."""

    __slots__ = ()

    def __init__(self, stack: Stack) -> None:
        self._stack, self._fd, self.path, self.layers = stack, -1, "", ()


def own_marks() -> str:
    """Return the prefix of overlayfs's marks in our mounts: root of a user namespace can't read trusted xattrs."""
    ours = os.geteuid() == 0 and os.readlink("/proc/self/ns/user") == FIRST_USER_NAMESPACE
    return ROOTS_MARKS if ours else USERS_MARKS


def is_whiteout(status: os.stat_result) -> bool:
    """Tell whether a file is a whiteout of overlayfs, which hides its name in the layers below."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_gone(error: OSError) -> bool:
    """Tell whether an error means that a listed file was removed or replaced since."""
    return error.errno in (ENOENT, ENOTDIR, ELOOP)


def _kind_of_special(entry: os.DirEntry[str]) -> int:
    try:
        return 0 if is_whiteout(entry.stat(follow_symlinks=False)) else stat.S_IFREG
    except FileNotFoundError:
        return 0


def _elsewhere(path: str, feature: str) -> Unsupported:
    return Unsupported(
        f"read /{path}: overlayfs keeps it elsewhere ({feature})",
        f"it was mounted by another tool or another minibox; mount it with {feature}=off",
    )
