"""Find root file systems by name: of a container, of an image, or of a layer with the layers below it."""

from __future__ import annotations

import os

from minibox.base.files import AutoClose, close_descriptors
from minibox.base.shape import HEXADECIMAL
from minibox.engine.files import rootfs_setup
from minibox.engine.spec.compile import FILES
from minibox.engine.state import claim, containers
from minibox.errors import ContainerNotFound, ImageNotFound, InvalidReference, MiniboxError
from minibox.image.layer.stack import Stack, own_marks
from minibox.image.layout.image import ResolvedImage
from minibox.image.store import ImageStore
from minibox.record import record
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import lost_memory, memory_of, memory_owners, read_record

OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LAYER_DIGITS_MIN = 8
# Mount points that a start makes in a container's root if its image lacks them.
MOUNT_POINTS = frozenset((*FILES, "/proc", "/sys", "/dev"))


@record
class Tree:
    """A root file system.

    Attributes:
        driver: the storage driver that has it.
        chain_ids: its layers, bottom first.
        container_id: the container on top of the layers; "" for the layers alone.
    """

    driver: str
    chain_ids: tuple[str, ...]
    container_id: str = ""

    def below(self) -> Tree:
        """Return what it was made from: a container's image, or a layer's parent."""
        return Tree(self.driver, self.chain_ids if self.container_id else self.chain_ids[:-1])


def find_tree(root: str, name: str, storage_driver: str = "") -> Tree:
    """Find the container, image or layer of a name or id, in this order. An image's layers are unpacked.

    A layer is named by its diff ID, chain ID or digest, or the beginning of one.

    Raises:
        MiniboxError: nothing has that name, or it is ambiguous.
    """
    try:
        return container_tree(root, containers.find(root, name)["Id"])
    except ContainerNotFound as error:
        if "ambiguous" in str(error):
            raise
    store = ImageStore(root)
    try:
        image = store.resolve(name)
        count = len(image.chain_ids)
    except (ImageNotFound, InvalidReference):
        image, count = _image_with_layer(store, name)
    storage = snapshotter(root, storage_driver)
    if count:
        rootfs_setup.unpack(storage, store, image)
    return Tree(storage.driver, image.chain_ids[:count])


def container_tree(root: str, container_id: str) -> Tree:
    """Return the root file system of a container.

    Raises:
        ContainerNotFound: it has none (yet, or any more).
    """
    kept = read_record(root, container_id)
    if kept is None:
        raise ContainerNotFound(f"container {container_id[:12]} has no root file system")
    return Tree(kept[0], kept[1], container_id)


def open_memory(root: str, container_id: str) -> int:
    """Return a descriptor of a container's own layer if the layer is in memory; -1 if it is on disk.

    Raises:
        Unsupported: it was in memory and is lost.
    """
    path = memory_of(root, container_id)
    if not path:
        return -1
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise lost_memory(container_id) from None
    if claim.live_process(root, container_id) > 0:  # otherwise another process may have the descriptor's number by now
        return fd
    os.close(fd)
    raise lost_memory(container_id)


class Directories(AutoClose):
    """The directories that trees consist of. A directory that trees share is opened only once."""

    def __init__(self, root: str, *trees: Tree) -> None:
        """Open the directories.

        Args:
            trees: layers in memory are opened now, since the process that reads them later may not have access.

        Raises:
            Unsupported: a container's layer was in memory and is lost.
        """
        self._root = root
        self._fds: dict[str, int] = {}
        self._memory: dict[str, int] = {}
        for tree in trees:
            if tree.container_id and (fd := open_memory(root, tree.container_id)) >= 0:
                self._memory[tree.container_id] = self._fds[f"memory of {tree.container_id}"] = fd
        self._marks = own_marks()

    def close(self) -> None:
        """Close the directories."""
        close_descriptors(*self._fds.values())

    def stack(self, tree: Tree) -> Stack:
        """Return the tree as a stack, which the caller closes.

        Raises:
            OSError: a directory can't be opened.
        """
        if not tree.chain_ids:
            return Stack((), "")
        storage = snapshotter(self._root, tree.driver)
        snapshot = storage.describe(tree.container_id or "none", tree.chain_ids)
        upper, owners = snapshot.upper, None
        if (memory_fd := self._memory.get(tree.container_id, -1)) >= 0:
            upper, owners = f"/proc/self/fd/{memory_fd}/upper", memory_owners(memory_fd)
        paths = ((upper,) if tree.container_id else ()) + snapshot.lowers
        if snapshot.kind == "tree":
            paths = paths[:1]
        for path in paths:
            if path not in self._fds:
                self._fds[path] = os.open(path, OPEN_DIRECTORY) if path == upper else storage.open_lower(path)
        marks = "" if snapshot.kind == "tree" else self._marks
        return Stack([os.dup(self._fds[path]) for path in paths], marks, owners=owners)


def _image_with_layer(store: ImageStore, name: str) -> tuple[ResolvedImage, int]:
    """Return an image that contains a layer, and the number of layers up to and including it.

    Raises:
        ContainerNotFound: there is none, or the name is ambiguous.
    """
    digits = name.removeprefix("sha256:")
    found: dict[str, tuple[ResolvedImage, int]] = {}
    if len(digits) >= LAYER_DIGITS_MIN and not set(digits) - HEXADECIMAL:
        for reference in store.names():
            try:
                image = store.resolve(reference)
                sources = store.layer_sources(image)
            except MiniboxError:
                continue  # one damaged image doesn't spoil the others
            for count, source in enumerate(sources, 1):
                ids = (source.diff_id, source.chain_id, f"sha256:{os.path.basename(source.blob_path)}")
                if any(each.startswith(f"sha256:{digits}") for each in ids):
                    found[source.diff_id] = image, count
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ContainerNotFound(f"layer {name!r} is ambiguous", "give more digits")
    raise ContainerNotFound(
        f"no such container, image or layer: {name!r}",
        "minibox ps --all lists containers, minibox images lists images",
    )
