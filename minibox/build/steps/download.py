"""ADD: local files and archives, and files from URLs."""

from __future__ import annotations

from minibox.build.steps.sources import GIT, URLS, FromContext, Sources
from minibox.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.build.context.context import Context
    from minibox.build.dockerfile import instructions as kinds


def added(context: Context, line: kinds.Add) -> Sources:
    """Find the sources of an ADD."""
    for source in line.sources:
        if source.startswith((*URLS, *GIT)):
            raise BuildError(f"ADD {source}: URLs are not supported yet", "download it in a RUN")
    return FromContext(context, line)
