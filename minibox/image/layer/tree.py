"""What the entries of one layer mean, in whatever order they come. Both unpacking and checking use this.

Entries are applied one after the other (OCI image-spec, layer.md). A later entry replaces an earlier one of the same
name, except that a directory stays and only gets new attributes. A directory without an entry exists if something is
in it. A symlink of the same layer on the way to an entry is followed, as if the layer were the root. A symlink of a
layer below is
not followed: the layer's directory replaces it.

A whiteout or an opaque marker affects only the layers below, wherever it comes among the entries. It doesn't create
anything itself: if nothing is below, there is nothing to hide.
"""

from __future__ import annotations

from minibox.errors import StoreError
from minibox.image.layer.entry_names import PATH_BYTES_MAX, split_name
from minibox.image.layer.tar import CHARACTER, DIRECTORY, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
#: overlayfs takes this device for a whiteout, so we do, too.
WHITEOUT_NODE = (CHARACTER, (0, 0))
NAME_BYTES_MAX = 255
SYMLINKS_MAX = 40
#: Each entry costs an inode. The largest real layers have a tenth of this.
ENTRIES_MAX = 4_000_000


class Leaf:
    """Anything but a directory. Hard links share one.

    Attributes:
        target: the target of a symlink; otherwise empty.
    """

    __slots__ = ("target",)

    def __init__(self, target: bytes = b"") -> None:
        self.target = target


class Directory:
    """A directory of a layer.

    Attributes:
        children: its content by name.
        hidden: names that hide those of the layers below, with their attributes: removed or replaced ones.
        is_opaque: it hides all names of the layers below.
        is_real: False if it only exists to hide names, if there are any.
        entry: its own entry; None if other entries imply it.
    """

    __slots__ = ("children", "entry", "hidden", "is_opaque", "is_real")

    def __init__(self) -> None:
        self.children: dict[bytes, Directory | Leaf] = {}
        self.hidden: set[bytes] | frozenset[bytes] = frozenset()
        self.is_opaque = self.is_real = False
        self.entry: Entry | None = None

    def hide(self, name: bytes) -> None:
        """Hide the name in the layers below."""
        if isinstance(self.hidden, frozenset):
            self.hidden = set()
        self.hidden.add(name)

    @property
    def needs_lowers(self) -> bool:
        """Whether it depends on the layers below."""
        return self.entry is None or self.is_opaque or bool(self.hidden or self.children)

    def prune(self) -> None:
        """Remove all descendants that don't depend on the layers below."""
        directories = [self]
        for directory in directories:
            directories += [child for child in directory.children.values() if isinstance(child, Directory)]
        for directory in reversed(directories):
            if directory is self and self.is_opaque:
                continue  # in an opaque root, each name matters
            directory.hidden = {
                name for name in directory.hidden if not isinstance(directory.children.get(name), Leaf)
            } or frozenset()
            directory.children = {
                name: child
                for name, child in directory.children.items()
                if isinstance(child, Directory) and (child.needs_lowers or name in directory.hidden)
            }


