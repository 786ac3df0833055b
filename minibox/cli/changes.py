"""The changes of a trial, for people: a line for each path, then the differences of texts."""

from __future__ import annotations

from minibox.cli.format.units import format_size
from minibox.cli.messages import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from minibox.engine.trial.changes import Found
    from minibox.engine.trial.kept import Trial

LINES_MAX = 1000


def show_changes(trial: Trial, file: TextIO) -> None:
    """Write the changes to ``file``: kind, path, size and privilege of each, and unified diffs of changed texts."""
    if not trial.found:
        file.write("no changes\n")
        return
    for each in trial.found:
        file.write(f"{each.kind} {printable(trial.tree.host_path(each.path))}{_more(each)}\n")
    left = LINES_MAX
    with trial.overlays() as overlays:
        for each in trial.found:
            lines = overlays.difference(each)
            for line in lines[:left]:
                file.write(printable(line.replace("\t", "        ")) + "\n")
            left -= min(len(lines), left)
            if not left:
                file.write("...\n")
                break
    count = {kind: sum(each.kind == kind for each in trial.found) for kind in "ACD"}
    size = sum(each.size_bytes for each in trial.found)
    file.write(f"{count['A']} added, {count['C']} changed, {count['D']} deleted; {format_size(size)} in files\n")


def _more(found: Found) -> str:
    size = f"  {format_size(found.size_bytes)}" if found.size_bytes else ""
    return size + (f"  ({found.privilege})" if found.privilege else "")
