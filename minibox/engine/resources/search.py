"""Find images in the store by their names and labels, and by the files they contain."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial

from minibox.engine.files.tree import Directories, Tree
from minibox.engine.host.user_namespace import run_inside
from minibox.errors import MiniboxError
from minibox.image.layer.stack import Stack
from minibox.image.layout.inventory import StoredImage, inventory
from minibox.image.layout.layout import Layout
from minibox.record import record
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import DRIVERS

WILD = frozenset("*?[")


@record
class Match:
    """An image under one of its names (or its id, if it has none), and what matched."""

    name: str
    id: str
    match: str


@record
class Found:
    """The result; ``notes`` name images that couldn't be searched."""

    matches: tuple[Match, ...]
    notes: tuple[str, ...]


def search(root: str, term: str = "", path: str = "", *, storage_driver: str = "") -> Found:
    """Find the images that contain the file ``path`` and have ``term`` in a name, the id, a label or an annotation.

    Args:
        term: "" for every image.
        path: of a file in the image; ``*``, ``?`` and ``[`` don't match a slash. "" for none.
        storage_driver: search its unpacked layers first.

    Raises:
        StoreError: index.json is damaged.
    """
    layout = Layout(root)
    matches, notes = [], []
    with layout.adding():  # keeps others from removing the layers
        for image in inventory(layout):
            said = next(_said(image, term.lower()), "") if term else image.id
            if not said:
                continue
            names = [name.familiar for name in image.names] or [image.id[:19]]
            try:
                files = _files(root, image, path, storage_driver) if path else [said]
            except MiniboxError as error:
                notes.append(f"{names[0]} could not be searched: {error}")
                continue
            matches += [Match(name, image.id, ", ".join(files)) for name in names if files]
    return Found(tuple(matches), tuple(notes))


def _said(image: StoredImage, term: str) -> Iterator[str]:
    """Yield what matches ``term``, the best match first."""
    for name in image.names:
        if term in name.familiar.lower():
            yield name.familiar
    if image.id.removeprefix("sha256:").startswith(term.removeprefix("sha256:")):
        yield image.id
    for entry in image.entries:
        annotations = entry.get("annotations")
        for key, value in annotations.items() if isinstance(annotations, dict) else ():
            if term in f"{key}={value}".lower():
                yield f"{key}={value}"
    for key, value in image.labels.items():
        if term in f"{key}={value}".lower():
            yield f"{key}={value}"


def _files(root: str, image: StoredImage, path: str, storage_driver: str) -> list[str]:
    if image.error:
        raise MiniboxError(image.error)
    for driver in dict.fromkeys((storage_driver or DRIVERS[0], *DRIVERS)):
        storage = snapshotter(root, driver)
        if storage.is_unpacked(image.chain_ids):
            return run_inside(partial(_matching, root, Tree(driver, image.chain_ids), path))
    raise MiniboxError("its layers are unpacked only at its first run")


def _matching(root: str, tree: Tree, path: str) -> list[str]:
    with Directories(root) as directories, directories.stack(tree) as stack:
        return list(_walk(stack, "", [part for part in path.split("/") if part]))


def _walk(stack: Stack, directory: str, parts: list[str]) -> Iterator[str]:
    """Yield the paths below ``directory`` that match ``parts``; symlinks are followed as inside the image."""
    if not parts:
        yield directory or "/"
        return
    part, *rest = parts
    names = [part]
    if WILD & set(part):
        above = stack.find(directory)
        if above is None:
            return
        with above:
            if not above.is_directory:
                return
            names = sorted(name for name in above.children() if fnmatchcase(name, part))
    for name in names:
        inner = f"{directory}/{name}"
        # The last one may be a symlink that leads nowhere: it exists nevertheless.
        found = stack.find(inner, follow=bool(rest))
        if found:
            found.close()
            yield from _walk(stack, inner, rest)