class LayerTree:
    """The tree of a layer's entries.

    Args:
        on_implied: called with the path of each directory that an entry implies, before the entry is added.
    """

    def __init__(self, on_implied: Callable[[bytes], None] = lambda path: None) -> None:
        self.root = Directory()
        self.root.is_real = True
        self._on_implied = on_implied
        self._count = 0

    def one_more(self) -> None:
        """Count an entry, or a directory that one implies.

        Raises:
            StoreError: there are too many.
        """
        self._count += 1
        if self._count > ENTRIES_MAX:
            raise StoreError(f"the layer has more than {ENTRIES_MAX} entries")

    def parent(self, components: Sequence[bytes]) -> tuple[bytes, Directory]:
        """Return the path and the directory for an entry with these components. Missing directories are made.

        Raises:
            StoreError: it isn't a directory, or it is nested too deep.
        """
        found = self._walk(components[:-1], make=True)
        if found is None:
            above = b"/".join(components[:-1])
            raise StoreError(f"{ascii(above)} is not a directory, but an entry is inside it")
        for length in range(1, len(found) + 1):
            directory = found[length - 1][1]
            if not directory.is_real:
                self._on_implied(b"/".join(name for name, _ in found[1:length]))
                directory.is_real = True
        return b"/".join(name for name, _ in found[1:]), found[-1][1]

    def linked(self, entry: Entry) -> tuple[bytes, Leaf]:
        """Return the path of a hard link's target, and the target.

        Raises:
            StoreError: the target isn't in this layer (overlayfs can't show a link to a layer below), or is a
                directory.
        """
        what = f"hard link {ascii(entry.name)}"
        components = split_name(entry.link)
        if not components:
            raise StoreError(f"{what} to the root directory")
        above = self._walk(components[:-1], make=False)
        node = above[-1][1].children.get(components[-1]) if above else None
        if above is None or not isinstance(node, Leaf):
            why = "is a directory" if isinstance(node, Directory) and node.is_real else "is not in the layer"
            raise StoreError(f"{what}: its target {ascii(entry.link)} {why}")
        return b"/".join([*(name for name, _ in above[1:]), components[-1]]), node

    def place(self, parent: Directory, name: bytes, entry: Entry, leaf: Leaf) -> None:
        """Give an entry this name. An existing directory stays.

        Args:
            leaf: used if the entry isn't a directory.
        """
        if (entry.kind, entry.device) == WHITEOUT_NODE:
            self.remove(parent, name)
            return
        if entry.kind != DIRECTORY:
            parent.children[name] = leaf
            return
        there = parent.children.get(name)
        if not isinstance(there, Directory):
            if there is not None:
                parent.hide(name)  # as the leaf that it replaces did
            there = parent.children[name] = Directory()
        there.is_real, there.entry = True, entry

    def remove(self, parent: Directory, name: bytes) -> None:
        """Remove a name, also from the layers below."""
        parent.children.pop(name, None)
        parent.hide(name)

    def add_whiteout(self, components: Sequence[bytes]) -> bool:
        """Add a whiteout or an opaque marker; False if the name isn't one.

        Raises:
            StoreError: the whiteout names nothing.
        """
        name = components[-1]
        if not name.startswith(WHITEOUT_PREFIX):
            return False
        hidden = name[len(WHITEOUT_PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise StoreError(f"entry {ascii(name)} is not a valid whiteout")
        if name.startswith(AUFS_PREFIX) and name != OPAQUE_MARKER:
            return True  # aufs's own bookkeeping
        above = self._walk(components[:-1], make=True)
        if above is None:
            return True  # its parent isn't a directory, and hides everything below already
        if name == OPAQUE_MARKER:
            above[-1][1].is_opaque = True
        elif len(hidden) <= NAME_BYTES_MAX:
            above[-1][1].hide(hidden)
        return True

    def _walk(self, components: Sequence[bytes], *, make: bool) -> list[tuple[bytes, Directory]] | None:
        """Return the directories on the way with their names, the root first. Symlinks are resolved.

        None if one isn't a directory, or, without ``make``, doesn't exist.
        """
        waiting = list(reversed(components))
        found = [(b"", self.root)]
        symlinks = 0
        while waiting:
            name = waiting.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                del found[max(len(found) - 1, 1) :]  # in a symlink's target; the root is its own parent
                continue
            child = found[-1][1].children.get(name)
            if isinstance(child, Directory):
                found.append((name, child))
            elif child is None:
                if not make:
                    return None
                length = sum(len(each) + 1 for each, _ in found[1:]) + len(name)
                if length > PATH_BYTES_MAX:
                    raise StoreError(f"directories are nested too deep, more than {PATH_BYTES_MAX} bytes of names")
                self.one_more()
                found[-1][1].children[name] = child = Directory()
                found.append((name, child))
            elif not child.target:
                return None
            else:
                symlinks += 1
                if symlinks > SYMLINKS_MAX:
                    raise StoreError(f"too many symlinks on the way to {ascii(b'/'.join(components))}")
                if child.target.startswith(b"/"):
                    del found[1:]
                waiting.extend(reversed(child.target.split(b"/")))
        return found
