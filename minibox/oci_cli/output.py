"""Print JSON like runc."""

from __future__ import annotations

import sys

from minibox.base.go_json import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write(value: Any, indent: str = "", end: str = "\n") -> None:
    """Print a value as JSON, in UTF-8 whatever the locale is."""
    sys.stdout.flush()
    sys.stdout.buffer.write((text(value, indent) + end).encode())
    sys.stdout.buffer.flush()
