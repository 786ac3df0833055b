"""The functions of templates: Go's and those that Docker adds; and formatting values like Go."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

WIDTH_MAX = 1000
MANY = 1 << 20
VERB = re.compile(r"%([-+# 0]*)(\d{0,4})(?:\.(\d{0,4}))?(.?)", re.DOTALL)


class Failure(Exception):
    """A function can't handle its arguments; the message says why."""


class Map(dict[str, object]):
    """A Go map, such as labels. Unlike in a struct, a missing key is not an error."""


class _NoValue:
    def __repr__(self) -> str:
        return "<no value>"


#: The value of a key that is missing in a `Map`.
NO_VALUE = _NoValue()


def is_true(value: Any) -> bool:
    """Return whether ``value`` is true in Go's templates: not zero, nil or empty."""
    return value is not NO_VALUE and bool(value)


def say(value: Any, *, inner: bool = False) -> str:
    """Format ``value`` like Go: ``[a b]``, ``map[k:v]``, ``<no value>``; a float as short as possible."""
    if isinstance(value, str):
        return value
    if value is None or value is NO_VALUE:
        return "<nil>" if inner else "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, dict):
        return f"map[{' '.join(f'{say(key)}:{say(item, inner=True)}' for key, item in sorted(value.items()))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(say(item, inner=True) for item in value)}]"
    return str(value)


def _float(value: float) -> str:
    """Format like Go's %v: no trailing zeros; from 1e21 on and below 1e-4 with an exponent of two digits."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


# ---- Go's ---------------------------------------------------------------------------------------


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise Failure(f"a map has no key {say(key)}: keys are strings")
            missing = "" if all(isinstance(item, str) for item in value.values()) else NO_VALUE
            value = value.get(key, missing)
        elif isinstance(value, (list, tuple, str)):
            if not isinstance(key, int) or isinstance(key, bool):
                raise Failure(f"can't index a list with {say(key)!r}")
            if not 0 <= key < len(value):
                raise Failure(f"index {key} is out of range, the length is {len(value)}")
            value = value[key]
        else:
            raise Failure(f"can't index {say(value)!r}")
    return value


def _slice(value: Any, *ends: Any) -> Any:
    if not isinstance(value, (list, tuple, str)):
        raise Failure(f"can't slice {say(value)!r}")
    if any(not isinstance(end, int) or not 0 <= end <= len(value) for end in ends):
        raise Failure(f"slice {' '.join(map(say, ends))} is out of range, the length is {len(value)}")
    whole = slice(*ends) if len(ends) == 2 else slice(ends[0] if ends else 0, None)
    if len(ends) == 2 and ends[0] > ends[1]:
        raise Failure(f"slice out of range: {ends[0]} is greater than {ends[1]}")
    return value[whole]


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (dict, list, tuple)):
        return len(value)
    raise Failure(f"{say(value)!r} has no length")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return "string" if isinstance(value, str) else "nothing" if value is None or value is NO_VALUE else "other"


def _comparable(first: Any, second: Any) -> None:
    if "other" in (_kind(first), _kind(second)):
        raise Failure("lists and maps can't be compared")
    if _kind(first) != _kind(second) and "nothing" not in (_kind(first), _kind(second)):
        raise Failure(f"incompatible types for comparison: {say(first)!r} and {say(second)!r}")


def _eq(first: Any, *others: Any) -> bool:
    for other in others:
        _comparable(first, other)
    return any(_kind(first) == _kind(other) and (first == other or _kind(first) == "nothing") for other in others)


def _lt(first: Any, second: Any) -> bool:
    _comparable(first, second)
    if _kind(first) != _kind(second) or _kind(first) not in ("number", "string"):
        raise Failure(f"{say(first)!r} and {say(second)!r} can't be ordered")
    return bool(first < second)


def _le(first: Any, second: Any) -> bool:
    return _lt(first, second) or _eq(first, second)


def _print(*values: Any) -> str:
    """Format like Go's Sprint: with spaces only between values that aren't strings."""
    text = ""
    for at, value in enumerate(values):
        apart = at and not isinstance(value, str) and not isinstance(values[at - 1], str)
        text += (" " if apart else "") + say(value, inner=True)
    return text


def _println(*values: Any) -> str:
    return " ".join(say(value, inner=True) for value in values) + "\n"


def _printf(form: Any, *values: Any) -> str:
    """Format with Go's verbs s, v, d, x, X, o, b, c, q, t, f, e, g and %. Like Go, put errors into the text."""
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match[1], match[2], match[3], match[4]
        if verb == "%":
            return "%"
        if not verb:
            return "%!(NOVERB)"
        if not rest:
            return f"%!{verb}(MISSING)"
        if max(int(width or 0), int(precision or 0)) > WIDTH_MAX:
            raise Failure(f"printf: the width is larger than {WIDTH_MAX}")
        text = _verb(verb, flags, precision, rest.pop(0))
        zeros = "0" in flags and "-" not in flags
        if zeros and text[:1] in ("-", "+"):
            return text[0] + text[1:].rjust(int(width or 0) - 1, "0")
        return text.ljust(int(width or 0)) if "-" in flags else text.rjust(int(width or 0), "0" if zeros else " ")

    text = VERB.sub(one, _text(form))
    extra = ", ".join(f"{_type(value)}={say(value, inner=True)}" for value in rest)
    return text + (f"%!(EXTRA {extra})" if rest else "")


