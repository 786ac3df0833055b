"""Save, load and import images. A loaded image is unpacked for a storage driver before it gets its name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from minibox.base.home import Home
from minibox.engine.files.rootfs_setup import unpack_sources
from minibox.engine.state import events
from minibox.errors import ImageNotFound
from minibox.image.archive import importer
from minibox.image.archive import load as archive_load
from minibox.image.archive import save as archive_save
from minibox.image.archive.importer import TarSource
from minibox.image.archive.load import Loaded
from minibox.image.layer.compression import Readable, Writable
from minibox.image.layout.image import ResolvedImage
from minibox.image.layout.manifest import find_image
from minibox.image.platform import parse_platform
from minibox.image.reference import is_digest, parse, parse_name
from minibox.image.store import ImageStore
from minibox.storage.drivers import snapshotter


def load(home: Home, source: Readable | str, *, driver: str = "", platform: str = "") -> list[Loaded]:
    """Load the images of an archive into the store; see `minibox.image.archive.load.load`.

    Args:
        driver: the storage driver to unpack for; "" for the default.
        platform: load images for ``OS/ARCH[/VARIANT]``; "" for this machine's.

    Raises:
        UsageError: ``platform`` is malformed.
        StoreError: not an archive of images, a damaged one, or the disk is full.
    """
    wanted = parse_platform(platform) if platform else None
    loaded = archive_load.load(
        ImageStore(home.root).layout, source, partial(unpack_sources, snapshotter(home.root, driver)), wanted
    )
    for image in loaded:
        _note(home.runroot, image.image_id, image.names, "load")
    return loaded


def import_tar(
    home: Home,
    source: TarSource,
    name: str,
    *,
    driver: str = "",
    platform: str = "",
    changes: Sequence[str] = (),
    message: str = "",
) -> ResolvedImage:
    """Make an image of one layer from a tar of a root file system.

    Args:
        name: the image's name; "" for none.
        platform: the image's platform, ``OS/ARCH[/VARIANT]``; "" for this machine's.
        changes: Dockerfile instructions for its config; see `minibox.image.layout.config_changes`.
        message: a comment for its history.

    Raises:
        UsageError: ``name``, ``platform`` or one of ``changes`` is malformed.
        StoreError: ``source`` can't be read, isn't a sound tar, or the disk is full.
    """
    from datetime import UTC, datetime

    from minibox.image.layout.config_changes import apply_changes

    config = apply_changes({"Env": [importer.DEFAULT_PATH]}, changes)
    made = importer.add_image(
        ImageStore(home.root).layout,
        name,
        [source],
        config,
        created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        message=message,
        platform=parse_platform(platform) if platform else None,
        unpack=partial(unpack_sources, snapshotter(home.root, driver)),
    )
    _note(home.runroot, made.config_digest, [name] if name else [], "import")
    return made


def save(
    home: Home, names: Sequence[str], out: Writable, *, form: str = archive_save.DOCKER_ARCHIVE, platform: str = ""
) -> None:
    """Write images to an archive.

    Args:
        names: references or ids. A name without a tag stands for all its tags.

    Raises:
        ImageNotFound: an image is not in the store; nothing was written.
        StoreError: a blob is missing or damaged.
        OSError: ``out`` can't be written.
    """
    wanted = parse_platform(platform) if platform else None
    store = ImageStore(home.root)
    with store.layout.adding():  # keeps blobs from being removed while we read them
        images: dict[str, ResolvedImage] = {}
        names_of: dict[str, dict[str, None]] = {}
        for name in names:
            for each in _all_tags(store, name):
                image = find_image(store.layout, parse_name(each), wanted) if wanted else store.resolve(each)
                if image is None:
                    raise ImageNotFound(f"image {each!r} is not in the store at {store.root}/images")
                images[image.digest] = image
                # An image given by its id is saved without a name.
                known = names_of.setdefault(image.digest, {})
                if image.reference in store.names():
                    known[image.reference] = None
        saved = [archive_save.Saved(image, tuple(names_of[digest])) for digest, image in images.items()]
        archive_save.save(store.layout, saved, out, form)
    for kept in saved:
        _note(home.runroot, kept.image.config_digest, kept.names, "save")


def _note(runroot: str, image_id: str, names: Sequence[str], action: str) -> None:
    for name in [parse(name).familiar for name in names] or [image_id]:
        events.note_image(runroot, image_id, name, action)


def _all_tags(store: ImageStore, name: str) -> list[str]:
    """Return all tags of a repository, as Docker does, if ``name`` has no tag; else ``name`` itself."""
    bare = name.rpartition("/")[2]
    if ":" in bare or "@" in bare or is_digest(name):
        return [name]
    repository = parse(name).name
    return [known for known in store.names() if known.rpartition(":")[0] == repository and "@" not in known] or [name]
