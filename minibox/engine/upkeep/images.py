"""Manage images that containers may be using: tag, remove, prune, list, measure.

Nothing that a starting, running or ended container needs is removed: see `container.run`, `image_garbage.collect`.
"""

from __future__ import annotations

import os

from minibox.engine.container import collection
from minibox.engine.resources.image_usage import Disk, Uses, look, usage
from minibox.engine.state import events
from minibox.engine.upkeep import image_users
from minibox.engine.upkeep.image_filters import moment, select
from minibox.engine.upkeep.image_garbage import Collected, alone, collect, condemn
from minibox.errors import ImageInUse, InvalidReference, StoreBusy, StoreError
from minibox.image.layer.size import layer_size
from minibox.image.layout.inventory import find, inventory
from minibox.image.layout.layout import Layout, nameless, ref_name
from minibox.image.layout.reach import reach
from minibox.image.reference import parse
from minibox.image.store import ImageStore
from minibox.record import record
from minibox.storage.snapshot import kept_layers, layers_in_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.base.home import Home
    from minibox.docker_words.filters import Filter
    from minibox.engine.resources.image_usage import ImageUsage, Thing, Usage
    from minibox.engine.upkeep.image_users import Use
    from minibox.image.layout.inventory import Name, StoredImage
    from minibox.image.layout.layout import Descriptor

PATIENCE_S = 10.0


@record
class Removed:
    """The result of removing images.

    Attributes:
        untagged: the removed names, as users write them.
        deleted: the ids of removed images, and the chain IDs of the layers removed with them.
        freed_bytes: the disk space that was freed.
        deferred: images were being added all the time, so the next removal frees the space.
    """

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]
    freed_bytes: int
    deferred: bool


def uses(root: str) -> Uses:
    """Return the images and layers that containers need."""
    found = image_users.uses(root)
    chain_ids = frozenset(chain_id for use in found for chain_id in use.chain_ids)
    # Read containers' own records last: a container in neither list looks at the index again.
    return Uses(tuple(use.digest for use in found), frozenset(layers_in_use(root) | kept_layers(root)), chain_ids)


def look_at_disk(root: str) -> Disk:
    """Call `image_usage.look`, in a user namespace if needed to read every layer."""
    from minibox.engine.host.user_namespace import run_inside

    def plain() -> tuple[list[tuple[Thing, int]], list[str], list[tuple[Thing, Thing]]]:
        disk = look(Layout(root))
        return list(disk.sizes.items()), list(disk.young), list(disk.aliases.items())

    sizes, young, aliases = run_inside(plain) if os.geteuid() else plain()
    return Disk(dict(sizes), frozenset(young), dict(aliases))


def users_of(layout: Layout, image: StoredImage, found: Sequence[Use]) -> list[Use]:
    """Return the containers that use an image, running ones first."""
    blobs = reach(layout, (str(entry.get("digest")) for entry in image.entries)).blobs
    return sorted((use for use in found if use.digest in blobs), key=lambda use: not use.running)


def tag(home: Home, source: str, target: str) -> None:
    """Give the image ``source`` another name.

    Raises:
        InvalidReference: ``target`` is malformed, or has a digest.
        ImageNotFound: there is no image ``source``.
    """
    name = parse(target)
    if name.digest:
        raise InvalidReference(f"invalid reference {ascii(target)}: a new name can't have a digest")
    store = ImageStore(home.root)
    layout = store.layout
    with layout.adding():
        store.resolve(source)  # checks that the image is complete; builds `base` if needed
        image, named = find(inventory(layout), source)
        entry = next(entry for entry in image.entries if named is None or ref_name(entry) == named.text)
        layout.set_name(str(name), entry)
    events.note_image(home.runroot, image.id, name.familiar, "tag")


def remove(home: Home, reference: str, *, force: bool = False) -> Removed:
    """Remove a name from an image. Removing its last name or its id removes the image.

    Raises:
        ImageNotFound, InvalidReference: there is no such image.
        ImageInUse: a container uses it, or its id is given and it has several names. The message says whether ``force``
            helps.
        StoreError: the store is damaged, or the kernel refused.
    """
    layout = Layout(home.root)
    images = inventory(layout)
    image, named = find(images, reference)
    collection.collect(home)  # so that killed commands don't count as users
    users = users_of(layout, image, image_users.uses(home.root))
    running = next((use.id[:12] for use in users if use.running), "")
    short = image.id.removeprefix("sha256:")[:12] or reference
    names = image.names
    if named:
        if len(names) == 1 and users and not force:
            raise ImageInUse(
                f"conflict: unable to remove repository reference {named.familiar!r} (must force) - container "
                f"{users[0].id[:12]} is using its referenced image {short}",
                f"remove the container, or only the name: minibox rmi --force {named.familiar}",
            )
        untagged: tuple[Name, ...] = (named,)
    else:
        _check_removal_by_id(short, names, users, force)
        untagged = names
    keep = bool(named and running and len(names) == 1)
    gone = [image] if not keep and len(untagged) == len(names) else []
    condemn(layout, gone, images)
    _take_names(layout, image, untagged, keep)
    _note_removal(home.runroot, image, untagged, bool(gone))
    with alone(layout, PATIENCE_S if gone else 0) as held:
        return _removed(untagged, gone, _collect(home.root) if held else None)