def _verb(verb: str, flags: str, precision: str | None, value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    plus = "+" if "+" in flags and whole and value >= 0 else ""
    if verb == "v" or (verb == "s" and not isinstance(value, (bool, int, float))):
        text = say(value, inner=True)
        return plus + (text[: int(precision or 0)] if precision is not None and isinstance(value, str) else text)
    if verb == "q" and isinstance(value, str):
        return _json(value)
    if verb in "xX" and isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass").hex()
        return text.upper() if verb == "X" else text
    if verb in "dxXob" and whole:
        return plus + format(value, verb)
    if verb == "c" and whole and 0 <= value < 0x110000:
        return chr(value)
    if verb == "t" and isinstance(value, bool):
        return say(value)
    if verb in "feg" and isinstance(value, float):
        if verb == "g" and precision is None:
            return _float(value)
        return format(value, f".{6 if precision is None else int(precision or 0)}{verb}")
    return f"%!{verb}({_type(value)}={say(value, inner=True)})"


def _type(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}" if isinstance(value, dict) else "<nil>")


# ---- Docker's -----------------------------------------------------------------------------------


def _json(value: Any) -> str:
    import json

    def plain(item: Any) -> Any:
        return None if item is NO_VALUE else str(item)

    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if not callable(item)}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=plain)


def _join(values: Any, separator: Any) -> str:
    if values is None or values is NO_VALUE:
        return ""
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) for value in values):
        raise Failure(f"{say(values)!r} is not a list of strings")
    return _text(separator).join(values)


def _split(text: Any, separator: Any) -> list[str]:
    text, separator = _text(text), _text(separator)
    return text.split(separator) if separator else list(text)


def _pad(text: Any, before: Any, behind: Any) -> str:
    text = _text(text)
    return " " * _count(before) + text + " " * _count(behind) if text else ""


def _truncate(text: Any, length: Any) -> str:
    return _text(text)[: _count(length)]


def _title(text: Any) -> str:
    return re.sub(r"(?<!\w)\w", lambda match: match[0].upper(), _text(text))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Failure(f"{say(value)!r} is not a string")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= WIDTH_MAX:
        raise Failure(f"{say(value)!r} is not a number from 0 to {WIDTH_MAX}")
    return value


def _html(*values: Any) -> str:
    import html

    return html.escape(_print(*values))


def _urlquery(*values: Any) -> str:
    from urllib.parse import quote_plus

    return quote_plus(_print(*values).encode("utf-8", "surrogatepass"))


#: Name: function, the minimum and the maximum number of arguments. `and` and `or` evaluate only the arguments that they
#: need, so `template_nodes.apply` handles them itself.
FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "and": (is_true, 1, MANY),
    "or": (is_true, 1, MANY),
    "not": (lambda value: not is_true(value), 1, 1),
    "eq": (_eq, 2, MANY),
    "ne": (lambda first, second: not _eq(first, second), 2, 2),
    "lt": (_lt, 2, 2),
    "le": (_le, 2, 2),
    "gt": (lambda first, second: not _le(first, second), 2, 2),
    "ge": (lambda first, second: not _lt(first, second), 2, 2),
    "html": (_html, 1, MANY),
    "index": (_index, 1, MANY),
    "len": (_len, 1, 1),
    "print": (_print, 0, MANY),
    "printf": (_printf, 1, MANY),
    "println": (_println, 0, MANY),
    "slice": (_slice, 1, 3),
    "urlquery": (_urlquery, 1, MANY),
    "join": (_join, 2, 2),
    "json": (_json, 1, 1),
    "lower": (lambda text: _text(text).lower(), 1, 1),
    "pad": (_pad, 3, 3),
    "split": (_split, 2, 2),
    "title": (_title, 1, 1),
    "truncate": (_truncate, 2, 2),
    "upper": (lambda text: _text(text).upper(), 1, 1),
}
