"""Hide what is below a layer, as its `LayerTree` says: in a stack for overlayfs, or in a tree.

In a stack (kernel, overlayfs.rst) a character device 0:0 hides a name, and the xattr ``opaque`` on a directory hides
what the layers below have in it. Root sets that in both namespaces, trusted.overlay and user.overlay, since the same
layer may be mounted with ``userxattr`` or without. We make both only if something is below. Otherwise overlayfs would
merge the directory with no other, and would list its whiteouts as names that can't be opened.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager

from minibox.base.files import closing
from minibox.errors import Unsupported
from minibox.image.layer.attributes import copy_attributes
from minibox.image.layer.entry_names import join
from minibox.image.layer.stack import is_whiteout
from minibox.image.layer.tree import Directory, Leaf
from minibox.linux.files import open_beneath
from minibox.linux.removal import remove_at
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


NO_DIRECTORY = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
OPAQUE_XATTRS = ("trusted.overlay.opaque", "user.overlay.opaque")


@record
class Merge:
    """How to merge a directory of a layer with those below.

    Attributes:
        path: its path in the layer.
        directory: the layer's directory.
        lowers: the numbers of the layers below whose directory is merged with it, topmost first.
        opaque: mark it opaque, so that nothing below shows.
        whiteouts: names to hide with whiteouts.
        carried: directories to make only because of what they hide.
    """

    path: bytes
    directory: Directory
    lowers: tuple[int, ...] = ()
    opaque: bool = False
    whiteouts: tuple[bytes, ...] = ()
    carried: tuple[bytes, ...] = ()


class Lowers:
    """The layers below, topmost first, as overlayfs merges them.

    Args:
        fds: their directories; keep these open while you use this object.
    """

    def __init__(self, fds: Sequence[int]) -> None:
        self._fds = fds

    def merges(self, root: Directory) -> Iterator[Merge]:
        """Yield all directories of a layer's tree that have something below, from the top down.

        Raises:
            OSError: a directory can't be read.
        """
        waiting = [(b"", root, tuple(range(len(self._fds))))]
        while waiting:
            path, directory, below = waiting.pop()
            if not below:
                continue
            hidden, opaque = directory.hidden, directory.is_opaque
            if opaque and not path:
                hidden, opaque = hidden | self._names(below), False  # overlayfs merges root directories in any case
            whiteouts, carried = [], []
            for name in sorted(hidden | directory.children.keys()) if not opaque else ():
                child, inner = directory.children.get(name), join(path, name)
                if name not in hidden:
                    if isinstance(child, Directory) and (merged := self.merged(below, inner)):
                        waiting.append((inner, child, merged))
                        if not child.is_real:
                            carried.append(name)
                elif child is None or (isinstance(child, Directory) and not child.is_real):
                    if self.shows(below, inner):
                        whiteouts.append(name)
                elif isinstance(child, Directory) and self.merged(below, inner):
                    yield Merge(inner, child, opaque=True)
            yield Merge(path, directory, below, opaque, tuple(whiteouts), tuple(carried))

    def merged(self, below: Sequence[int], path: bytes) -> tuple[int, ...]:
        """Return the layers whose directory ``path`` is merged with one on top; ``below`` have the parent directory."""
        found = []
        for layer in below:
            status = _status(self._fds[layer], path)
            if status is None:
                continue
            if not stat.S_ISDIR(status.st_mode):
                break
            found.append(layer)
            if self._is_opaque(layer, path):
                break
        return tuple(found)

    def shows(self, below: Sequence[int], path: bytes) -> bool:
        """Tell whether these layers, which have the parent directory, show something at ``path``."""
        for layer in below:
            status = _status(self._fds[layer], path)
            if status is not None:
                return not is_whiteout(status)
        return False

    @contextmanager
    def open(self, layer: int, path: bytes) -> Iterator[int]:
        """Open a directory of one of the layers for a ``with`` block."""
        with opened(self._fds[layer], path) as fd:
            yield fd

    def _names(self, below: Sequence[int]) -> set[bytes]:
        """Return the names in the root directories of these layers."""
        names: set[bytes] = set()
        for layer in below:
            with self.open(layer, b"") as fd:
                names.update(map(os.fsencode, os.listdir(fd)))
        return names

    def _is_opaque(self, layer: int, path: bytes) -> bool:
        try:
            with self.open(layer, path) as fd:
                return is_opaque(fd)
        except PermissionError:
            return False  # an ordinary user can't read it, and so hasn't marked it either


def merge_into_stack(layer_fd: int, root: Directory, lowers: Lowers, *, owner: bool) -> None:
    """Hide what is below a layer that overlayfs will stack.

    Also give directories without an entry the attributes that they have below, since overlayfs shows those of the
    topmost one.

    Args:
        layer_fd: the directory of the unpacked layer.
        root: the root of its tree.
        owner: owners were kept.

    Raises:
        OSError: the kernel refused.
        Unsupported: the file system doesn't support these xattrs.
    """
    alike: list[tuple[bytes, int]] = []
    closed: list[tuple[bytes, int]] = []
    for merge in lowers.merges(root):
        with _opened_to_change(layer_fd, merge.path) as (fd, before):
            closed.append((merge.path, stat.S_IMODE(before.st_mode)))
            for name in merge.carried:
                os.mkdir(name, 0o700, dir_fd=fd)
            for name in merge.whiteouts:
                os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=fd)
            if merge.opaque:
                make_opaque(fd)
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        if merge.lowers and merge.directory.entry is None:
            alike.append((merge.path, merge.lowers[0]))
    adopted = dict(alike)
    for path, mode in reversed(closed):  # the deepest first: a mode may deny access even to us
        with opened(layer_fd, path) as fd:
            if path not in adopted:
                os.fchmod(fd, mode)
                continue
            with lowers.open(adopted[path], path) as lower:
                copy_attributes(lower, fd, owner=owner)


def merge_into_tree(layer_fd: int, root: Directory) -> list[bytes]:
    """Remove what a layer hides from the tree that it was unpacked into. Directories keep their times.

    Returns:
        The directories of the layer that also replace the attributes of the old ones.

    Raises:
        OSError: the kernel refused.
    """
    anew: list[bytes] = []
    waiting = [(b"", root, False)]
    while waiting:
        path, directory, fresh = waiting.pop()
        clears = fresh or directory.is_opaque
        if fresh:
            anew.append(path)
        with ExitStack() as stack:
            try:
                fd, before = stack.enter_context(_opened_to_change(layer_fd, path))
            except OSError as error:
                if directory.is_real or error.errno not in NO_DIRECTORY:
                    raise
                continue  # nothing to hide
            for name in map(os.fsencode, os.listdir(fd)) if clears else list(directory.hidden):
                if not _is_real(directory.children.get(name)):
                    remove_at(name, fd)
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        for name, child in directory.children.items():
            if isinstance(child, Directory) and (child.is_real or not clears):
                waiting.append((join(path, name), child, clears or name in directory.hidden))
    return anew


def make_opaque(directory_fd: int) -> None:
    """Mark a directory so that overlayfs hides what is below it.

    Raises:
        Unsupported: the file system doesn't support these xattrs.
    """
    done = False
    for name in OPAQUE_XATTRS if os.geteuid() == 0 else OPAQUE_XATTRS[1:]:
        try:
            os.setxattr(directory_fd, name, b"y")
            done = True
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP):
                raise
    if not done:
        raise Unsupported(
            "mark a directory opaque: the file system doesn't support user xattrs",
            "set --root to a directory on ext4, xfs or btrfs",
        )


def is_opaque(directory_fd: int) -> bool:
    """Tell whether overlayfs hides what is below a layer's directory."""
    for name in OPAQUE_XATTRS:
        try:
            if os.getxattr(directory_fd, name) == b"y":
                return True
        except OSError:
            continue  # no such attribute, or we may not read it
    return False


@contextmanager
def opened(root_fd: int, path: bytes) -> Iterator[int]:
    """Open a directory below another for a ``with`` block."""
    with closing(open_beneath(root_fd, path or b".", OPEN_DIRECTORY)) as fd:
        yield fd


@contextmanager
def _opened_to_change(root_fd: int, path: bytes) -> Iterator[tuple[int, os.stat_result]]:
    """Like `opened`, but make the directory writable for its owner first; also give its old status."""
    with closing(open_beneath(root_fd, path or b".", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)) as place:
        before = os.fstat(place)
        if os.geteuid() and before.st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{place}", stat.S_IMODE(before.st_mode) | 0o700)
    with opened(root_fd, path) as fd:
        yield fd, before


def _is_real(node: Directory | Leaf | None) -> bool:
    return node is not None and (not isinstance(node, Directory) or node.is_real)


def _status(root_fd: int, path: bytes) -> os.stat_result | None:
    try:
        fd = open_beneath(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in NO_DIRECTORY:
            raise
        return None
    with closing(fd):
        return os.fstat(fd)
