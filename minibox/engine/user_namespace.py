"""Work on files of subordinate ids, as an ordinary user: as root of a user namespace of his own.

A rootless container's files belong to ids that its user may not even unlink from outside
(user_namespaces(7)). Layers are unpacked, and such files removed, by a child in a namespace with
the same ids. Off the hot path: nothing here runs in a start whose layers are unpacked.
"""

from __future__ import annotations

import os

from minibox.engine.ids import own_ids, single, write_id_maps
from minibox.errors import MiniboxError, StoreError, kernel_says
from minibox.linux.process import die_with_parent, new_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.oci.runtime import Spec


def run_inside(function: Callable[[], Any]) -> None:
    """Call ``function`` as root of a user namespace that has all ids of the caller's.

    With one id only there is nothing to gain: it is called here. What it returns is lost.

    Raises:
        MiniboxError: ``function`` failed so, or the namespace can't be made.
    """
    mappings = own_ids()
    spec: Any = {"linux": {"uidMappings": list(mappings.uids), "gidMappings": list(mappings.gids)}}
    if os.geteuid() == 0 or single(spec):
        function()
        return
    ready, is_ready = os.pipe2(os.O_CLOEXEC)
    mapped, is_mapped = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        os.close(is_mapped)
        _child(function, is_ready, mapped)
    os.close(is_ready)
    os.close(mapped)
    try:
        report = _map_and_wait(pid, spec, ready, is_mapped)
    finally:
        os.close(ready)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        message, _, hint = report.partition("\n")
        raise StoreError(message or f"a process in a user namespace ended with status {status}", hint or None)


def _map_and_wait(pid: int, spec: Spec, ready: int, is_mapped: int) -> str:
    """The parent's part; closes ``is_mapped``, without which the child ends. What the child reported."""
    try:
        if os.read(ready, 1) == b"r":
            write_id_maps(pid, spec)
            os.write(is_mapped, b"m")
    finally:
        os.close(is_mapped)
    report = b""
    while part := os.read(ready, 4096):
        report += part
    return report.decode(errors="replace")


def _child(function: Callable[[], Any], is_ready: int, mapped: int) -> None:
    """Never returns."""
    status = 1
    report = ""
    try:
        die_with_parent()
        new_user_namespace()
        os.write(is_ready, b"r")
        if os.read(mapped, 1) == b"m":
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            die_with_parent()  # a change of ids forgets it
            function()
            status = 0
    except MiniboxError as error:
        report = f"{error}\n{error.hint or ''}"
    except OSError as error:
        report = f"work in a user namespace: {kernel_says(error)}"
    except BaseException as error:
        report = f"work in a user namespace: {type(error).__name__}: {error}"
    finally:
        try:
            os.write(is_ready, report.encode(errors="replace")[:4096])
        finally:
            os._exit(status)
