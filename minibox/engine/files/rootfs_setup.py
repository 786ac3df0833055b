"""Make and remove layers and containers' files, in a user namespace if an ordinary user needs one to own them."""

from __future__ import annotations

import os
from errno import EACCES, EPERM

from minibox.errors import CommandNotFound, StoreError, Unsupported, suppress
from minibox.storage.drivers import snapshotter_of
from minibox.storage.snapshot import RECORD, container_directory, read_record, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minibox.image.layer.unpack import LayerSource
    from minibox.image.layout.image import ResolvedImage
    from minibox.image.store import ImageStore
    from minibox.storage.drivers import Snapshotter


def unpack(snapshotter: Snapshotter, store: ImageStore, image: ResolvedImage) -> None:
    """Unpack the layers of an image that aren't unpacked yet.

    Raises:
        CommandNotFound: the image has no layers, so no files.
        StoreError: a layer is damaged, or the disk is full.
        Unsupported: the storage driver doesn't work here.
    """
    if not image.chain_ids:
        what = f"image {image.reference or image.config_digest} has no layers: there is no file in it to run"
        raise CommandNotFound(what, "build an image with files on it: COPY and RUN make them")
    if not snapshotter.is_unpacked(image.chain_ids):
        unpack_sources(snapshotter, store.layer_sources(image))


def unpack_sources(
    snapshotter: Snapshotter, sources: Sequence[LayerSource], on_progress: Callable[[str], None] | None = None
) -> None:
    """Like `unpack`, for the layers of an image that may not be in the store yet.

    Args:
        on_progress: as for `Snapshotter.unpack`; not called for an ordinary user.
    """
    if snapshotter.is_unpacked(tuple([source.chain_id for source in sources])):
        return
    if os.geteuid() == 0:
        snapshotter.unpack(sources, on_progress)
        return
    from minibox.engine.host.user_namespace import run_inside

    run_inside(lambda: snapshotter.unpack(sources))


def prepare(
    snapshotter: Snapshotter, container_id: str, chain_ids: tuple[str, ...], lacks: Callable[[], str] = str
) -> None:
    """Make the snapshot of a new container on unpacked layers.

    Args:
        lacks: says what else the container needs and this host lacks, so that one error tells all; "" for nothing.

    Raises:
        StoreError: the disk is full.
        Unsupported: the storage driver doesn't work here.
    """
    try:
        _prepare(snapshotter, container_id, chain_ids)
    except Unsupported as error:
        error.hint = "; ".join(filter(None, (error.hint, lacks())))
        raise


def _prepare(snapshotter: Snapshotter, container_id: str, chain_ids: tuple[str, ...]) -> None:
    if os.geteuid() == 0 or snapshotter.driver == "overlay":  # overlay copies nothing
        snapshotter.prepare(container_id, chain_ids)
        return
    from minibox.engine.host.user_namespace import run_inside

    def clone() -> None:
        snapshotter.prepare(container_id, chain_ids)

    run_inside(clone)


def make_lasting(root: str, container_id: str) -> None:
    """Keep a container that was mounted as throw-away: remove overlayfs's volatile marker so that it can be mounted
    again.

    Source: "Volatile mount" in the kernel's documentation of overlayfs. The container's data reaches the disk like that
    of any program.
    """
    from minibox.linux.removal import remove_tree

    mark = f"{container_directory(root, container_id)}/work/work/incompat/volatile"
    if os.path.isdir(mark):  # other storage drivers have none
        remove_tree(mark)


def remove(root: str, container_id: str, snapshotter: Snapshotter | None = None) -> None:
    """Remove the directory of a container; it may be missing.

    Args:
        snapshotter: the one that made it, if the caller knows.

    Raises:
        StoreError: the kernel refused.
    """
    used = snapshotter or snapshotter_of(root, container_id)
    try:
        used.remove(container_id)
    except StoreError as error:
        cause = error.__cause__
        if os.geteuid() == 0 or not isinstance(cause, OSError) or cause.errno not in (EACCES, EPERM):
            raise
        from minibox.engine.host.user_namespace import run_inside

        run_inside(lambda: used.remove(container_id))


def restored_snapshotter(root: str, container_id: str, driver: str, chain_ids: tuple[str, ...]) -> Snapshotter:
    """Return the driver that a container was made with; rewrite its record if a power loss destroyed it.

    Args:
        driver, chain_ids: from state.json and the image.

    Raises:
        Unsupported: the storage driver doesn't work here.
    """
    if driver and not read_record(root, container_id):
        directory = container_directory(root, container_id)
        with suppress(FileNotFoundError):
            os.unlink(f"{directory}/{RECORD}")
        write_record(directory, driver, chain_ids)
    return snapshotter_of(root, container_id)