def _check_removal_by_id(short: str, names: Sequence[Name], users: Sequence[Use], force: bool) -> None:
    if users and users[0].running:
        raise ImageInUse(
            f"conflict: unable to delete {short} (cannot be forced) - image is being used by running container "
            f"{users[0].id[:12]}",
            f"end it first: minibox rm --force {users[0].id[:12]}",
        )
    if force:
        return
    if len(names) > 1:
        raise ImageInUse(
            f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories",
            f"its names are {', '.join(name.familiar for name in names)}; remove them all: minibox rmi --force {short}",
        )
    if users:
        raise ImageInUse(
            f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container "
            f"{users[0].id[:12]}",
            f"remove the container first: minibox rm {users[0].id[:12]}",
        )


def prune(home: Home, *, everything: bool = False, filters: Sequence[Filter] = ()) -> Removed:
    """Remove images that have no name and no container; with ``everything``, all images without a container.

    What killed commands left is removed too.

    Raises:
        StoreBusy: images are being added all the time.
        StoreError: the store is damaged, or the kernel refused.
    """
    layout = Layout(home.root)
    collection.collect(home)
    with alone(layout, PATIENCE_S) as held:
        if not held:
            raise StoreBusy(
                "can't free space now: images are being pulled, pushed or loaded",
                "try again later",
            )
        found, images = image_users.uses(home.root), inventory(layout)
        chosen = [
            image
            for image, _ in select(images, filters)
            if (everything or not image.names) and not users_of(layout, image, found)
        ]
        names = tuple(name for image in chosen for name in image.names)
        condemn(layout, chosen, images)
        for image in chosen:
            _take_names(layout, image, image.names, keep=False)
            _note_removal(home.runroot, image, image.names, gone=True)
        return _removed(names, chosen, _collect(home.root))


def _take_names(layout: Layout, image: StoredImage, names: Sequence[Name], keep: bool) -> None:
    """Remove ``names`` of ``image`` from index.json. Unless ``keep`` is set, removing the last name removes the image."""
    texts = {name.text for name in names}
    digests = {entry.get("digest") for entry in image.entries}

    def edit(entries: list[Descriptor]) -> list[Descriptor]:
        left = []
        for entry in entries:
            if entry.get("digest") not in digests:
                left.append(entry)
            elif ref_name(entry) in texts or not ref_name(entry):
                left += [nameless(entry)] if keep else []
            else:
                left.append(entry)  # including names that it got in the meantime
        return left

    layout.change(edit)


def _note_removal(runroot: str, image: StoredImage, untagged: Sequence[Name], gone: bool) -> None:
    for name in untagged:
        events.note_image(runroot, image.id, name.familiar, "untag")
    if gone:
        events.note_image(runroot, image.id, image.id, "delete")


def _removed(untagged: Sequence[Name], gone: Sequence[StoredImage], freed: Collected | None) -> Removed:
    chain_ids = freed.chain_ids if freed else ()
    layers = [chain_id for image in gone for chain_id in reversed(image.chain_ids) if chain_id in chain_ids]
    deleted = dict.fromkeys([*(image.id or image.digest for image in gone), *layers])
    names = tuple(name.familiar for name in untagged)
    return Removed(names, tuple(deleted), freed.freed_bytes if freed else 0, freed is None)


def _collect(root: str) -> Collected:
    """Call `image_garbage.collect`, in a user namespace if needed to remove every layer."""
    from minibox.engine.host.user_namespace import run_inside

    def plain() -> tuple[tuple[str, ...], tuple[str, ...], int]:
        done = collect(Layout(root), lambda: uses(root))
        return done.blobs, done.chain_ids, done.freed_bytes

    return Collected(*(run_inside(plain) if os.geteuid() else plain()))


@record
class ImageRow:
    """A row of the list of images: an image under one of its names; None if it has none."""

    image: StoredImage
    name: Name | None
    usage: ImageUsage


def list_images(root: str, filters: Sequence[Filter] = ()) -> list[ImageRow]:
    """Return the images that pass ``filters``, newest first, with a row for each matching name.

    Raises:
        ImageNotFound: an image that a filter names doesn't exist.
        StoreError: index.json is damaged.
    """
    layout = Layout(root)
    images = inventory(layout)
    taken = dict(zip(map(id, images), disk_usage(root, images).images))
    return [
        ImageRow(image, name, taken[id(image)])
        for image, names in select(images, filters)
        for name in (names or (None,))
    ]


def disk_usage(root: str, images: Sequence[StoredImage]) -> Usage:
    """Measure ``images``, which must be all images."""
    return usage(Layout(root), look_at_disk(root), images, uses(root))


def history_of(root: str, reference: str) -> list[dict[str, Any]]:
    """Return the steps that made an image, newest first: id (or ""), created_s, created_by, comment, size_bytes.

    Raises:
        ImageNotFound: there is no such image.
        StoreError: it is damaged.
    """
    image, _ = find(inventory(Layout(root)), reference)
    if image.error:
        raise StoreError(image.error, image.hint or None)
    layout = Layout(root)
    sizes = [
        layer_size(layout, chain_id, str(descriptor.get("digest")))
        for (descriptor, _), chain_id in zip(image.layers, image.chain_ids)
    ]
    history = image.config.get("history")
    steps = [step for step in history if isinstance(step, dict)] if isinstance(history, list) else []
    if sum(not step.get("empty_layer") for step in steps) != len(sizes):
        steps = [{"created": image.created} for _ in sizes]  # the image has no history
    left = iter(sizes)
    rows = [
        {
            "id": "",
            "created_s": moment(step.get("created")),
            "created_by": str(step.get("created_by") or ""),
            "comment": str(step.get("comment") or ""),
            "size_bytes": 0 if step.get("empty_layer") else next(left),
        }
        for step in steps
    ]
    rows[-1]["id"] = image.id
    return rows[::-1]
