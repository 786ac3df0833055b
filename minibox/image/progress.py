"""Progress reports of long operations on images; the command line shows them."""

from __future__ import annotations

from collections.abc import Callable

from minibox.record import record

OnProgress = Callable[["Progress"], None]

# Docker's words, where it has any.
PULLING = "Pulling fs layer"
WAITING = "Waiting"
DOWNLOADING = "Downloading"
RETRYING = "Retrying"
DOWNLOADED = "Download complete"
EXTRACTING = "Extracting"
PULLED = "Pull complete"
EXISTS = "Already exists"
PREPARING = "Preparing"
PUSHING = "Pushing"
PUSHED = "Pushed"
THERE = "Layer already exists"
MOUNTED = "Mounted from"


@record
class Progress:
    """A report about one blob. It may come from any thread.

    Attributes:
        digest: the blob's digest.
        state: one of the constants above.
        done_bytes, total_bytes: how far it is, if known.
        detail: the reason of ``RETRYING``, the repository of ``MOUNTED``.
    """

    digest: str
    state: str
    done_bytes: int = 0
    total_bytes: int = 0
    detail: str = ""


def silent(_: Progress) -> None:
    """Ignore progress reports."""
