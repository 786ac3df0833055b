"""Show the progress of downloads and uploads: bars on a terminal, else lines like Docker's."""

from __future__ import annotations

from threading import Lock

from minibox.cli.format.table import printable
from minibox.image import progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from rich.progress import TaskID

    from minibox.image.progress import Progress

DIGEST_SHOWN = 12
# Steps between two states, which get no line of their own.
MOVING = (progress.DOWNLOADING, progress.PUSHING, progress.EXTRACTING)


class Shown:
    """Shows the progress of blobs on ``stream``, if any, between `begin` and `end`. You can call `begin` again."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._display: _Lines | _Bars | None = None

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        """Start showing progress."""
        if self._stream is not None:
            self._display = _Bars(self._stream) if self._stream.isatty() else _Lines(self._stream)

    def end(self) -> None:
        """Stop. What was shown stays on the screen, and later output comes below it."""
        if self._display is not None:
            self._display.close()
            self._display = None

    def show(self, event: Progress) -> None:
        """Show a step of a blob. Any thread may call this."""
        if (display := self._display) is not None:
            display.show(event)


def label(digest: str) -> str:
    """Return the short digest of a blob: ``261c7d34e64b``."""
    return digest.removeprefix("sha256:")[:DIGEST_SHOWN]


def wording(event: Progress) -> str:
    """Return the state of a blob in words."""
    return f"{event.state} {printable(event.detail)}".rstrip()


class _Lines:
    """A line for each change of state."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, event: Progress) -> None:
        if event.state not in MOVING:
            # One write, because several threads report their blobs.
            self._stream.write(f"{label(event.digest)}: {wording(event)}\n")
            self._stream.flush()

    def close(self) -> None:
        pass


class _Bars:
    """A row for each blob."""

    def __init__(self, stream: TextIO) -> None:
        from rich import progress as rich_progress
        from rich.console import Console

        self._bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.fields[label]}: {task.description}", markup=False),
            rich_progress.BarColumn(bar_width=30),
            rich_progress.DownloadColumn(),
            console=Console(file=stream),
            refresh_per_second=8,
        )
        self._rows: dict[str, TaskID] = {}
        self._lock = Lock()
        self._bars.start()

    def close(self) -> None:
        self._bars.stop()

    def show(self, event: Progress) -> None:
        with self._lock:
            row = self._rows.get(event.digest)
            if row is None:
                row = self._rows[event.digest] = self._bars.add_task(
                    "", label=label(event.digest), total=event.total_bytes or None
                )
        if event.total_bytes:
            self._bars.update(row, description=wording(event), completed=event.done_bytes, total=event.total_bytes)
        else:
            self._bars.update(row, description=wording(event))
