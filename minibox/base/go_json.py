"""JSON as Go's `encoding/json` writes it, byte for byte: there are scripts that compare runc's text."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = '"\\<>&'  # the last three for HTML


def text(value: Any, indent: str = "", before: str = "\n") -> str:
    """A value of strings, whole numbers, truths, lists and dicts.

    Args:
        indent: of each level; "" for all on one line, without a space.
        before: what stands before each line but the first, where there is an indent.
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
    raise TypeError(f"no value of these: {type(value).__name__}")


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
