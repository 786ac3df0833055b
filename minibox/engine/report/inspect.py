"""Images and containers in the format of `docker inspect`, with the fields that minibox knows.

Source: https://docs.docker.com/reference/api/engine/, ImageInspect; containers are in `container_document`.
"""

from __future__ import annotations

from minibox.engine.container import collection
from minibox.engine.report.container_document import CONFIG, NO_TIME, container_document
from minibox.engine.state import containers
from minibox.engine.upkeep.images import disk_usage
from minibox.errors import ContainerNotFound, ImageNotFound, InvalidReference, MiniboxError, StoreError
from minibox.image.layout.inventory import find, inventory
from minibox.image.layout.layout import Layout
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import DRIVERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.base.home import Home
    from minibox.image.layout.inventory import StoredImage


def inspect(home: Home, name: str, *, kind: str = "", with_size: bool = False) -> dict[str, Any]:
    """Find a container or an image by its name or id. If both have the name, take the container.

    Args:
        kind: "container", "image", or "" for either.
        with_size: for a container, add its size on disk.

    Raises:
        ContainerNotFound, ImageNotFound: there is none.
        StoreError: the image is damaged.
    """
    ambiguous: ContainerNotFound | None = None
    if kind not in ("", "container", "image"):
        raise MiniboxError(f"unknown type {kind!r}", "use container or image")
    if kind != "image":
        collection.collect(home)
        try:
            return container_document(home, containers.find(home.root, name), with_size)
        except ContainerNotFound as error:
            if kind:
                raise
            ambiguous = error if "ambiguous" in str(error) else None
    try:
        return image_document(name, home.root)
    except (ImageNotFound, InvalidReference) as error:
        if kind:
            raise
        if ambiguous:
            raise ambiguous from None
        raise ImageNotFound(f"no container and no image {name!r}", "minibox ps --all; minibox images") from error


def image_document(reference: str, root: str) -> dict[str, Any]:
    """An image in Docker's ImageInspect format.

    Raises:
        ImageNotFound: there is none.
        StoreError: it is damaged.
    """
    images = inventory(Layout(root))
    image, _ = find(images, reference)
    if image.error:
        raise StoreError(image.error, image.hint or None)
    process = image.config.get("config")
    history = image.config.get("history")
    last = history[-1] if isinstance(history, list) and history and isinstance(history[-1], dict) else {}
    entry = image.entries[0]
    repositories = dict.fromkeys((name.repository, name.digest) for name in image.names)
    return {
        "Id": image.id,
        "RepoTags": [name.familiar for name in image.names if "@" not in name.familiar],
        "RepoDigests": [f"{repository}@{digest}" for repository, digest in repositories],
        "Parent": "",
        "Comment": str(last.get("comment") or ""),
        "Created": image.created,
        "DockerVersion": "",
        "Author": str(image.config.get("author") or ""),
        "Architecture": image.config.get("architecture", ""),
        "Variant": image.config.get("variant", ""),
        "Os": image.config.get("os", ""),
        "Size": disk_usage(root, images).images[images.index(image)].size_bytes,
        "GraphDriver": _graph_driver(root, image),
        "RootFS": {"Type": "layers", "Layers": [diff_id for _, diff_id in image.layers]},
        "Metadata": {"LastTagTime": NO_TIME},
        "Descriptor": {key: entry[key] for key in ("mediaType", "digest", "size", "annotations") if key in entry},
        "Config": {**CONFIG, **(process if isinstance(process, dict) else {})},
    }


def _graph_driver(root: str, image: StoredImage) -> dict[str, Any]:
    for driver in DRIVERS:
        storage = snapshotter(root, driver)
        if image.chain_ids and storage.is_unpacked(image.chain_ids):
            lowers = storage.describe("none", image.chain_ids).lowers
            data = {"UpperDir": lowers[0]}
            return {"Name": driver, "Data": {**data, **({"LowerDir": ":".join(lowers[1:])} if lowers[1:] else {})}}
    return {"Name": "", "Data": None}
