"""Read and write JSON without importing `json`, because the import takes longer than all the JSON of a start."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


BLANK = " \t\n\r"


class _Rules:
    """The attributes that the scanner in `json`'s C half reads from a decoder."""

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
        raise ValueError(f"{name} is not a JSON number")


def loads(data: bytes) -> Any:
    """Like `json.loads` for UTF-8, but refuse NaN, Infinity, and numbers too large for a float (1e999).

    Raises:
        ValueError: it is not JSON; says where.
        RecursionError: it is nested too deeply.
    """
    text = data.decode()
    try:
        from _json import make_scanner

        rules: Any = _Rules
        value, end = make_scanner(rules)(text, len(text) - len(text.lstrip(BLANK)))
        if not text[end:].strip(BLANK):
            return value
    except (ImportError, StopIteration, SystemError):  # another interpreter; or an error, which json puts into words
        pass
    from json import loads as of_json

    return of_json(text, parse_constant=_Rules.parse_constant, parse_float=_Rules.parse_float)


def dumps(value: Any, before: str = "\n") -> str:
    """Like `json.dumps` with an indent of 1.

    Args:
        before: put before each line but the first; "" to put all on one line.

    Raises:
        TypeError: JSON has no such type.
    """
    if not before and (encode := _in_one_line()):
        return "".join(encode(value, 0))
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
    _refuse(value)


_encoder: list[Any] = []


def _in_one_line() -> Any:
    """Return the encoder in `json`'s C half; None for another interpreter, which has none."""
    if not _encoder:
        try:
            from _json import encode_basestring_ascii, make_encoder
        except ImportError:
            _encoder.append(None)
        else:
            _encoder.append(make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ",", False, False, True))
    return _encoder[0]


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"JSON has no {type(value).__name__}")


_ESCAPES = {9: "\\t", 10: "\\n", 34: '\\"', 92: "\\\\"}


def quoted(text: str) -> str:
    """Return a JSON string that is all ASCII."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    units = text.encode("utf-16-be", "surrogatepass")
    codes = [units[at] << 8 | units[at + 1] for at in range(0, len(units), 2)]
    return '"' + "".join(_ESCAPES.get(c) or (chr(c) if 32 <= c < 127 else f"\\u{c:04x}") for c in codes) + '"'
