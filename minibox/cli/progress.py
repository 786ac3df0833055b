"""How downloads and uploads are shown: lines as Docker writes them, and on a terminal bars."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock

from minibox.cli.table import printable
from minibox.image import progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from minibox.image.progress import OnProgress, Progress

DIGEST_SHOWN = 12
# What has no line of its own: the steps between two states.
MOVING = (progress.DOWNLOADING, progress.PUSHING, progress.EXTRACTING)
WITH_BYTES = (progress.DOWNLOADING, progress.PUSHING)


@contextmanager
def shown(stream: TextIO | None) -> Iterator[OnProgress]:
    """While the block runs, what the yielded function is called with is shown on ``stream``, if there is one."""
    if stream is None:
        yield progress.silent
    elif stream.isatty():
        with _bars(stream) as bars:
            yield bars.show
    else:
        yield _Lines(stream).show


def label(digest: str) -> str:
    """How a blob is called on the screen: ``261c7d34e64b``."""
    return digest.removeprefix("sha256:")[:DIGEST_SHOWN]


def wording(event: Progress) -> str:
    """What is said of a blob."""
    return f"{event.state} {printable(event.detail)}".rstrip()


class _Lines:
    """A line for each change of state."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, event: Progress) -> None:
        if event.state not in MOVING:
            # One write, since several threads tell of their blobs.
            self._stream.write(f"{label(event.digest)}: {wording(event)}\n")
            self._stream.flush()


@contextmanager
def _bars(stream: TextIO) -> Iterator[_Bars]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.fields[label]}: {task.description}", markup=False),
        BarColumn(bar_width=30),
        DownloadColumn(),
    )
    with Progress(*columns, console=Console(file=stream), refresh_per_second=8) as bars:
        yield _Bars(bars)


class _Bars:
    """A row for each blob."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._rows: dict[str, TaskID] = {}
        self._lock = Lock()

    def show(self, event: Progress) -> None:
        with self._lock:
            row = self._rows.get(event.digest)
            if row is None:
                row = self._rows[event.digest] = self._bars.add_task("", label=label(event.digest), total=None)
        if event.state in WITH_BYTES:
            self._bars.update(row, description=event.state, completed=event.done_bytes, total=event.total_bytes)
        elif event.total_bytes:
            self._bars.update(row, description=wording(event), total=event.total_bytes)
        else:
            self._bars.update(row, description=wording(event))
