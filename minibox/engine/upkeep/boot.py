"""Find the containers that a restart policy starts after the machine has booted."""

from __future__ import annotations

import os

from minibox.base.home import Home
from minibox.engine.container import collection, restart_policy
from minibox.engine.container.lifecycle import stop_path


def wanted(home: Home) -> list[str]:
    """Return the names of containers that should be running and aren't, oldest first, since newer ones may depend on
    older ones.

    As with Docker's daemon, ``always`` starts every container that has ever run, and ``unless-stopped`` those that the
    user hasn't stopped.
    """
    return [
        found["Name"]
        for found in reversed(collection.list_containers(home))
        if restart_policy.starts_at_boot(found, stopped=os.path.lexists(stop_path(home.root, found["Id"])))
    ]
