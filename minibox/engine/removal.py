"""What killed owners left, and the removal of containers."""

from __future__ import annotations

import os

from minibox.engine import files, ids, names, ownership, state
from minibox.errors import MiniboxError, UsageError
from minibox.linux import cgroup
from minibox.network import lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGKILL = 9
GRACE_S = 10.0


def collect(root: str, runroot: str, at_most: int = 0) -> list[str]:
    """End and remove what containers left whose owner was killed; their ids.

    One that resists is left to the next command: it mustn't cost whoever comes by his own container.

    Args:
        at_most: look at so many of those that have or had an owner; 0: at all.
    """
    collected = []
    for container_id, remove_files, _ in ownership.orphans(root, at_most):
        try:
            remove_traces(root, runroot, container_id)
            _settle(root, container_id, remove_files)
            os.unlink(f"{root}/live/{container_id}")
        except (MiniboxError, OSError):
            continue
        collected.append(container_id)
    return collected


def remove_traces(root: str, runroot: str, container_id: str) -> None:
    """What a container has while it runs and can't be asked for by its owner: processes, address, ids."""
    cgroup.remove_leftover(cgroup.detect(), f"minibox-{container_id}")
    lease.collect(runroot, lambda holder: holder != container_id)
    ids.release_range(root, container_id)


def _settle(root: str, container_id: str, remove_files: bool) -> None:
    """Remove its files, or say how it ended."""
    if remove_files or not state.is_written(root, container_id):
        remove_files_of(root, container_id)
        return
    found = state.read(root, container_id)
    if found["Status"] in state.ALIVE:
        state.write(root, {**found, "Status": "exited", "Pid": 0, "ExitCode": 128 + SIGKILL, "OwnerKilled": True})


def remove_files_of(root: str, container_id: str) -> None:
    """Its directory, and its name."""
    files.remove(root, container_id)
    names.drop(root, container_id, "")


def remove(name_or_id: str, *, force: bool = False, root: str, runroot: str) -> str:
    """Remove an ended container's files; its id.

    Args:
        force: one that runs is killed before.

    Raises:
        ContainerNotFound: there is none of that name or id.
        UsageError: it runs, and ``force`` isn't given.
    """
    collect(root, runroot)
    found = state.find(root, name_or_id)
    container_id: str = found["Id"]
    while (claim := ownership.Claim.of(root, container_id, found["Name"], remove=True)) is None:
        if not force:
            raise UsageError(f"container {name_or_id} is running", f"to kill it too: minibox rm --force {name_or_id}")
        _kill(root, container_id)
    try:
        remove_traces(root, runroot, container_id)
        remove_files_of(root, container_id)
    except BaseException:
        claim.release(finished=False)
        raise
    claim.release()
    return container_id


def _kill(root: str, container_id: str) -> None:
    """Kill all of a container and its supervisor; wait until its owner has let go of it."""
    from time import monotonic, sleep

    deadline = monotonic() + GRACE_S
    while live := ownership.owned(root, container_id):
        # The supervisor first: it would look after the end of a container that is removed anyway.
        for pid in (live.supervisor, live.pid):
            if pid > 0:
                _signal(pid)
        cgroup.find(cgroup.detect(), f"minibox-{container_id}").kill()
        if monotonic() > deadline:
            raise MiniboxError(f"container {container_id[:12]} was killed and its owner still holds it")
        sleep(0.002)


def _signal(pid: int) -> None:
    try:
        os.kill(pid, SIGKILL)
    except ProcessLookupError:
        pass


def list_containers(*, root: str, runroot: str) -> list[dict[str, Any]]:
    """All containers that run or have left files, newest first."""
    from time import time

    collect(root, runroot)
    return sorted(state.containers(root), key=lambda each: -(each.get("Created") or time()))
