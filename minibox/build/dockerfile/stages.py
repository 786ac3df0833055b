"""The stages of a Dockerfile, as it has them: each FROM with what follows it."""

from __future__ import annotations

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.mounts import from_of
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@record
class StageText:
    """One FROM, and the instructions up to the next; ``index`` counts from 0."""

    index: int
    head: kinds.From
    body: tuple[kinds.Instruction, ...]

    @property
    def label(self) -> str:
        """How to call it: its name, else its number."""
        return self.head.name or str(self.index)


def stages_of(dockerfile: kinds.Dockerfile) -> tuple[StageText, ...]:
    """Split a Dockerfile at its FROMs."""
    stages: list[tuple[kinds.From, list[kinds.Instruction]]] = []
    for instruction in dockerfile.instructions:
        if isinstance(instruction, kinds.From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
    return tuple(StageText(index, head, tuple(body)) for index, (head, body) in enumerate(stages))


def references(instruction: kinds.Instruction) -> Iterator[str]:
    """The names of stages, contexts and images that COPY --from or RUN --mount asks for, as written."""
    if isinstance(instruction, kinds.Copy) and instruction.from_name:
        yield instruction.from_name
    elif isinstance(instruction, kinds.Run):
        yield from (name for flag in instruction.mount_flags if (name := from_of(flag)))
