"""What a program has written to a terminal, as text: lines that a reader would have seen."""

from __future__ import annotations

import re

# ECMA-48, 5.4 and 5.6: control sequences (colours, movements), strings (titles, links), and the escapes that are neither.
ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~] | \x1b[\]PX^_].*?(?:\x07|\x1b\\|$) | \x1b[ -/]*[0-~]", re.VERBOSE | re.DOTALL
)
ERASED = re.compile("[^\x08]\x08")


def plain(line: str) -> str:
    """A line without its end and without what only a terminal obeys; of what was written over, as by a progress bar, the last."""
    line = ESCAPE.sub("", line).rstrip("\r\n").rpartition("\r")[2]
    while "\b" in line:
        line, count = ERASED.subn("", line)
        if not count:
            return line.replace("\b", "")
    return line
