"""Commands for image archives: load, save, import."""

from __future__ import annotations

import sys
from errno import errorcode

from minibox.cli.declare import argument, command, option
from minibox.cli.messages import echo
from minibox.cli.parameters import complete_image, settings_of
from minibox.errors import MiniboxError, UsageError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from http.client import HTTPResponse
    from typing import Any

    from minibox.base.home import Home
    from minibox.cli.declare import Context
    from minibox.image.layout.image import ResolvedImage

FORMATS = ("docker-archive", "oci-archive")  # as in image.archive_save, which --help must not import
URL_SCHEMES = ("http://", "https://")
URL_TIMEOUT_S = 30


@command(
    epilog="""\b
Examples:
  minibox load -i images.tar.gz
  docker save web | minibox load
  minibox load -i layout/     a directory with an OCI image layout"""
)
@option("-i", "--input", "path", metavar="FILE", help="Read this file or directory instead of stdin")
@option("--platform", metavar="PLATFORM", default="", help="Load only the images for OS/ARCH[/VARIANT]")
@option("-q", "--quiet", is_flag=True, help="Print only the names of the loaded images")
def load(ctx: Context, path: str | None, platform: str, quiet: bool) -> None:
    """Load the images of an archive into the store.

    docker save, podman save, skopeo and minibox save write such archives: in Docker's format or as an OCI image layout,
    plain or compressed with gzip, zstd, bzip2 or xz. The images get the names in the archive.
    """
    from minibox.engine.resources import archives
    from minibox.image.platform import host_platform, runs
    from minibox.image.reference import parse

    if path in (None, "-") and sys.stdin.isatty():
        raise UsageError(
            "stdin is a terminal, not an archive", "minibox load -i FILE, or docker save IMAGE | minibox load"
        )
    settings = settings_of(ctx)
    source = path if path is not None and path != "-" else sys.stdin.buffer
    loaded = archives.load(settings.home, source, driver=settings.storage_driver, platform=platform)
    for image in loaded:
        if not platform and not quiet and not runs(host_platform(), image.platform):
            echo(f"minibox: the image is for {image.platform}, but this machine is {host_platform()}", err=True)
        for name in image.names:
            echo(f"Loaded image: {parse(name).familiar}")
        if not image.names:
            echo(f"Loaded image ID: {image.image_id}")
    show_notes(settings.home.root, [chain_id for image in loaded for chain_id in image.chain_ids])


@command(
    epilog="""\b
Examples:
  minibox save -o web.tar web:1.0
  minibox save web:1.0 db:2 | gzip > both.tar.gz
  minibox save --format oci-archive -o web.tar web:1.0"""
)
@option("-o", "--output", metavar="FILE", help="Write to this file instead of stdout")
@option(
    "--format", "form", choices=FORMATS, default=FORMATS[0], show_default=True,
    help="docker-archive is an OCI image layout with Docker's manifest added; all tools read it",
)  # fmt: skip
@option("--platform", metavar="PLATFORM", default="", help="Save only the images for OS/ARCH[/VARIANT]")
@argument("images", metavar="IMAGE...", nargs=-1, required=True, shell_complete=complete_image)
def save(ctx: Context, output: str | None, form: str, platform: str, images: tuple[str, ...]) -> None:
    """Save images to an archive, for docker load, podman load, skopeo and minibox load.

    A name without a tag means all images of that name. Layers are stored unchanged, and shared layers only once.
    """
    from minibox.cli.archive_output import archive_output
    from minibox.engine.resources import archives

    settings = settings_of(ctx)
    with archive_output("save", output) as file:
        archives.save(settings.home, images, file, form=form, platform=platform)


@command(
    epilog="""\b
Examples:
  minibox import rootfs.tar.gz mine:1.0
  docker export web | minibox import - web
  minibox import -c 'CMD ["nginx"]' -c 'EXPOSE 80' rootfs.tar web"""
)
@option(
    "-c", "--change", "changes", metavar="INSTRUCTION", multiple=True,
    help="Apply a Dockerfile instruction to the image's config: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, "
    "ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR",
)  # fmt: skip
@option("-m", "--message", metavar="TEXT", default="", help="Set the comment in the image's history")
@option("--platform", metavar="PLATFORM", default="", help="Set the image's platform: OS/ARCH[/VARIANT]")
@argument("file", metavar="FILE|URL|-")
@argument("image", metavar="[IMAGE]", default="")
def import_(ctx: Context, file: str, image: str, changes: tuple[str, ...], message: str, platform: str) -> None:
    """Make IMAGE from a tar archive of a root file system, and print its id. `-` reads stdin.

    The archive may be compressed with gzip, zstd, bzip2 or xz.
    """
    from minibox.engine.resources import archives

    settings = settings_of(ctx)
    options: dict[str, Any] = {
        "driver": settings.storage_driver, "platform": platform, "changes": changes,
        "message": message or f"Imported from {file}",
    }  # fmt: skip
    if file.startswith(URL_SCHEMES):
        made = _import_url(settings.home, file, image, options)
    elif file == "-":
        if sys.stdin.isatty():
            raise UsageError("stdin is a terminal, not an archive", "minibox import FILE [IMAGE]")
        made = archives.import_tar(settings.home, sys.stdin.buffer, image, **options)
    else:
        made = archives.import_tar(settings.home, file, image, **options)
    echo(made.config_digest)
    show_notes(settings.home.root, made.chain_ids)


def show_notes(root: str, chain_ids: Any) -> None:
    """Print how the unpacked layers differ from what their images say."""
    from minibox.image.layer.unpack import notes

    for note in notes(root, list(dict.fromkeys(chain_ids))):
        echo(f"minibox: note: {note}", err=True)


class _Whole:
    """A response that raises an error if it ends early: http.client doesn't, and half a tar can look complete."""

    def __init__(self, response: HTTPResponse, url: str) -> None:
        self._response, self._url = response, url

    def read(self, size: int, /) -> bytes:
        data = self._response.read(size)
        if not data and self._response.length:
            raise MiniboxError(
                f"import {self._url}: the download ended early, {self._response.length} bytes are missing"
            )
        return data


def _import_url(home: Home, url: str, image: str, options: dict[str, Any]) -> ResolvedImage:
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    from minibox.engine.resources import archives

    try:
        with urlopen(url, timeout=URL_TIMEOUT_S) as response:
            return archives.import_tar(home, _Whole(response, url), image, **options)
    except HTTPError as error:
        raise MiniboxError(f"import {url}: the server answered {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        why = error.reason if isinstance(error, URLError) else error
        said = kernel_says(why) if isinstance(why, OSError) and why.errno in errorcode else why
        raise MiniboxError(f"import {url}: {said}") from error
