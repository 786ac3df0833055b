"""`minibox.aio.build`: build an image from a Dockerfile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Unpack

from minibox.api.arguments import BUILD, checked
from minibox.api.image import Image
from minibox.api.image_build import BuildKeywords, ImageBuild
from minibox.build.events import Event


@checked(BUILD)
async def build(
    path: str | os.PathLike[str],
    reference: str = "",
    *,
    on_event: Callable[[Event], object] | None = None,
    **options: Unpack[BuildKeywords],
) -> Image:
    """Build the directory ``path``; see `minibox.ImageBuild`. If the task is cancelled, the build ends.

    Args:
        on_event: called in the event loop with each event.
    """
    if reference:
        options["tags"] = (reference, *options.get("tags", ()))
    loop = asyncio.get_running_loop()
    begun = ImageBuild(path, **options)

    def follow() -> str:
        for event in begun:
            if on_event:
                loop.call_soon_threadsafe(on_event, event)
        return begun.result()

    future = loop.run_in_executor(None, follow)
    try:
        image_id = await asyncio.shield(future)
    except asyncio.CancelledError:
        begun.cancel()
        await asyncio.wait([future])
        future.exception()
        raise
    home = begun.where.home
    return Image.get(image_id, root=home.root, runroot=home.runroot)
