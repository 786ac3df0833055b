"""Writing a layer's entries into a directory that they can't leave.

Each directory is opened from the layer's own by openat2(2), which must neither leave it nor follow a symlink;
a symlink on the way is resolved here, as if the directory were the root. All else is done to one name, without a "/",
in a directory that is open.

Whiteouts (OCI image-spec, layer.md) become what overlayfs reads (kernel, overlayfs.rst): a
character device 0:0 for a removed name; the xattr ``opaque`` for a directory whose lower content
is hidden. As root the xattr is set in both namespaces, trusted.overlay and user.overlay, since the
same layer may be mounted with ``userxattr`` or without.
"""

from __future__ import annotations

import os
import stat

from minibox.errors import StoreError
from minibox.image import tar
from minibox.image.attributes import LayerAttributes
from minibox.image.entry_names import PATH_BYTES_MAX, join, prefixes, split_name
from minibox.image.whiteouts import (
    AUFS_PREFIX,
    NO_DIRECTORY,
    OPAQUE_MARKER,
    OPEN_DIRECTORY,
    WHITEOUT_PREFIX,
    lstat,
    make_opaque,
)
from minibox.linux.files import open_beneath
from minibox.storage.removal import remove_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Literal

    from minibox.image.attributes import OwnerPolicy

    Form = Literal["overlay", "apply"]

