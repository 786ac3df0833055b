"""What a misspelt word was meant to be."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str | None:
    """The word of ``known`` that is nearest to ``word``: two edits away at most, one for a short word."""
    limit = 2 if len(word) > 4 else 1
    ranked = sorted((_distance(word.lower(), each.lower()), each) for each in known)
    return ranked[0][1] if ranked and ranked[0][0] <= limit else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint: the nearest of the known words, else all of them."""
    known = list(known)
    best = closest(word, known)
    return f"did you mean {best}?" if best else f"known are {', '.join(known)}"


def _distance(one: str, other: str) -> int:
    """How many letters must be inserted, dropped, changed or swapped with their neighbour."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        next_row = [i]
        for j, wanted in enumerate(other, 1):
            cost = min(row[j] + 1, next_row[j - 1] + 1, row[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, before[j - 2] + 1)
            next_row.append(cost)
        before, row = row, next_row
    return row[-1]
