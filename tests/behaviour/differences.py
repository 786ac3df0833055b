"""The differences between two recordings, for a reader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

LINES_MAX = 40
WIDTH = 220


def report(old: dict[str, Any], new: dict[str, Any], ignore: list[str]) -> int:
    """Print them by case, and how many cases differ in what; 1 if any does."""
    counts: dict[str, int] = {}
    different = 0
    for name in sorted(old.keys() | new.keys()):
        before, now = _without(old.get(name), ignore), _without(new.get(name), ignore)
        if before == now:
            continue
        different += 1
        print(f"\n{name}: {_words(before or now)}")
        if not isinstance(before, dict) or not isinstance(now, dict):
            print(f"  only in the {'new' if before is None else 'old'} recording")
            continue
        for key in sorted(before.keys() | now.keys()):
            lines = list(_differences(key, before.get(key), now.get(key)))
            if lines:
                counts[key] = counts.get(key, 0) + 1
            for line in lines[:LINES_MAX]:
                print(f"  {line}")
            if len(lines) > LINES_MAX:
                print(f"  {key}: and {len(lines) - LINES_MAX} lines more")
    print(
        f"\n{len(old.keys() | new.keys())} cases, {different} differ"
        + "".join(f"; {key}: {count}" for key, count in sorted(counts.items()))
    )
    return 1 if different else 0


def _without(value: Any, ignore: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(each, ignore) for key, each in value.items() if key not in ignore}
    if isinstance(value, list):
        return [_without(each, ignore) for each in value]
    return value


def _words(recorded: dict[str, Any]) -> str:
    case = recorded["case"]
    words = case.get("words") or case.get("keywords") or case.get("lines") or [step[0] for step in case["life"]]
    return _short(" ".join(map(str, words)) if isinstance(words, list) else str(words))


def _differences(where: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(f"{where}.{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _of_lists(where, old, new)
    else:
        for sign, value in (("-", old), ("+", new)):
            lines = value.splitlines() if isinstance(value, str) else [json.dumps(value)]
            yield from (f"{where} {sign} {_short(line)}" for line in lines)


def _of_lists(where: str, old: list[Any], new: list[Any]) -> Iterator[str]:
    """By lines, as `diff` does; of objects in the same places by their keys."""
    from difflib import SequenceMatcher

    texts = [
        [each if isinstance(each, str) else json.dumps(each, sort_keys=True) for each in values]
        for values in (old, new)
    ]
    for tag, a, b, c, d in SequenceMatcher(None, texts[0], texts[1], autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        if b - a == d - c and all(isinstance(each, dict) for each in (*old[a:b], *new[c:d])):
            for number, (before, now) in enumerate(zip(old[a:b], new[c:d]), a):
                yield from _differences(f"{where}[{number}]", before, now)
            continue
        yield from (f"{where}[{number}] - {_short(texts[0][number])}" for number in range(a, b))
        yield from (f"{where}[{number}] + {_short(texts[1][number])}" for number in range(c, d))


def _short(text: str) -> str:
    text = text.replace("\n", "\\n")
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
