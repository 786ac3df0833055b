"""The error of a command that failed: the Dockerfile's lines around it, its last output, and how it ended."""

from __future__ import annotations

import os
import re

from minibox.base.lines import lines_of
from minibox.engine.host import ids
from minibox.errors import BuildError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.build.dockerfile import instructions as kinds
    from minibox.build.graph import Stage
    from minibox.build.result import StageResult
    from minibox.build.steps.step import Ended
    from minibox.engine.spec.options import RunOptions

LINES_AROUND = 2
OUTPUT_LINES = 10
# What mknod, tar, cp, cpio, Python and debootstrap write if they can't make a device.
DEVICES = re.compile(rb"mknod|special file|create node|can't create|mounted with noexec or nodev")
# What chown, tar, install, cpio, Python and setpriv write if the user namespace doesn't map an id.
OWNERS = re.compile(rb"chown|chgrp|owner|[ug]id\b", re.IGNORECASE)


@record
class FailedState:
    """Where a command has failed.

    Attributes:
        state: what it began with.
        layer: the layer of what it left; "" if it left nothing.
        options: how it was run, without its mounts.
    """

    state: StageResult
    layer: str
    options: RunOptions
    line: kinds.Run
    stage: Stage


class LineFailed(BuildError):
    """A RUN's command failed.

    Attributes:
        file, line: the Dockerfile, and the first line of the RUN.
        command_status: the command's own exit status.
        excerpt: the Dockerfile's lines around the RUN, marked.
        output: the last lines that the command has written.
        failed: where it has failed, if that was kept for a shell.
    """

    def __init__(
        self, dockerfile: kinds.Dockerfile, line: kinds.Run, words: tuple[str, ...], ended: Ended, output: bytes
    ) -> None:
        command = " ".join(words)
        reason = ended.summary or f"exit status {ended.status}"
        place = f"{dockerfile.name}:{line.span.first}"
        super().__init__(f"{place}: RUN {command!r} failed: {reason}", ended.hint or _advice(command, output))
        self.file, self.line, self.command_status = dockerfile.name, line.span.first, ended.status
        self.excerpt = _excerpt(dockerfile, line)
        self.failed: FailedState | None = None
        self.output = tuple(lines_of(output.decode(errors="replace").rstrip("\n")))[-OUTPUT_LINES:]


def _advice(command: str, output: bytes) -> str | None:
    """Say what lets a command do what a user namespace forbids, if that is what it complains about."""
    told = command.encode(errors="surrogateescape") + output
    refused = b"peration not permitted" in output or b"nodev" in output
    if refused and DEVICES.search(told):
        return "in a user namespace nobody may make devices; --userns host lets them be made, if you build as root"
    if b"nvalid argument" in output and OWNERS.search(told):
        return _advice_on_ids()
    return None


def _advice_on_ids() -> str:
    if os.geteuid() == 0:
        return f"a build's user namespace has ids below {ids.LARGE_IDS_END}; with --userns host it has all of them"
    return ids.advice_on_more(ids.own_ids())


def _excerpt(dockerfile: kinds.Dockerfile, line: kinds.Run) -> tuple[str, ...]:
    first, last = line.span.first, line.span.last
    found = []
    for number in range(max(1, first - LINES_AROUND), min(len(dockerfile.source), last + LINES_AROUND) + 1):
        mark = ">>>" if first <= number <= last else "   "
        found.append(f"{number:4} | {mark} {dockerfile.source[number - 1]}")
    return tuple(found)
