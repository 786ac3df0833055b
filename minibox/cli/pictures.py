"""Write pictures and pages to files that the user names: of a start's times, of containers."""

from __future__ import annotations

from minibox.base.files import replace_file
from minibox.errors import UsageError, trying

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.engine.spec.options import RunOptions


def write_picture(path: str, text: str) -> None:
    """Write ``text`` to ``path``, which is replaced.

    Raises:
        UsageError: it can't be written.
    """
    with trying(UsageError, f"write {path}"):
        replace_file(path, text.encode("utf-8", "replace"), mode=0o644)


def show_trace(options: RunOptions) -> Callable[[list[dict[str, Any]]], None]:
    """Return a function that shows the times of a start as the options say: as text, as a picture, as a page."""

    def show(rows: list[dict[str, Any]]) -> None:
        if options.trace:
            from minibox.cli.format.plan import print_trace

            print_trace(rows)
        if options.svg:
            from minibox.cli.format.timeline import picture

            write_picture(options.svg, picture(rows))
        if options.html:
            from minibox.cli.format.page import page

            write_picture(
                options.html, page(rows, f"The start of minibox run {' '.join((options.image, *options.command))}")
            )

    return show
