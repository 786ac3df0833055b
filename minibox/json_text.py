"""JSON without `json`, whose import costs a start more than all that it reads and writes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


BLANK = " \t\n\r"


class _Rules:
    """What the scanner of `json`'s C half asks of a decoder."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_int = int

    @staticmethod
    def parse_float(text: str) -> float:
        value = float(text)
        if value - value:
            raise ValueError(f"{text} is out of range")
        return value

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise ValueError(f"{name} is no number of JSON")


def loads(data: bytes) -> Any:
    """As `json.loads` of UTF-8, without NaN and Infinity, and without numbers that would be (1e999).

    Raises:
        ValueError: it is not JSON; says where.
        RecursionError: nested too deep.
    """
    text = data.decode()
    try:
        from _json import make_scanner

        rules: Any = _Rules
        value, end = make_scanner(rules)(text, len(text) - len(text.lstrip(BLANK)))
        if not text[end:].strip(BLANK):
            return value
    except (ImportError, StopIteration, SystemError):  # another interpreter; or an error, whose words are json's
        pass
    from json import loads as of_json

    return of_json(text, parse_constant=_Rules.parse_constant, parse_float=_Rules.parse_float)


def dumps(value: Any, before: str = "\n") -> str:
    """As `json.dumps` with an indent of 1.

    Args:
        before: what stands before each line but the first; "" for all on one line.

    Raises:
        TypeError: JSON has nothing for a value.
    """
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    inner = before + " " if before else ""
    if isinstance(value, (list, tuple)):
        text = f",{inner}".join([dumps(each, inner) for each in value])
        return f"[{inner}{text}{before}]" if text else "[]"
    if isinstance(value, dict):
        text = f",{inner}".join([f"{quoted(key)}: {dumps(each, inner)}" for key, each in value.items()])
        return f"{{{inner}{text}{before}}}" if text else "{}"
    raise TypeError(f"JSON has no {type(value).__name__}")


_ESCAPES = {9: "\\t", 10: "\\n", 34: '\\"', 92: "\\\\"}


def quoted(text: str) -> str:
    """A JSON string of ASCII."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    units = text.encode("utf-16-be", "surrogatepass")
    codes = [units[at] << 8 | units[at + 1] for at in range(0, len(units), 2)]
    return '"' + "".join(_ESCAPES.get(c) or (chr(c) if 32 <= c < 127 else f"\\u{c:04x}") for c in codes) + '"'
