"""Write a layer's entries into a directory that they can't leave.

Directories are opened relative to the layer's own with openat2(2), without leaving it and without following symlinks.
The `LayerTree` resolves symlinks on the way, as if the layer's directory were the root. Everything else works on a
single name, without a "/", in an open directory.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from minibox.base.files import AutoClose, closing
from minibox.errors import StoreError
from minibox.image.layer import tar
from minibox.image.layer.attributes import LayerAttributes
from minibox.image.layer.entry_names import PATH_BYTES_MAX, join, split_name
from minibox.image.layer.tree import WHITEOUT_NODE, WHITEOUT_PREFIX, Directory, LayerTree, Leaf
from minibox.image.layer.whiteouts import OPEN_DIRECTORY, merge_into_tree
from minibox.linux.files import open_beneath
from minibox.linux.removal import remove_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Literal, TypeVar

    from minibox.image.layer.attributes import OwnerPolicy

    Form = Literal["overlay", "apply"]
    Made = TypeVar("Made")


XATTR_HEADER_PREFIX = "SCHILY.xattr."
PLAIN_LEAF = Leaf()  # for all leaves that aren't symlinks: here we don't need to know which are hard links
IMPLIED = tar.Entry(b"", tar.DIRECTORY)  # the attributes of a directory without an entry in any layer
IMPLIED.mode = 0o755
CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Extractor(AutoClose):
    """Extracts the entries of one layer into ``directory``; use it in a ``with`` statement.

    ``form``: ``overlay`` fills an empty directory for overlayfs to stack. It doesn't write what hides the layers below:
    `whiteouts.merge_into_stack` does that once these exist. ``apply`` changes a full tree of all layers below, and
    removes what the layer hides. The `LayerTree` decides what the entries mean, so both give the same result.

    ``owner_policy``: ``keep`` gives each file the owner in its header (in a user namespace, its id map must contain
    that id), ``ignore`` gives all files to the caller, ``auto`` keeps owners if the caller is root.

    Directories get owner, mode, xattrs and times in `finish`: otherwise an ordinary user couldn't fill a read-only
    directory, and filling one would change its times.

    Attributes:
        tree: what the entries mean.
        skipped_devices: names of device nodes that the kernel didn't let us make.
    """

    def __init__(self, directory: str, owner_policy: OwnerPolicy = "auto", form: Form = "overlay") -> None:
        self._applies = form == "apply"
        self._attributes = LayerAttributes(owner_policy, replace=self._applies)
        self._root_fd = os.open(directory, OPEN_DIRECTORY | os.O_CLOEXEC)
        self.tree = LayerTree(self._make_directory)
        # Keep the last entry's directory open, since a tar lists one directory after the other: its real path, and
        # its path in the entry's name.
        self._parent = b""
        self._parent_fd = self._root_fd
        self._parent_as_named: bytes | None = None
        self._parent_node = self.tree.root
        # With "apply": the old status of directories of the layers below.
        self._below: dict[bytes, os.stat_result] = {b"": os.fstat(self._root_fd)} if self._applies else {}
        self.skipped_devices: list[bytes] = []

    def close(self) -> None:
        """Close the directories."""
        self._forget_parent()
        os.close(self._root_fd)

    def extract(self, entry: tar.Entry, content: Iterable[memoryview] = ()) -> None:
        """Write one entry. ``content`` is for a regular file; for a sparse one, without the holes.

        Raises:
            StoreError: the entry would leave the directory, or is invalid.
            OSError: the kernel refused.
        """
        self.tree.one_more()
        as_named, _, name = entry.name.rpartition(b"/")
        unusual = name in (b"", b".", b"..")
        try:
            if unusual or as_named != self._parent_as_named or name.startswith(WHITEOUT_PREFIX):
                components = split_name(entry.name)
                if not components:
                    if entry.kind != tar.DIRECTORY:
                        raise StoreError(f"entry {ascii(entry.name)} is not a directory but names the root")
                    self.tree.root.entry = entry
                    return
                if self.tree.add_whiteout(components):
                    return
                self._open_parent(components)
                name = components[-1]
                self._parent_as_named = None if unusual else as_named
            self._create(name, entry, content)
        except OSError as error:
            error.filename = error.filename2 = None
            raise OSError(error.errno, f"{os.strerror(error.errno or 0)}: {ascii(entry.name)}") from error

    @property
    def keeps_owner(self) -> bool:
        """Whether files get the owners in their headers."""
        return self._attributes.keeps_owner

    def finish(self) -> None:
        """Set the attributes of directories, the deepest first. With ``apply``, first remove what the layer hides."""
        anew = merge_into_tree(self._root_fd, self.tree.root) if self._applies else []
        for path in anew:
            self._below.pop(path, None)
        directories = [(b"", self.tree.root)]
        for path, directory in directories:
            directories += [
                (join(path, name), child)
                for name, child in directory.children.items()
                if isinstance(child, Directory) and child.is_real
            ]
        for path, directory in reversed(directories):
            with closing(self._open(path)) as descriptor:
                if directory.entry is None and (was := self._below.get(path)):
                    os.utime(descriptor, ns=(was.st_atime_ns, was.st_mtime_ns))
                else:
                    self._attributes.apply(descriptor, directory.entry or IMPLIED)
        self._forget_parent()

    # ---- entries: of `name` in the open parent -----------------------------------------------------

    def _create(self, name: bytes, entry: tar.Entry, content: Iterable[memoryview]) -> None:
        path = self._path_of(name)
        kind = entry.kind
        leaf = PLAIN_LEAF
        if kind == tar.REGULAR:
            self._write_file(name, entry, content)
        elif kind == tar.DIRECTORY:
            there = self._parent_node.children.get(name)
            if not (isinstance(there, Directory) and there.is_real):
                self._make_directory(path)
        elif kind == tar.SYMLINK:
            if not entry.link or b"\0" in entry.link or len(entry.link) >= PATH_BYTES_MAX:
                raise StoreError(f"symlink {ascii(entry.name)} has an invalid target")
            self._place(name, lambda: os.symlink(entry.link, name, dir_fd=self._parent_fd))
            self._attributes.apply_at(name, self._parent_fd, entry)
            leaf = Leaf(entry.link)
        elif kind == tar.HARD_LINK:
            leaf = self._link(name, path, entry)
        elif (kind, entry.device) == WHITEOUT_NODE:
            self._make_room(name)
        elif not self._make_node(name, entry):
            # Only the host's root can make devices. It does no harm: containers get their own /dev.
            self.skipped_devices.append(entry.name)
            self._make_room(name)
            self.tree.remove(self._parent_node, name)
            return
        self.tree.place(self._parent_node, name, entry, leaf)

    def _write_file(self, name: bytes, entry: tar.Entry, content: Iterable[memoryview]) -> None:
        with closing(
            self._place(name, lambda: os.open(name, CREATE_FILE, 0o600, dir_fd=self._parent_fd))
        ) as descriptor:
            if entry.sparse is not None:
                _write_pieces(descriptor, entry.sparse, content)
                os.ftruncate(descriptor, entry.size)
            elif entry.size:
                for piece in content:
                    _write_all(descriptor, piece)
            self._attributes.apply(descriptor, entry)

    def _make_node(self, name: bytes, entry: tar.Entry) -> bool:
        """Make a FIFO or a device; False if we aren't permitted to."""
        kind = {tar.FIFO: stat.S_IFIFO, tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK}[entry.kind]
        major, minor = entry.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise StoreError(f"{ascii(entry.name)} is a device {major}:{minor}: not valid numbers")
        device = os.makedev(major, minor)
        try:
            self._place(name, lambda: os.mknod(name, kind | 0o600, device, dir_fd=self._parent_fd))
        except PermissionError:
            return False
        self._attributes.apply_at(name, self._parent_fd, entry)
        return True

    def _link(self, name: bytes, path: bytes, entry: tar.Entry) -> Leaf:
        target_path, leaf = self.tree.linked(entry)
        if target_path == path:
            return leaf  # some tools write a hard link to itself
        target_parent, _, target_name = target_path.rpartition(b"/")
        with self._opened(target_parent) as target_fd:
            self._place(
                name,
                lambda: os.link(
                    target_name, name, src_dir_fd=target_fd, dst_dir_fd=self._parent_fd, follow_symlinks=False
                ),
            )
        return leaf

    def _place(self, name: bytes, make: Callable[[], Made]) -> Made:
        """Make ``name``, replacing what is there."""
        try:
            return make()
        except FileExistsError:
            self._make_room(name)
            return make()

    def _make_room(self, name: bytes) -> None:
        """Remove ``name`` to make room for another entry of that name."""
        remove_at(name, self._parent_fd)
        self._parent_as_named = None

    # ---- directories -------------------------------------------------------------------------------

    def _make_directory(self, path: bytes) -> None:
        """Make a directory that is closed to others for now; keep one of the layers below."""
        parent, _, name = path.rpartition(b"/")
        with self._opened(parent) as parent_fd:
            try:
                os.mkdir(name, 0o700, dir_fd=parent_fd)
            except FileExistsError:
                present = os.lstat(name, dir_fd=parent_fd)
                if stat.S_ISDIR(present.st_mode):
                    self._below[path] = present
                    return
                remove_at(name, parent_fd)
                self._parent_as_named = None
                os.mkdir(name, 0o700, dir_fd=parent_fd)

    def _open_parent(self, components: list[bytes]) -> None:
        """Open the directory of an entry as `_parent`, and make missing directories on the way."""
        path, self._parent_node = self.tree.parent(components)
        if path != self._parent:
            self._forget_parent()
            self._parent, self._parent_fd = path, self._open(path)

    @contextmanager
    def _opened(self, path: bytes) -> Iterator[int]:
        if path == self._parent:
            yield self._parent_fd
            return
        with closing(self._open(path)) as descriptor:
            yield descriptor

    def _open(self, path: bytes) -> int:
        return open_beneath(self._root_fd, path, OPEN_DIRECTORY) if path else os.dup(self._root_fd)

    def _path_of(self, name: bytes) -> bytes:
        path = join(self._parent, name)
        if len(path) > PATH_BYTES_MAX:
            raise StoreError(f"the path {ascii(path[:60])}... is longer than {PATH_BYTES_MAX} bytes")
        return path

    def _forget_parent(self) -> None:
        if self._parent_fd != self._root_fd:
            os.close(self._parent_fd)
        self._parent, self._parent_fd = b"", self._root_fd
        self._parent_as_named = None


def _write_all(descriptor: int, piece: memoryview) -> None:
    written = os.write(descriptor, piece)
    while written < len(piece):
        written += os.write(descriptor, piece[written:])


def _write_pieces(descriptor: int, places: list[tuple[int, int]], content: Iterable[memoryview]) -> None:
    """Write a sparse file's pieces to their places. The space between them stays a hole."""
    pieces = iter(content)
    piece = memoryview(b"")
    for offset, length in places:
        os.lseek(descriptor, offset, os.SEEK_SET)
        while length:
            if not piece:
                piece = next(pieces)
            _write_all(descriptor, piece[:length])
            length, piece = length - min(length, len(piece)), piece[length:]
