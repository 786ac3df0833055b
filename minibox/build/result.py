"""What a stage has made so far, and who waits for it."""

from __future__ import annotations

from threading import Event

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.build.dockerfile.scope import Scope
    from minibox.build.image.draft import Draft
    from minibox.image.layout.image import ResolvedImage


@record
class StageResult:
    """What a stage has made.

    Attributes:
        base: the image that it began with, if need be through other stages; None for ``scratch``.
        below: the layers on disk that it began with, bottom first.
        layers: those of its lines and of the stages below it, bottom first.
    """

    draft: Draft
    base: ResolvedImage | None
    below: tuple[str, ...]
    layers: tuple[str, ...]

    @property
    def chain(self) -> tuple[str, ...]:
        """All layers on disk, bottom first."""
        return (*self.below, *self.layers)


class StageJob:
    """One stage: ``done`` once its thread has ended; then ``result`` and ``scope`` are there, unless it has failed."""

    def __init__(self) -> None:
        self.done = Event()
        self.result: StageResult | None = None
        self.scope: Scope | None = None
