"""The live file before it was JSON, for containers that an older minibox started and that still run."""

from __future__ import annotations

import marshal
import os

from minibox.errors import Damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REMOVE, KEEP = "remove", "keep"


def parse(data: bytes, path: str) -> dict[str, Any]:
    """Parse the values of a `live_file.Live`.

    The first line has fields separated by NULs, the second has numbers. Then come marshalled data and the command.

    Raises:
        Damaged
    """
    image, ended, process = data.partition(b"\n")
    what_to_do, *fields = os.fsdecode(image).split("\0")
    if what_to_do not in (REMOVE, KEEP):
        raise Damaged(path, "it was not written by minibox")
    remove = what_to_do == REMOVE
    if not ended or len(fields) < 3:
        return {"remove": remove}
    reference, digest, image_id, *chain_ids = fields
    image_values = {"reference": reference, "digest": digest, "image_id": image_id, "chain_ids": tuple(chain_ids)}
    values: dict[str, Any] = {**image_values, "remove": remove}
    head, ended, rest = process.partition(b"\n")
    if not ended:
        return values
    try:
        pid, supervisor, size, *ended_with = map(int, head.split())
    except ValueError:
        raise Damaged(path, "its second line has no numbers") from None
    if pid < 0:
        size, rest = 0, b""
    command = tuple(os.fsdecode(rest[size:]).split("\0"))
    status = ended_with[0] if ended_with else -1
    values |= {"pid": pid, "supervisor": supervisor, "command": command, "status": status}
    return {**values, "exec_context": _exec_context(rest[:size]) if size else None}


def _exec_context(data: bytes) -> dict[str, Any] | None:
    try:
        process, namespaces, seccomp, flags, set_groups = marshal.loads(data)
    except (ValueError, EOFError, TypeError):
        return None
    return {
        "Process": process,
        "Namespaces": namespaces,
        "Seccomp": bytes(seccomp).hex(),
        "SeccompFlags": flags,
        "SetGroups": set_groups,
    }
