"""`minibox diff` and `minibox export`: the changes in a root file system, and a root file system as a tar."""

from __future__ import annotations

from typing import BinaryIO

from minibox.engine.files.tree import MOUNT_POINTS, Directories, container_tree, find_tree
from minibox.engine.host.user_namespace import run_inside
from minibox.errors import MiniboxError, kernel_says
from minibox.image.store import ImageStore


def diff(root: str, name: str, other: str = "", *, storage_driver: str = "") -> list[tuple[str, str]]:
    """Return the changes as (kind, absolute path), sorted by path; see `minibox.image.layer.changes`.

    Args:
        name: a container, compared with its image; or an image or a layer, compared with the layer below it.
        other: compare ``name`` with this instead: the changes lead from ``name`` to ``other``.

    Raises:
        MiniboxError: nothing has that name, or a layer can't be unpacked.
        OSError: a file can't be read.
    """
    with ImageStore(root).layout.adding():  # keeps others from removing the layers
        tree = find_tree(root, name, storage_driver)
        old, new = (tree, find_tree(root, other, storage_driver)) if other else (tree.below(), tree)

        descends = bool(tree.container_id) and not other
        made = MOUNT_POINTS if descends else frozenset()

        def compare() -> list[tuple[str, str]]:
            from minibox.image.layer.changes import changes

            with directories.stack(old) as before, directories.stack(new) as now:
                found = [(change.kind, change.path) for change in changes(before, now, descends=descends, made=made)]
            return sorted(found, key=lambda row: row[1])

        with Directories(root, old, new) as directories:
            return run_inside(compare)


def export(root: str, name: str, file: BinaryIO) -> None:
    """Write a container's root file system to ``file`` as a tar, without mounts. The container may be running.

    Mount points that were only made for the start are left out, such as /etc/hosts if the image has none.

    Raises:
        MiniboxError: no container has that name or id, or one of its files can't be read.
        OSError: ``file`` can't be written.
    """
    from minibox.engine.state import containers

    tree = container_tree(root, containers.find(root, name)["Id"])

    def pack() -> None:
        from minibox.image.layer.mount_points import absent, is_untouched
        from minibox.image.layer.pack import LayerWriter

        with directories.stack(tree.below()) as image:
            made = absent(image, MOUNT_POINTS)
        with directories.stack(tree) as stack:
            writer = LayerWriter(file)
            writer.add_below(stack.root, without=lambda node: f"/{node.path}" in made and is_untouched(node))
            writer.close()
            file.flush()

    try:
        with Directories(root, tree) as directories:
            run_inside(pack)
    except OSError as error:
        if error.filename:  # not an error of `file`
            raise MiniboxError(f"export {name}: read {error.filename}: {kernel_says(error)}") from error
        raise
