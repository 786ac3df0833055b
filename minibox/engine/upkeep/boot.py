"""Find the containers that a restart policy starts after the machine has booted."""

from __future__ import annotations

import os

from minibox.engine.container import removal
from minibox.engine.container.lifecycle import stop_path
from minibox.engine.state import containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def wanted(*, root: str, runroot: str) -> list[str]:
    """Return the names of containers that should be running and aren't, oldest first, since newer ones may depend on
    older ones.

    As with Docker's daemon, ``always`` starts every container that has ever run, and ``unless-stopped`` those that the
    user hasn't stopped.
    """
    return [
        found["Name"]
        for found in reversed(removal.list_containers(root=root, runroot=runroot))
        if wants_start(found, stopped=os.path.lexists(stop_path(root, found["Id"])))
    ]


def wants_start(found: dict[str, Any], *, stopped: bool) -> bool:
    """Return whether a container's policy starts it after a boot.

    Args:
        stopped: the user stopped it.
    """
    options = found.get("Options")
    policy = str(options.get("restart") or "no") if isinstance(options, dict) else "no"
    if found["Status"] in containers.ALIVE or not found.get("Started"):
        return False
    return policy == "always" or (policy == "unless-stopped" and not stopped)
