"""What the last build of a Dockerfile did, line by line, so that the next one can say why a line isn't reused."""

from __future__ import annotations

import hashlib
import os

from minibox.base import damage
from minibox.base.codec import FileKind
from minibox.base.shape import Between, moment
from minibox.build.line import KEY, key_fields, key_from
from minibox.errors import Unreadable
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.build.line import Key

HISTORY = FileKind(
    "build history",
    {"Dockerfile": str, "Lines": [{**KEY, "Stage": str, "Number": Between(0, 1 << 31), "Text": str}]},
    indented=False,
)
PRUNED = FileKind("pruned build lines", {"Lines": {str: moment}}, indented=False)
PRUNED_MAX = 5000


@record
class Place:
    """A line of a Dockerfile.

    Attributes:
        stage: the stage's name, or its number if it has none.
        number: which instruction of the stage it is, from 1.
        text: the line as it was written.
    """

    stage: str
    number: int
    text: str


class History:
    """The keys of the lines of one Dockerfile."""

    def __init__(self, root: str, dockerfile: str) -> None:
        """Read what is known. A damaged file is reported, and counts as empty.

        Args:
            dockerfile: what tells the Dockerfile from others: its path and the context's, for example.
        """
        name = hashlib.sha256(dockerfile.encode(errors="surrogateescape")).hexdigest()
        self._path, self._dockerfile = f"{root}/build/histories/{name}", dockerfile
        self._before: dict[Place, Key] = {}
        self._now: dict[Place, Key] = {}
        try:
            lines = HISTORY.read(self._path)["Lines"]
        except FileNotFoundError:
            return
        except Unreadable as error:
            damage.tell(error)
            return
        self._before = {Place(each["Stage"], each["Number"], each["Text"]): key_from(each) for each in lines}

    def former(self, place: Place) -> Key | None:
        """Return the key that a line had in the last build; None if there was no such line.

        A line that says the same counts, also if lines were added above; else the one with the same number.
        """
        here = [(each, key) for each, key in self._before.items() if each.stage == place.stage]
        same = [(abs(each.number - place.number), key) for each, key in here if each.text == place.text]
        if same:
            return min(same, key=lambda item: item[0])[1]
        return next((key for each, key in here if each.number == place.number), None)

    def note(self, place: Place, key: Key) -> None:
        """Note that a line is done or reused."""
        self._now[place] = key

    def save(self) -> None:
        """Write what was noted. Lines that this build didn't come to keep what is known of them."""
        done = {(each.stage, each.number) for each in self._now}
        kept = {each: key for each, key in self._before.items() if (each.stage, each.number) not in done}
        lines = [
            {**key_fields(key), "Stage": each.stage, "Number": each.number, "Text": each.text}
            for each, key in {**kept, **self._now}.items()
        ]
        os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
        HISTORY.write(self._path, {"Dockerfile": self._dockerfile, "Lines": lines})


def note_pruned(root: str, keys: list[str], now_s: float) -> None:
    """Note when lines were pruned. Only the latest are kept."""
    if not keys:
        return

    def changed(fields: dict[str, dict[str, float]] | None) -> dict[str, dict[str, float]]:
        lines = {**(fields or {}).get("Lines", {}), **dict.fromkeys(keys, now_s)}
        return {"Lines": dict(sorted(lines.items(), key=lambda item: item[1])[-PRUNED_MAX:])}

    try:
        PRUNED.change(f"{root}/build/pruned", changed)
    except Unreadable as error:
        damage.tell(error)


def pruned_s(root: str, key_id: str) -> float | None:
    """Return when a line was pruned, in seconds since 1970; None if it wasn't."""
    try:
        when: float | None = PRUNED.read(f"{root}/build/pruned")["Lines"].get(key_id)
    except FileNotFoundError:
        return None
    except Unreadable as error:
        damage.tell(error)
        return None
    return when