XATTR_HEADER_PREFIX = "SCHILY.xattr."
SYMLINKS_MAX = 40
#: Each costs an inode. The largest layers that people have are a tenth of it.
ENTRIES_MAX = 4_000_000
CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Extractor:
    """Extracts the entries of one layer into ``directory``; for use in a ``with`` statement.

    ``form``: ``overlay`` fills an empty directory, to be stacked by overlayfs; ``apply`` changes a full
    tree, the layers below: whiteouts remove, and what is there is replaced. Both mean the same: in a
    stack, a layer's directory hides a symlink of that name below, and so it replaces it in a tree.

    ``owner_policy``: ``keep`` gives each file the owner in its header (who has an id map must have
    that id in it), ``ignore`` leaves all to the caller, ``auto`` keeps when the caller is root.

    Directories get owner, mode, xattrs and times in `finish`: a read-only directory must not stop
    an ordinary user from filling it, and filling it would change its times.

    Attributes:
        implied: paths of directories that are not from below and have no entry of their own, once `finish` was called;
            the root's is empty.
        hides_all_below: the layer's root is opaque, which overlayfs doesn't look at; see `hide_all_below`.
        skipped_devices: names of device nodes that the kernel didn't let us make.
    """

    def __init__(self, directory: str, owner_policy: OwnerPolicy = "auto", form: Form = "overlay") -> None:
        self._attributes = LayerAttributes(owner_policy, replace=form == "apply")
        self._root_fd = os.open(directory, OPEN_DIRECTORY | os.O_CLOEXEC)
        # The directory of the last entry is kept open: tars come directory by directory. Its real path, and how
        # the entry's name had it.
        self._parent = b""
        self._parent_fd = self._root_fd
        self._parent_as_named: bytes | None = None
        self._directories: dict[bytes, tar.Entry] = {}
        self._whiteouts: set[bytes] = set()
        self._applies = form == "apply"
        self._made: set[bytes] = set()  # with "apply": what this layer has, and the directories above it
        self._count = 0
        self.implied: set[bytes] = set() if self._applies else {b""}
        self.hides_all_below = False
        self.skipped_devices: list[bytes] = []

    def __enter__(self) -> Extractor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget_parent()
        os.close(self._root_fd)

    def extract(self, entry: tar.Entry, content: Iterable[memoryview] = ()) -> None:
        """Write one entry; ``content`` is a regular file's, of a sparse one without the holes.

        Raises:
            StoreError: the entry would leave the directory or can't be meant.
            OSError: the kernel refused.
        """
        self._one_more()
        as_named, _, name = entry.name.rpartition(b"/")
        unusual = name in (b"", b".", b"..")
        if unusual or as_named != self._parent_as_named:
            components = split_name(entry.name)
            if not components:
                if entry.kind != tar.DIRECTORY:
                    raise StoreError(f"entry {ascii(entry.name)} is not a directory but names the root")
                self._directories[b""] = entry
                return
            self._walk(components[:-1])
            name = components[-1]
            self._parent_as_named = None if unusual else as_named
        try:
            if name.startswith(WHITEOUT_PREFIX):
                self._whiteout(name)
            else:
                self._create(name, entry, content)
        except OSError as error:
            error.filename = error.filename2 = None
            raise OSError(error.errno, f"{os.strerror(error.errno or 0)}: {ascii(entry.name)}") from error

    @property
    def keeps_owner(self) -> bool:
        """Whether files get the owners in their headers."""
        return self._attributes.keeps_owner

    def finish(self) -> None:
        """Give directories their owner, mode, xattrs and times, the deepest first."""
        for path in sorted(self._directories, key=lambda path: path.count(b"/") if path else -1, reverse=True):
            try:
                descriptor = self._open(path)
            except OSError as error:
                if error.errno in NO_DIRECTORY:
                    continue  # a later entry has replaced it
                raise
            try:
                self._attributes.apply(descriptor, self._directories[path])
            finally:
                os.close(descriptor)
        self.implied.difference_update(self._directories)
        self._forget_parent()

    # ---- entries: of `name` in the open parent -----------------------------------------------------

    def _create(self, name: bytes, entry: tar.Entry, content: Iterable[memoryview]) -> None:
        path = self._path_of(name)
        if self._applies:
            self._made.update(prefixes(path))
        kind = entry.kind
        if kind == tar.REGULAR:
            self._write_file(name, path, entry, content)
        elif kind == tar.DIRECTORY:
            self._make_directory(name, path)
            self._directories[path] = entry
        elif kind == tar.SYMLINK:
            if not entry.link or b"\0" in entry.link or len(entry.link) >= PATH_BYTES_MAX:
                raise StoreError(f"symlink {ascii(entry.name)} leads to no path that can be")
            try:
                os.symlink(entry.link, name, dir_fd=self._parent_fd)
            except FileExistsError:
                self._make_room(name, path)
                os.symlink(entry.link, name, dir_fd=self._parent_fd)
            self._attributes.apply_at(name, self._parent_fd, entry)
        elif kind == tar.HARD_LINK:
            self._link(name, path, entry)
        else:
            self._make_node(name, path, entry)

    def _write_file(self, name: bytes, path: bytes, entry: tar.Entry, content: Iterable[memoryview]) -> None:
        try:
            descriptor = os.open(name, CREATE_FILE, 0o600, dir_fd=self._parent_fd)
        except FileExistsError:
            self._make_room(name, path)
            descriptor = os.open(name, CREATE_FILE, 0o600, dir_fd=self._parent_fd)
        try:
            if entry.sparse is not None:
                _write_pieces(descriptor, entry.sparse, content)
                os.ftruncate(descriptor, entry.size)
            elif entry.size:
                for piece in content:
                    _write_all(descriptor, piece)
            self._attributes.apply(descriptor, entry)
        finally:
            os.close(descriptor)

    def _make_directory(self, name: bytes, path: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=self._parent_fd)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(name, dir_fd=self._parent_fd).st_mode):
                return
            self._make_room(name, path)
            os.mkdir(name, 0o700, dir_fd=self._parent_fd)
            if path in self._whiteouts:  # removed and made anew: what is below stays hidden
                self._make_opaque(path)

    def _make_node(self, name: bytes, path: bytes, entry: tar.Entry) -> None:
        kind = {tar.FIFO: stat.S_IFIFO, tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK}[entry.kind]
        major, minor = entry.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise StoreError(f"{ascii(entry.name)} is a device {major}:{minor}: no such numbers can be")
        device = os.makedev(major, minor)
        try:
            try:
                os.mknod(name, kind | 0o600, device, dir_fd=self._parent_fd)
            except FileExistsError:
                self._make_room(name, path)
                os.mknod(name, kind | 0o600, device, dir_fd=self._parent_fd)
        except PermissionError:
            # An ordinary user, or root of a user namespace: containers get their own /dev.
            self.skipped_devices.append(entry.name)
            return
        self._attributes.apply_at(name, self._parent_fd, entry)

    def _link(self, name: bytes, path: bytes, entry: tar.Entry) -> None:
        target = split_name(entry.link)
        if not target:
            raise StoreError(f"hard link {ascii(entry.name)} to the root directory")
        target_path = self._real_path(target)
        if target_path == path:
            return  # some tools write a link to itself
        target_parent, _, target_name = target_path.rpartition(b"/")
        target_fd = self._parent_fd if target_parent == self._parent else self._open(target_parent)
        try:
            found = lstat(target_name, target_fd)
            if found is None or stat.S_ISDIR(found.st_mode):
                what = "is not in the layer" if found is None else "is a directory"
                raise StoreError(f"hard link {ascii(entry.name)}: its target {ascii(entry.link)} {what}")
            for tries_left in (1, 0):
                try:
                    os.link(target_name, name, src_dir_fd=target_fd, dst_dir_fd=self._parent_fd, follow_symlinks=False)
                    break
                except FileExistsError:
                    if not tries_left:
                        raise
                    self._make_room(name, path)
        finally:
            if target_fd != self._parent_fd:
                os.close(target_fd)

    def _whiteout(self, name: bytes) -> None:
        if self._applies:
            self._made.update(prefixes(self._parent))
        if name == OPAQUE_MARKER:
            if self._applies:
                self._remove_from_below(self._parent, itself=False)
            elif self._parent:
                self._make_opaque(self._parent)
            else:
                self.hides_all_below = True
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
        if name.startswith(AUFS_PREFIX):
            return  # aufs's own bookkeeping
        if hidden in (b"", b".", b".."):
            raise StoreError(f"entry {ascii(name)} is no whiteout")
        path = self._path_of(hidden)
        if self._applies:
            self._remove_from_below(path)
            return
        self._whiteouts.add(path)
        present = lstat(hidden, self._parent_fd)
        if present is None:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=self._parent_fd)
        elif stat.S_ISDIR(present.st_mode):
            # A whiteout is about the layers below only; this layer's own directory stays.
            self._make_opaque(path)

    def _make_opaque(self, path: bytes) -> None:
        descriptor = self._open(path)
        try:
            make_opaque(descriptor)
        finally:
            os.close(descriptor)

    def _remove_from_below(self, path: bytes, *, itself: bool = True) -> None:
        """Remove what is at ``path`` as far as it is not of this layer; with ``itself`` false, what is in it."""
        if itself and path not in self._made:
            self._remove(path)
            return
        waiting = [path]
        while waiting:
            directory = waiting.pop()
            try:
                descriptor = self._open(directory)
            except NotADirectoryError:
                continue
            try:
                for name in map(os.fsencode, os.listdir(descriptor)):
                    inner = join(directory, name)
                    if inner in self._made:
                        waiting.append(inner)
                    else:
                        remove_at(name, descriptor)
            finally:
                os.close(descriptor)

    def _remove(self, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        descriptor = self._open(parent)
        try:
            remove_at(name, descriptor)
        finally:
            os.close(descriptor)

    def _make_room(self, name: bytes, path: bytes) -> None:
        """Remove ``name``, which is in the way of another entry of that name."""
        remove_at(name, self._parent_fd)
        self._parent_as_named = None
        self._directories.pop(path, None)

    # ---- directories -------------------------------------------------------------------------------

    def _walk(self, components: list[bytes]) -> None:
        """Open a directory as the parent of what comes; its symlinks are resolved, what is missing is made."""
        path = b"/".join(components)
        if path != self._parent and not self._open_parent(path):
            self._open_parent(self._resolve(components, make=True))

    def _open_parent(self, path: bytes) -> bool:
        """Let `_parent` be the real directory ``path``; False when it isn't there or has a symlink in it."""
        try:
            descriptor = self._open(path)
        except OSError as error:
            if error.errno not in NO_DIRECTORY:
                raise
            return False
        self._forget_parent()
        self._parent, self._parent_fd = path, descriptor
        return True

    def _real_path(self, components: list[bytes]) -> bytes:
        """Of what may lie anywhere in the layer; only the symlinks above it are resolved."""
        above = b"/".join(components[:-1])
        if above != self._parent:
            try:
                os.close(self._open(above))
            except OSError:
                above = self._resolve(components[:-1], make=False)
        return join(above, components[-1])

    def _resolve(self, components: list[bytes], *, make: bool) -> bytes:
        """The real path, below the root, of a directory; its symlinks resolved, missing ones made."""
        waiting = list(reversed(components))
        real: list[bytes] = []
        symlinks = 0
        while waiting:
            name = waiting.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                del real[-1:]  # from a symlink; the root is its own parent
                continue
            parent_fd = self._open(b"/".join(real))
            try:
                real.append(name)
                target = self._step(name, parent_fd, real, make=make)
            finally:
                os.close(parent_fd)
            if target is None:
                continue
            symlinks += 1
            if symlinks > SYMLINKS_MAX:
                raise StoreError(f"too many symlinks on the way to {ascii(b'/'.join(components))}")
            real.pop()
            if target.startswith(b"/"):
                real.clear()
            waiting.extend(reversed(target.split(b"/")))
        return b"/".join(real)

    def _step(self, name: bytes, parent_fd: int, real: list[bytes], *, make: bool) -> bytes | None:
        """See to it that ``name`` is a directory; the target where it is a symlink that leads on."""
        path = b"/".join(real)
        present = lstat(name, parent_fd)
        if present is not None and stat.S_ISDIR(present.st_mode):
            return None
        if present is None:
            if not make:
                raise StoreError(f"directory {ascii(path)} is not in the layer")
            self._make_implied(name, parent_fd, path)
            return None
        if self._applies and make and path not in self._made:
            remove_at(name, parent_fd)  # of a layer below
            self._make_implied(name, parent_fd, path)
            return None
        if stat.S_ISLNK(present.st_mode):
            return os.readlink(name, dir_fd=parent_fd)
        if not (make and path in self._whiteouts and stat.S_ISCHR(present.st_mode)):
            raise StoreError(f"{ascii(path)} is not a directory, but an entry is to lie in it")
        # A whiteout came first, then the new directory's content: replaced, opaque.
        os.unlink(name, dir_fd=parent_fd)
        self._make_implied(name, parent_fd, path)
        self._make_opaque(path)
        return None

    def _make_implied(self, name: bytes, parent_fd: int, path: bytes) -> None:
        """Make a directory that has no entry of its own (yet), whatever the umask."""
        if len(path) > PATH_BYTES_MAX:
            raise StoreError(f"directories are nested too deep, more than {PATH_BYTES_MAX} bytes of names")
        self._one_more()
        os.mkdir(name, 0o700, dir_fd=parent_fd)
        os.chmod(name, 0o755, dir_fd=parent_fd)
        self.implied.add(path)
        if self._applies:
            self._made.update(prefixes(path))

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

    def _one_more(self) -> None:
        self._count += 1
        if self._count > ENTRIES_MAX:
            raise StoreError(f"the layer has more than {ENTRIES_MAX} entries")


def _write_all(descriptor: int, piece: memoryview) -> None:
    written = os.write(descriptor, piece)
    while written < len(piece):
        written += os.write(descriptor, piece[written:])


def _write_pieces(descriptor: int, places: list[tuple[int, int]], content: Iterable[memoryview]) -> None:
    """Write a sparse file's content to the places that it has; what is between stays a hole."""
    pieces = iter(content)
    piece = memoryview(b"")
    for offset, length in places:
        os.lseek(descriptor, offset, os.SEEK_SET)
        while length:
            if not piece:
                piece = next(pieces)
            _write_all(descriptor, piece[:length])
            length, piece = length - min(length, len(piece)), piece[length:]
