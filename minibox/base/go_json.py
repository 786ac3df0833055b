"""Write JSON as Go's `encoding/json` does, byte for byte, because some scripts compare runc's output as text."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = '"\\<>&'  # the last three for HTML


def text(value: Any, indent: str = "", before: str = "\n") -> str:
    """Encode a value made of strings, integers, booleans, None, lists and dicts.

    Args:
        indent: the indent of one level; "" to put all on one line without spaces.
        before: put before each line but the first, if there is an indent.
    """
    if isinstance(value, str):
        return _string(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    inner, close = (before + indent, before) if indent else ("", "")
    if isinstance(value, (list, tuple)):
        return f"[{inner}{f',{inner}'.join([text(each, indent, inner) for each in value])}{close}]" if value else "[]"
    if isinstance(value, dict):
        colon = ": " if indent else ":"
        parts = [f"{_string(key)}{colon}{text(each, indent, inner)}" for key, each in value.items()]
        return f"{{{inner}{f',{inner}'.join(parts)}{close}}}" if value else "{}"
    raise TypeError(f"can't write {type(value).__name__} as JSON")


def _string(word: str) -> str:
    if word.isprintable() and not any(each in word for each in _ESCAPED):
        return f'"{word}"'
    return '"' + "".join(map(_character, word)) + '"'


def _character(each: str) -> str:
    if each in _ESCAPES:
        return _ESCAPES[each]
    if each < " " or each in "<>&\u2028\u2029":
        return f"\\u{ord(each):04x}"
    return "\ufffd" if "\ud800" <= each <= "\udfff" else each
