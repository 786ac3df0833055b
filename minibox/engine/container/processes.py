"""List the processes of a container with the host's ps(1): `top`."""

from __future__ import annotations

import os

from minibox.engine.container.lifecycle import Process
from minibox.errors import MiniboxError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT = ("-ef",)
OUTPUT_BYTES_MAX = 64 << 20  # a process can make its arguments very long


def processes(root: str, name_or_id: str, ps_options: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The headers of ps's columns, and a row for each process.

    Args:
        ps_options: of ps(1); none means ``-ef``.

    Raises:
        ContainerNotFound, ContainerNotRunning
        UsageError: ps refuses the options, or they show no PID.
        MiniboxError: ps isn't installed.
    """
    with Process(root, name_or_id, "show the processes of") as process:
        pids = process.group.pids() or of_namespace(process.live.pid)
        head, lines = lines_of(pids, ps_options)
    heads = head.split()
    return heads, [line.split(None, len(heads) - 1) for line in lines]


def lines_of(pids: set[int], ps_options: Sequence[str]) -> tuple[str, list[str]]:
    """The header line of ps, and the lines of these processes. Errors are those of `processes`."""
    # Ask ps for these processes only. Some options can't be combined with a list: then ask for all.
    listed = "-q" + ",".join(map(str, sorted(pids)))
    status, output, errors = _ps((*(ps_options or DEFAULT), listed))
    if status:
        status, output, errors = _ps(ps_options or DEFAULT)
    if status:
        words = errors.strip().split("\n")
        raise UsageError(f"ps {' '.join(ps_options)}: {words[0] or 'failed'}", "see ps(1)")
    head, *lines = output.split("\n")  # splitlines() also splits at characters that arguments may contain
    heads = head.split()
    if "PID" not in heads:
        raise UsageError(f"ps {' '.join(ps_options)} shows no PID", "add pid: -o pid,args")
    at = heads.index("PID")
    found = []
    for line in lines:
        words = line.split(None, at + 1)
        if len(words) > at and words[at].isdigit() and int(words[at]) in pids:
            found.append(line)
    return head, found


def _ps(options: Sequence[str]) -> tuple[int, str, str]:
    """Run ps. Return its status, its output and its errors."""
    from subprocess import PIPE, Popen

    try:
        process = Popen(["ps", *options], stdout=PIPE, stderr=PIPE)
    except FileNotFoundError:
        raise MiniboxError("ps(1) is not installed", "install procps") from None
    with process:
        assert process.stdout and process.stderr
        output = process.stdout.read(OUTPUT_BYTES_MAX + 1)
        if len(output) > OUTPUT_BYTES_MAX:
            process.kill()
            raise MiniboxError(f"ps wrote more than {OUTPUT_BYTES_MAX} bytes", "leave out the arguments: -o pid,comm")
        errors = process.stderr.read()
    return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")


def of_namespace(pid: int) -> set[int]:
    """The processes in the pid namespace of ``pid``, for a container without a cgroup."""
    found, wanted = set(), os.readlink(f"/proc/{pid}/ns/pid")
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{entry}/ns/pid") == wanted:
                found.add(int(entry))
        except OSError:
            continue  # it has ended, or belongs to another user
    return found
