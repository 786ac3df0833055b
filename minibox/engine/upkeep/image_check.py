"""Verify the image store: each blob against its digest, each image against its blobs, each layer against its blob."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack

from minibox.base.files import open_to_read, read_file
from minibox.engine.resources.image_usage import blobs_of
from minibox.errors import MiniboxError, StoreError, kernel_says
from minibox.image.layer.check import compare
from minibox.image.layout.inventory import inventory
from minibox.image.layout.layout import CHUNK_BYTES
from minibox.image.layout.reach import reach
from minibox.image.reference import is_digest
from minibox.record import record
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import DRIVERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minibox.engine.resources.image_usage import Uses
    from minibox.image.layout.inventory import StoredImage
    from minibox.image.layout.layout import Layout
    from minibox.storage.drivers import Snapshotter

    Progress = Callable[[str], None]

DAMAGED, LEFTOVER = "damaged", "leftover"
LAYOUT_FILE_BYTES_MAX = 4096
WORKERS = 2
SHOWN_OF_LAYER = 3


@record
class Finding:
    """A problem that the check found.

    Attributes:
        kind: `DAMAGED`, or `LEFTOVER` if nobody needs it.
        what: the thing: ``blob sha256:...``, ``image app:1``.
        problem: what is wrong with it.
        affects: the names of images that can't be used because of it.
        thing: what `--repair` removes: ("blob", digest), ("layer", driver, chain ID), ("entries",) for entries of
            index.json that lead nowhere, or () for nothing.
    """

    kind: str
    what: str
    problem: str
    affects: tuple[str, ...] = ()
    thing: tuple[str, ...] = ()


def check_images(layout: Layout, uses: Uses, *, content: bool = True) -> list[Finding]:
    """Verify the layout and each image in it. Damage affects only the images that need the damaged part.

    Args:
        content: read all blobs; otherwise only check their sizes.
    """
    findings = _check_layout_file(layout)
    try:
        images = inventory(layout)
    except StoreError as error:
        return [*findings, Finding(DAMAGED, "index.json", str(error), (), ("index",))]
    lost = [image for image in images if not is_digest(image.digest)]
    images = [image for image in images if image not in lost]
    findings += [Finding(DAMAGED, "index.json", f"{image.error}", (name_of(image),), ("entries",)) for image in lost]
    blobs = _blobs(layout)
    broken = _broken(layout, blobs) if content else {}
    for digest, problem in broken.items():
        affected = [name_of(image) for image in images if digest in blobs_of(layout, [image])]
        findings.append(Finding(DAMAGED, f"blob {digest}", problem, tuple(affected), ("blob", digest)))
    for image in images:
        findings += [
            Finding(DAMAGED, f"image {name_of(image)}", problem, (name_of(image),))
            for problem in _problems(image, blobs, broken)
        ]
    needed = blobs_of(layout, images) | blobs_of_digests(layout, uses.digests)
    findings += [
        Finding(LEFTOVER, f"blob {digest}", f"no image needs its {size} bytes")
        for digest, size in blobs.items()
        if digest not in needed and digest not in broken
    ]
    return findings


def check_layers(layout: Layout, uses: Uses, *, content: bool = True) -> list[Finding]:
    """Check that each unpacked layer belongs to an image, and that it matches its blob.

    Args:
        content: compare each file with the blob.
    """
    try:
        images = [image for image in inventory(layout) if not image.error]
    except StoreError:
        return []  # `check_images` reports it
    sources = {
        chain_id: (str(descriptor.get("digest")), image.chain_ids[: number + 1])
        for image in images
        for number, ((descriptor, _), chain_id) in enumerate(zip(image.layers, image.chain_ids))
    }
    findings = []
    for driver in DRIVERS:
        storage = snapshotter(layout.root, driver)
        meant = {
            layer
            for name, layer in storage.aliases().items()
            if name in sources or name in uses.chain_ids or (driver, name) in uses.layers
        }
        for chain_id in storage.layers():
            what = f"layer {chain_id} ({driver})"
            if chain_id not in sources:
                if chain_id not in meant and chain_id not in uses.chain_ids and (driver, chain_id) not in uses.layers:
                    findings.append(Finding(LEFTOVER, what, "no image needs it"))
                continue
            if not content or storage.describe("none", (chain_id,)).kind == "tree":
                continue  # the tree merges a layer with all below it, so we can't compare it with one blob
            problem = _layer_problem(layout, storage, *sources[chain_id])
            if problem:
                affected = tuple(name_of(image) for image in images if chain_id in image.chain_ids)
                findings.append(Finding(DAMAGED, what, problem, affected, ("layer", driver, chain_id)))
    return findings


def name_of(image: StoredImage) -> str:
    """Return what a finding calls an image."""
    return image.names[0].familiar if image.names else (image.id or image.digest)[:19]


def blobs_of_digests(layout: Layout, digests: Sequence[str]) -> frozenset[str]:
    """Return all blobs that these manifests refer to."""
    return reach(layout, digests).blobs


def _check_layout_file(layout: Layout) -> list[Finding]:
    if not os.path.isdir(layout.path):
        return []
    try:
        version = json.loads(read_file(f"{layout.path}/oci-layout", LAYOUT_FILE_BYTES_MAX))["imageLayoutVersion"]
    except OSError as error:
        return [Finding(DAMAGED, "oci-layout", kernel_says(error), (), ("oci-layout",))]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [Finding(DAMAGED, "oci-layout", "it has no imageLayoutVersion", (), ("oci-layout",))]
    if version == "1.0.0":
        return []
    thing = () if isinstance(version, str) else ("oci-layout",)  # a newer tool may have written another version
    return [Finding(DAMAGED, "oci-layout", f"unknown version {version!r}", (), thing)]


def _blobs(layout: Layout) -> dict[str, int]:
    """Return the sizes of all blobs in bytes, by digest."""
    try:
        with os.scandir(f"{layout.path}/blobs/sha256") as entries:
            return {f"sha256:{each.name}": _size(each) for each in entries if is_digest(f"sha256:{each.name}")}
    except FileNotFoundError:
        return {}


def _size(entry: os.DirEntry[str]) -> int:
    """Return the size in bytes; 0 for a link that leads nowhere, which isn't a blob."""
    try:
        return entry.stat().st_size
    except OSError:
        return 0


