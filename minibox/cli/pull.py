"""Pull an image and show the progress."""

from __future__ import annotations

import os

from minibox.cli.messages import echo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from minibox.cli.settings import Settings
    from minibox.image.reference import ImageName, Reference
    from minibox.image.registry.pull import Pulled


def show_pull(
    settings: Settings, name: ImageName, out: TextIO | None, *, platform: str = "", all_tags: bool = False
) -> str:
    """Pull an image, report to ``out`` like `docker pull`, and return the last image's name in the store."""
    from minibox.cli.format import progress
    from minibox.engine.resources import registry

    def say(line: str) -> None:
        if out is not None:
            echo(line, file=out)

    def begin(reference: Reference) -> None:
        if not (all_tags or "@" in name.text or name.text.endswith(f":{reference.tag}")):
            say(f"Using default tag: {reference.tag}")
        what = f"{reference.name}@{reference.digest}" if reference.digest else reference.tag
        say(f"{what}: Pulling from {reference.path}")
        shown.begin()

    def pulled(image: Pulled) -> None:
        shown.end()
        results.append(image)
        say(f"Digest: {image.digest}")

    results: list[Pulled] = []
    with progress.Shown(out) as shown:
        registry.pull(settings.home, name, environ=os.environ, platform=platform, all_tags=all_tags, driver=settings.storage_driver, on_begin=begin, on_progress=shown.show, on_pulled=pulled)  # fmt: skip
    note_platform(results, asked=bool(platform))
    status = "Downloaded newer image for" if any(image.is_new for image in results) else "Image is up to date for"
    say(f"Status: {status} {familiar(results[-1].name, all_tags)}")
    return results[-1].name


def note_platform(results: list[Pulled], *, asked: bool) -> None:
    """Tell the user about images for another kind of machine, unless they asked for them."""
    from minibox.cli.format.table import printable
    from minibox.image.platform import host_platform, runs

    host = host_platform()
    for platform in dict.fromkeys(image.platform for image in results):
        if not asked and not runs(host, platform):
            echo(f"minibox: the image is for {printable(str(platform))}, but this machine is {host}", err=True)


def familiar(name: str, without_tag: bool = False) -> str:
    """Return ``name`` in the short form that users write."""
    from minibox.image.reference import parse

    short = parse(name).familiar
    return short.rpartition(":")[0] if without_tag else short
