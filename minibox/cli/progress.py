"""How downloads and uploads are shown: lines as Docker writes them, and on a terminal bars."""

from __future__ import annotations

from threading import Lock

from minibox.cli.table import printable
from minibox.image import progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from rich.progress import TaskID

    from minibox.image.progress import Progress

DIGEST_SHOWN = 12
# What has no line of its own: the steps between two states.
MOVING = (progress.DOWNLOADING, progress.PUSHING, progress.EXTRACTING)


class Shown:
    """Shows what happens to blobs on ``stream``, if there is one, from `begin` to `end`; may be begun again."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._display: _Lines | _Bars | None = None

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        """From now on something is shown."""
        if self._stream is not None:
            self._display = _Bars(self._stream) if self._stream.isatty() else _Lines(self._stream)

    def end(self) -> None:
        """What was shown stays; what is written next stands below."""
        if self._display is not None:
            self._display.close()
            self._display = None

    def show(self, event: Progress) -> None:
        """Show a step of a blob; from any thread."""
        if (display := self._display) is not None:
            display.show(event)


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
