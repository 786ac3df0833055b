"""Images for tests: `base` with a layer on top."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

from minibox.image.archive.importer import add_image
from minibox.image.layout.image import ResolvedImage
from minibox.image.layout.manifest import layer_descriptors
from minibox.image.store import ImageStore
from minibox.storage.overlay import Overlay
from minibox.storage.snapshot import Snapshot


def link(name: str, target: str) -> tarfile.TarInfo:
    """A symbolic link."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
    return member


def directory(name: str, uid: int = 0, gid: int = 0, mode: int = 0o755) -> tarfile.TarInfo:
    """A directory."""
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, mode, uid, gid
    return member


def file(name: str, content: bytes, uid: int = 0, gid: int = 0, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    """A regular file."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uid, member.gid = len(content), mode, uid, gid
    return member, content


def derive(root: Path, name: str, *members: Any, config: dict[str, Any] | None = None) -> str:
    """Make the image ``name`` in the state root: `base` with a layer of ``members``, later ones on top."""
    store = ImageStore(str(root))
    base = store.resolve("base")
    layers: list[Any] = [
        store.layout.blob_path(descriptor["digest"])
        for descriptor, _ in layer_descriptors(store.layout, base.digest, base.config)
    ]
    top = io.BytesIO()
    with tarfile.open(fileobj=top, mode="w") as tar:
        for member in members:
            header, content = member if isinstance(member, tuple) else (member, b"")
            tar.addfile(header, io.BytesIO(content))
    top.seek(0)
    add_image(store.layout, name, [*layers, top], {**base.config.get("config", {}), **(config or {})})
    return name


def lowers(store: ImageStore, image: ResolvedImage) -> tuple[str, ...]:
    """The directories of an image's layers as overlayfs wants them, unpacked, topmost first."""
    overlay = Overlay(store.root)
    overlay.unpack(store.layer_sources(image))
    return overlay.describe("any", image.chain_ids).lowers


def prepared(store: ImageStore, image: ResolvedImage, key: str) -> Snapshot:
    """An active snapshot of overlayfs's on an image."""
    lowers(store, image)
    return Overlay(store.root).prepare(key, image.chain_ids)
