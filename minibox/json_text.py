"""Writing JSON without `json`, whose import costs a start more than all that it writes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def dumps(value: Any, before: str = "\n") -> str:
    """As `json.dumps` with an indent of 1.

    Args:
        before: what stands before each line but the first.

    Raises:
        TypeError: JSON has nothing for a value.
    """
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    inner = before + " "
    if isinstance(value, (list, tuple)):
        text = f",{inner}".join([dumps(each, inner) for each in value])
        return f"[{inner}{text}{before}]" if text else "[]"
    if isinstance(value, dict):
        text = f",{inner}".join([f"{quoted(key)}: {dumps(each, inner)}" for key, each in value.items()])
        return f"{{{inner}{text}{before}}}" if text else "{}"
    raise TypeError(f"JSON has no {type(value).__name__}")


def quoted(text: str) -> str:
    """A JSON string of ASCII."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    units = text.encode("utf-16-be", "surrogatepass")
    codes = [units[at] << 8 | units[at + 1] for at in range(0, len(units), 2)]
    return '"' + "".join(chr(c) if 32 <= c < 127 and c not in (34, 92) else f"\\u{c:04x}" for c in codes) + '"'
