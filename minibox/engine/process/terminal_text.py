"""Turn what a program wrote to a terminal into plain text: the lines that a reader would have seen."""

from __future__ import annotations

import re

# ECMA-48, 5.4 and 5.6: control sequences (colours, movements), strings (titles, links), and other escapes.
ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~] | \x1b[\]PX^_].*?(?:\x07|\x1b\\|$) | \x1b[ -/]*[0-~]", re.VERBOSE | re.DOTALL
)
ERASED = re.compile("[^\x08]\x08")


def plain(line: str) -> str:
    """Remove the line end and control sequences. If a line was overwritten, as by a progress bar, keep the last text."""
    line = ESCAPE.sub("", line).rstrip("\r\n").rpartition("\r")[2]
    while "\b" in line:
        line, count = ERASED.subn("", line)
        if not count:
            return line.replace("\b", "")
    return line
