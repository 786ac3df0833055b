"""What long work on an image tells of itself while it goes on; the command line draws it."""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    OnProgress = Callable[["Progress"], None]

# Docker's words, as far as it has them.
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
    """One step of one blob. May come from any thread.

    Attributes:
        digest: of the blob.
        state: one of the constants above.
        done_bytes, total_bytes: how far it is, where that is known.
        detail: of ``RETRYING`` the reason, of ``MOUNTED`` the repository.
    """

    digest: str
    state: str
    done_bytes: int = 0
    total_bytes: int = 0
    detail: str = ""


def silent(_: Progress) -> None:
    """For who doesn't want to know."""