def _broken(layout: Layout, blobs: dict[str, int]) -> dict[str, str]:
    """Return the damaged blobs, with what is wrong. Two are read at a time."""
    from concurrent.futures import ThreadPoolExecutor

    def problem(digest: str) -> str:
        hasher = hashlib.sha256()
        try:
            with open(open_to_read(layout.blob_path(digest)), "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    hasher.update(chunk)
        except FileNotFoundError:
            return ""  # it was removed meanwhile
        except OSError as error:
            return f"read: {kernel_says(error)}"
        found = hasher.hexdigest()
        return "" if f"sha256:{found}" == digest else f"its content has another digest, sha256:{found}"

    with ThreadPoolExecutor(WORKERS) as pool:
        return {digest: why for digest, why in zip(blobs, pool.map(problem, blobs)) if why}


def _problems(image: StoredImage, blobs: dict[str, int], broken: dict[str, str]) -> list[str]:
    """Return what is wrong with an image, except for broken blobs, which have findings of their own."""
    if image.error:
        return [] if any(digest in image.error for digest in broken) else [image.error]
    problems = []
    for number, (descriptor, _) in enumerate(image.layers, 1):
        digest, size = descriptor.get("digest"), descriptor.get("size")
        which = f"its layer {number} of {len(image.layers)}, {digest},"
        if digest not in blobs:
            problems.append(f"{which} is missing")
        elif blobs[digest] != size and digest not in broken:
            problems.append(f"{which} has {blobs[digest]} bytes instead of {size}")
    return problems


def _layer_problem(layout: Layout, storage: Snapshotter, digest: str, chain_ids: tuple[str, ...]) -> str:
    """Return what is wrong with the topmost of these layers, or ""."""
    blob_path = layout.blob_path(digest)
    if not os.path.lexists(blob_path) or not storage.is_unpacked(chain_ids):
        return ""  # reported for the image; or the layer will be unpacked before it is used
    with ExitStack() as stack:
        fds = []
        try:
            for path in storage.describe("none", chain_ids).lowers:
                fds.append(storage.open_lower(path))
                stack.callback(os.close, fds[-1])
        except (MiniboxError, OSError) as error:
            return "" if fds else f"can't be opened: {error}"  # a layer below is reported by itself
        try:
            wrong = compare(blob_path, fds[0], fds[1:])
        except MiniboxError:
            return ""  # reported for the blob
        except OSError as error:
            return f"can't be read: {kernel_says(error)}"
    more = f" and {len(wrong) - SHOWN_OF_LAYER} more" if len(wrong) > SHOWN_OF_LAYER else ""
    return "; ".join(wrong[:SHOWN_OF_LAYER]) + more
