"""The format of ``root/live/<id>``, which the owner of a container writes: one line about its image, one about how to
undo its start (`engine.process.undo`), one about its process.

When the process has ended, the owner overwrites the last line in place, because that works on a full disk. Readers
ignore what follows it.
"""

from __future__ import annotations

import os

from minibox.base.codec import BYTES_MAX, FileKind
from minibox.base.files import read_fd
from minibox.base.shape import PID, Between
from minibox.errors import Damaged, Unreadable
from minibox.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.image.layout.image import ResolvedImage

UNDO_BEGINS = b'{"Kind": "undo"'  # the beginning of the undo line
COUNT = Between(0, (1 << 64) - 1)
IMAGE = FileKind(
    "live",
    {"Remove": bool, "Reference?": str, "Digest?": str, "ImageId?": str, "ChainIds?": [str]},
    indented=False,
)
#: The members of an OCI process that `engine.container.exec` reads and `plan.exec` compiles.
OF_A_PROCESS = {
    "cwd": str,
    "user": {"uid": COUNT, "gid": COUNT, "additionalGids?": [COUNT], "umask?": COUNT},
    "env?": [str],
    "capabilities?": {str: [str]},
    "rlimits?": [{"type": str, "hard": COUNT, "soft": COUNT}],
    "noNewPrivileges?": bool,
    "oomScoreAdj?": int,
    **{f"{name}?": str for name in ("apparmorProfile", "selinuxLabel")},
}
PROCESS = FileKind(
    "process",
    {
        "Pid": PID,
        "Supervisor": PID,
        "Status?": Between(0, 255),
        "Command?": [str],
        "Joinable?": {
            "Process": OF_A_PROCESS,
            "Namespaces": int,
            "Seccomp": str,
            "SeccompFlags": int,
            "DeniesKeys?": bool,
            "SetGroups": bool,
        },
    },
    indented=False,
)


@record
class Live:
    """What the owner has written.

    Attributes:
        reference, digest, image_id, chain_ids: of the image.
        pid: of the first process; -1 while there is none.
        supervisor: the supervisor's pid; 0 for a container in the foreground.
        exec_context: what `engine.container.exec` needs to know, see `Run.exec_context`; None while there is no process.
        command: of the first process.
        status: the exit status once the process has ended, while the owner cleans up; -1 before.
        remove: whether the container's files are removed at its end.
        undo: the line that says how to undo the start; b"" for none.
        damage: why the file can't be read; None if it can.
    """

    reference: str = ""
    digest: str = ""
    image_id: str = ""
    chain_ids: tuple[str, ...] = ()
    pid: int = -1
    supervisor: int = 0
    exec_context: dict[str, Any] | None = None
    command: tuple[str, ...] = ()
    status: int = -1
    remove: bool = False
    undo: bytes = b""
    damage: Unreadable | None = None


def image_line(remove: bool, reference: str = "", image: ResolvedImage | None = None) -> bytes:
    """The first line. It has no image if the container is claimed but doesn't run yet."""
    if image is None:
        return IMAGE.encode({"Remove": remove})
    names = {"Reference": reference, "Digest": image.digest, "ImageId": image.config_digest}
    return IMAGE.encode({"Remove": remove, **names, "ChainIds": list(image.chain_ids)})


def process_line(pid: int, supervisor: int, command: Sequence[str], exec_context: dict[str, Any] | None) -> bytes:
    """The last line, for a running process."""
    more = {"Joinable": exec_context} if exec_context else {}
    return PROCESS.encode({"Pid": pid, "Supervisor": supervisor, "Command": list(command), **more})


def ended_line(supervisor: int = 0, status: int = -1) -> bytes:
    """The last line, for a process that has ended. ``supervisor`` is set if it waits to restart the container."""
    return PROCESS.encode({"Pid": -1, "Supervisor": supervisor, **({"Status": status} if status >= 0 else {})})


def read_live_fd(fd: int, path: str) -> Live:
    """Read an open live file, as far as it is written."""
    found = _read(fd, path)
    return _read(fd, path) if found.damage else found  # it may have been overwritten while we read it


def _read(fd: int, path: str) -> Live:
    try:
        return parse(read_fd(fd, BYTES_MAX, path), path)
    except Unreadable as error:
        return Live(damage=error)
    except OSError as error:
        return Live(damage=Damaged(path, f"read: {error.strerror}"))


def parse(data: bytes, path: str) -> Live:
    """Parse the lines, as many as there are.

    Raises:
        Unreadable
    """
    if data[:1] not in (b"", b"{", b"\0"):  # a power loss leaves NULs
        from minibox.engine.state.live_file_v0 import parse as parse_before

        return Live(**parse_before(data, path))
    image, ended, rest = data.partition(b"\n")
    if not ended:
        return Live()
    found = IMAGE.decode(image, path)
    live = Live(
        found.get("Reference", ""),
        found.get("Digest", ""),
        found.get("ImageId", ""),
        tuple(found.get("ChainIds", ())),
        remove=found["Remove"],
    )
    undo, rest = split_undo(rest)
    live = replace(live, undo=undo)
    process, ended, _ = rest.partition(b"\n")
    if not ended:
        return live
    found = PROCESS.decode(process, path)
    running = found["Pid"] >= 0
    values = {
        **live.__dict__,
        "pid": found["Pid"],
        "supervisor": found["Supervisor"],
        "exec_context": found.get("Joinable") if running else None,
        "command": tuple(found.get("Command", ())),
        "status": found.get("Status", -1),
    }
    return Live(**values)


def split_undo(rest: bytes) -> tuple[bytes, bytes]:
    """Split what follows the first line into the undo line, if there is one, and the rest."""
    if not rest.startswith(UNDO_BEGINS):
        return b"", rest
    line, ended, behind = rest.partition(b"\n")
    return (line + ended, behind) if ended else (b"", b"")


def live_path(root: str, container_id: str) -> str:
    """The path of a container's live file."""
    return os.path.join(root, "live", container_id)
