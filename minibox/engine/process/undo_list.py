"""The undo lists in files (see `engine.process.undo`): a line of the live file, and a file for what was added later."""

from __future__ import annotations

import os

from minibox.base.codec import FileKind
from minibox.engine.process.undo import fields_of, steps_of
from minibox.errors import Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.base.operation import Op

MORE = "updated"  # the undo list for what `update` and `network connect` added
#: The format of a list: one line.
LIST = FileKind("undo", {"Steps": [{"Operation": str, "Arguments": [object]}]}, indented=False, empty={"Steps": []})


def encode(steps: Iterable[Op]) -> bytes:
    """Encode a list as one line; see `decode`."""
    return LIST.encode({"Steps": fields_of(steps)})


def decode(data: bytes, path: str, container_id: str) -> tuple[Op, ...]:
    """Decode a line of `encode`.

    Raises:
        Unreadable: it is damaged, from a newer minibox, or for another container.
    """
    return steps_of(LIST.decode(data, path)["Steps"], path, container_id)


def read_more(directory: str) -> tuple[Op, ...]:
    """The operations that undo what was added to a container since its start; none if the file can't be read."""
    try:
        return steps_of(LIST.read(f"{directory}/{MORE}")["Steps"], directory, os.path.basename(directory))
    except (OSError, Unreadable):
        return ()


def write_more(directory: str, steps: Iterable[Op]) -> None:
    """Add operations to that file. Hold the lock of the directory, and call it before you make what they undo."""
    before = read_more(directory)
    once = {(step.name, step.args): step for step in (*before, *steps)}
    LIST.write(f"{directory}/{MORE}", {"Steps": fields_of(once.values())})
