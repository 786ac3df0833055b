"""What happens during a build, for whoever shows it: the command line, the Python API."""

from __future__ import annotations

from minibox.record import record

CACHED, DONE, FAILED = "cached", "done", "failed"


@record
class LineStarted:
    """A line of a stage is being carried out.

    Attributes:
        line: counts all lines of the build that are carried out or found, from 1.
        stage: the stage's name or number.
        number, total: the line's number in its stage, and the number of the stage's lines.
        text: what the line says.
    """

    line: int
    stage: str
    number: int
    total: int
    text: str


@record
class LineOutput:
    """A line's command has written something. ``data`` is not cut at ends of lines."""

    line: int
    data: bytes


@record
class LineEnded:
    """A line has ended: `CACHED`, `DONE` or `FAILED`. ``why`` says why it was reused or not, if that was asked for."""

    line: int
    state: str
    seconds: float
    why: str = ""


@record
class Notice:
    """Something that the user should know: a warning, or what the build has to do without."""

    text: str


@record
class ImageMade:
    """The build has made an image: its id, its manifest's digest, and its names."""

    id: str
    digest: str
    names: tuple[str, ...]


Event = LineStarted | LineOutput | LineEnded | Notice | ImageMade
