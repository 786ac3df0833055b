"""Root file systems by the names that users have for them: of a container, an image, or a layer with those below it."""

from __future__ import annotations

import os

from minibox.base.shape import HEXADECIMAL
from minibox.engine.files import rootfs_setup
from minibox.engine.spec.compile import FILES
from minibox.engine.state import claim, containers
from minibox.errors import ContainerNotFound, ImageNotFound, InvalidReference, MiniboxError
from minibox.image.layer.stack import Stack, own_marks
from minibox.image.store import ImageStore
from minibox.record import record
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import lost_memory, memory_of, memory_owners, read_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from minibox.image.layout.image import ResolvedImage

OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LAYER_DIGITS_MIN = 8
#: What a start makes in a container's root to mount on, where its image lacks it.
MOUNT_POINTS = frozenset((*FILES, "/proc", "/sys", "/dev"))


@record
class Tree:
    """A root file system.

    Attributes:
        driver: the storage driver that has it.
        chain_ids: of its layers, bottom first.
        container_id: whose it is, on top of the layers; "" for the layers alone.
    """

    driver: str
    chain_ids: tuple[str, ...]
    container_id: str = ""

    def below(self) -> Tree:
        """What it was made of: a container's image, or a layer's parent."""
        return Tree(self.driver, self.chain_ids if self.container_id else self.chain_ids[:-1])


def find_tree(root: str, name: str, storage_driver: str = "") -> Tree:
    """The container, else the image, else the layer of that name or id; an image's layers are unpacked.

    A layer is named by its diff ID, chain ID or digest, or the beginning of one.

    Raises:
        MiniboxError: there is no such thing, or more than one.
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
    rootfs_setup.unpack(storage, store, image)
    return Tree(storage.driver, image.chain_ids[:count])


def container_tree(root: str, container_id: str) -> Tree:
    """The root file system of a container.

    Raises:
        ContainerNotFound: it has none (yet, or any more).
    """
    kept = read_record(root, container_id)
    if kept is None:
        raise ContainerNotFound(f"container {container_id[:12]} has no root file system")
    return Tree(kept[0], kept[1], container_id)


def open_memory(root: str, container_id: str) -> int:
    """A descriptor of the directory of a container's own layer, where that is in memory; -1 where it is on disk.

    Raises:
        Unsupported: it is in memory, and can't be had.
    """
    path = memory_of(root, container_id)
    if not path:
        return -1
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise lost_memory(container_id) from None
    if claim.live_process(root, container_id) > 0:  # else the descriptor is another process's by now
        return fd
    os.close(fd)
    raise lost_memory(container_id)


class Directories:
    """The directories that trees are made of, each opened once: trees that share a layer are seen to."""

    def __init__(self, root: str, *trees: Tree) -> None:
        """
        Args:
            trees: what of these is in memory is opened now: later it may be another process that reads them, which has
                no access to that of the owner.

        Raises:
            Unsupported: what a container has written is in memory, and can't be had.
        """
        self._root = root
        self._fds: dict[str, int] = {}
        self._memory: dict[str, int] = {}
        for tree in trees:
            if tree.container_id and (fd := open_memory(root, tree.container_id)) >= 0:
                self._memory[tree.container_id] = self._fds[f"memory of {tree.container_id}"] = fd
        self._marks = own_marks()

    def __enter__(self) -> Directories:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._fds.values():
            os.close(fd)

    def stack(self, tree: Tree) -> Stack:
        """The tree, to be read and closed by the caller.

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
    """An image that has a layer, and how many layers there are up to it.

    Raises:
        ContainerNotFound: there is none, or more than one layer is called so.
    """
    digits = name.removeprefix("sha256:")
    found: dict[str, tuple[ResolvedImage, int]] = {}
    if len(digits) >= LAYER_DIGITS_MIN and not set(digits) - HEXADECIMAL:
        for reference in store.names():
            try:
                image = store.resolve(reference)
                sources = store.layer_sources(image)
            except MiniboxError:
                continue  # a damaged image costs the others nothing
            for count, source in enumerate(sources, 1):
                ids = (source.diff_id, source.chain_id, f"sha256:{os.path.basename(source.blob_path)}")
                if any(each.startswith(f"sha256:{digits}") for each in ids):
                    found[source.diff_id] = image, count
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ContainerNotFound(f"layer {name!r} is ambiguous", "write more digits of it")
    raise ContainerNotFound(
        f"no container, image or layer is called {name!r}",
        "minibox ps --all lists containers, minibox images lists images",
    )
