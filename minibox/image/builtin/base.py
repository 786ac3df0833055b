"""The built-in images, made on first use without a network: ``base``, the default, and ``scratch``, which is empty.

The recipe is data in ``rootfs/base``: ``recipe.toml`` and the files under ``files/``. The programs come from the
first of
these that the host has: a static busybox; the distribution's package busybox-static, which is downloaded and unpacked
into a temporary directory, but not installed; the host's own binaries with their libraries. The layer is written
straight to the store, so it can contain root's files even if an ordinary user makes it.
"""

from __future__ import annotations

import io
import os

from minibox.base.files import content_of
from minibox.base.paths import package_directory
from minibox.errors import StoreError
from minibox.image.layout.layout import disk_error, locked
from minibox.image.reference import ImageName

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.image.layer.pack import LayerWriter
    from minibox.image.layout.image import ResolvedImage
    from minibox.image.layout.layout import Layout
    from minibox.image.reference import Reference

REFERENCE = "docker.io/library/base:latest"
# An image without files, to mount things into. Registries reserve its name, so no other image can have it.
EMPTY = "docker.io/library/scratch:latest"


def is_built_in(reference: Reference) -> bool:
    """Tell whether that is a built-in image. These are never pulled."""
    return str(reference) in (REFERENCE, EMPTY)


def ensure(layout: Layout, reference: Reference) -> ResolvedImage:
    """Return a built-in image; make it if the store doesn't have it. Many processes may call this at once.

    Raises:
        StoreError: it can't be made here; the hint says what is missing.
    """
    from minibox.image.layout.manifest import find_image

    name = ImageName(str(reference), reference)
    try:
        os.makedirs(layout.root, mode=0o700, exist_ok=True)
        with locked(f"{layout.root}/base.lock"):
            return find_image(layout, name) or (make_empty(layout) if name.text == EMPTY else make(layout))
    except OSError as error:
        raise disk_error(f"make the image {reference.familiar} in {layout.root}", error) from error


def make_empty(layout: Layout) -> ResolvedImage:
    """Make a new ``scratch``: one empty layer."""
    from minibox.image.archive.importer import add_image
    from minibox.image.layer.pack import LayerWriter

    layer = io.BytesIO()
    LayerWriter(layer).close()
    layer.seek(0)
    return add_image(layout, EMPTY, [layer], message="made by minibox of nothing")


def make(layout: Layout) -> ResolvedImage:
    """Make a new ``base``, and take its name from any image that had it."""
    from minibox.image.archive.importer import add_image
    from minibox.image.builtin.programs import collect
    from minibox.image.layer.pack import LayerWriter

    recipe_path = find_recipe("base")
    recipe = read_recipe(recipe_path)
    programs = collect(recipe["programs"])
    layer = io.BytesIO()
    writer = LayerWriter(layer)
    write_skeleton(writer, recipe, f"{recipe_path}/files")
    for name, target in sorted(programs.links.items()):
        writer.add_symlink(name, target)
    for name, content in sorted(programs.files.items()):
        writer.add_file(name, content, 0o755)
    writer.close()
    layer.seek(0)
    config = dict(recipe["config"])
    config["Labels"] = {**config.get("Labels", {}), "org.minibox.base.programs": programs.origin}
    return add_image(layout, REFERENCE, [layer], config, message=f"made by minibox of {programs.origin}")


def write_skeleton(writer: LayerWriter, recipe: dict[str, Any], files_path: str) -> None:
    """Write the recipe's directories, links and files, each after its parent."""
    for directory in recipe["directory"]:
        owner = (directory.get("uid", 0), directory.get("gid", 0))
        for path in directory["paths"]:
            writer.add_directory(path, int(directory["mode"], 8), owner)
    for name, target in recipe["links"].items():
        writer.add_symlink(name, target)
    for parent, directories, names in os.walk(files_path):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            inside = os.path.relpath(path, files_path)
            writer.add_file(inside, content_of(path), int(recipe["modes"].get(inside, "0644"), 8))


def find_recipe(name: str) -> str:
    """Return the directory of a recipe in the package's ``rootfs``, which is a symlink in a checkout.

    Raises:
        StoreError: it doesn't exist.
    """
    path = f"{package_directory()}/rootfs/{name}"
    if not os.access(f"{path}/recipe.toml", os.R_OK):
        raise StoreError(
            f"the recipe of the image {name!r} is not in {path}",
            "install minibox again: pip install --force-reinstall .",
        )
    return path


def read_recipe(path: str) -> dict[str, Any]:
    """Return the parsed ``recipe.toml`` of the recipe directory ``path``."""
    import tomllib

    try:
        with open(f"{path}/recipe.toml", "rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise StoreError(f"read {path}/recipe.toml: {error}") from error
