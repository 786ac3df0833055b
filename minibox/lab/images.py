"""An image that a student has made, read as minibox reads any: its blobs verified, its layers stacked in memory."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile

from minibox.errors import MiniboxError
from minibox.image.archive.load import load
from minibox.image.layout.layout import Layout
from minibox.image.layout.manifest import diff_ids
from minibox.lab.requirement import Missing, require
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LAYER_BYTES_MAX = 64 << 20
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


@record
class StudentImage:
    """An image.

    Attributes:
        config: the OCI image config.
        layers: of each layer, bottom first, the names in it and the content of its regular files.
    """

    config: dict[str, Any]
    layers: tuple[dict[str, bytes | None], ...]

    def files(self) -> dict[str, bytes]:
        """Return the regular files of all layers stacked, by OCI image-spec layer.md."""
        found: dict[str, bytes] = {}
        for layer in self.layers:
            for name in layer:
                parent, _, last = name.rpartition("/")
                if last == OPAQUE:
                    _hide(found, parent, below=True)
                elif last.startswith(WHITEOUT):
                    _hide(found, "/".join(filter(None, (parent, last.removeprefix(WHITEOUT)))))
            for name, content in layer.items():
                if content is not None and not name.rpartition("/")[2].startswith(WHITEOUT):
                    found[name] = content
        return found


def read_image(path: str, shown: str) -> StudentImage:
    """Read an image from an OCI image layout, a directory or an archive.

    Args:
        shown: what the student calls it.

    Raises:
        Missing: it is none, or is damaged; with minibox's own words.
    """
    with tempfile.TemporaryDirectory(prefix="minibox-lab-") as directory:
        layout = Layout(directory)
        try:
            (image, *_) = load(layout, path, lambda sources: None)
            config = layout.read_json(image.image_id)
            manifest = layout.read_json(image.digest)
            blobs = [layout.read_blob(layer["digest"]) for layer in manifest["layers"]]
            wanted = diff_ids(config)
        except (MiniboxError, OSError, KeyError, TypeError, ValueError) as error:
            raise Missing(f"minibox can't read the image {shown}: {error}") from None
        layers = []
        for number, (blob, diff_id) in enumerate(zip(blobs, wanted), 1):
            require(
                f"sha256:{hashlib.sha256(blob).hexdigest()}" == diff_id,
                f"layer {number} of {shown} isn't the tar whose digest rootfs.diff_ids of the config names (leave it uncompressed)",
            )
            layers.append(_read_layer(blob, number, shown))
    return StudentImage(config, tuple(layers))


def _read_layer(blob: bytes, number: int, shown: str) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
            for entry in archive:
                name = entry.name.removeprefix("./").strip("/")
                if not name or name == ".":
                    continue
                require(
                    not entry.isdev() or entry.isfifo(),
                    f"layer {number} of {shown} has a device {name}: in a layer a whiteout is an empty file {WHITEOUT}NAME",
                )
                file = archive.extractfile(entry) if entry.isreg() else None
                found[name] = file.read(LAYER_BYTES_MAX) if file else None
    except tarfile.TarError as error:
        raise Missing(f"layer {number} of {shown} is no tar: {error}") from None
    return found


def _hide(files: dict[str, bytes], name: str, below: bool = False) -> None:
    for each in list(files):
        if each.startswith(f"{name}/") or (each == name and not below):
            del files[each]
