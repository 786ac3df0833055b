"""Collect what killed owners left: end and remove their containers. Each start does a part of it, so it imports little."""

from __future__ import annotations

import os
from time import monotonic, time

from minibox.engine.state import claim, containers
from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minibox.base.home import Home

LOOKED_AT, EVERY_S = 8, 0.2
_collected_at: dict[str, float] = {}


def collect(home: Home, at_most: int = 0) -> list[str]:
    """Clean up after killed processes: remove containers without an owner, unused networks and snapshots, and thaw what
    they had frozen.

    If one can't be cleaned up, it is left to the next command, so that it doesn't stop the current one.

    Args:
        at_most: check only so many containers; 0 checks all.

    Returns:
        The ids of the collected containers.
    """
    collected = _collect(home, claim.orphans(home.root, at_most))
    if os.path.isdir(f"{home.root}/networks"):
        from minibox.network import named

        named.collect(home)
    if os.path.isdir(f"{home.root}/freezing"):
        from minibox.engine.state import freezing

        freezing.collect(home.root)
    if os.path.isdir(f"{home.root}/snapshots"):
        from minibox.engine.container import snapshots

        snapshots.collect(home.root)
    return collected


def collect_some(home: Home) -> None:
    """`collect` for a few containers, at most every `EVERY_S` seconds. Each start calls it."""
    now = monotonic()
    if now > _collected_at.get(home.root, -EVERY_S) + EVERY_S:
        _collected_at[home.root] = now
        collect(home, LOOKED_AT)


def collect_one(home: Home, container_id: str) -> bool:
    """`collect` for one container. Return whether its owner was killed."""
    return bool(_collect(home, claim.orphans(home.root, only=container_id)))


def _collect(home: Home, orphans: Iterator[tuple[str, bool, int]]) -> list[str]:
    collected = []
    for container_id, remove_files, fd in orphans:
        try:
            _end(home, container_id, remove_files, fd)
        except (MiniboxError, OSError):
            continue
        collected.append(container_id)
    return collected


def _end(home: Home, container_id: str, remove_files: bool, claim_fd: int) -> None:
    """Undo a container's start, and remove its files or write down how it ended."""
    from minibox.engine.container import removal
    from minibox.engine.state.live_file import read_live_fd

    live = read_live_fd(claim_fd, container_id)
    how = containers.ended_without_owner(home.root, container_id)
    if live.remove and live.status >= 0:  # its owner was killed while it removed the files
        how["ExitCode"] = live.status
    claim.note_ended(claim_fd, how["ExitCode"])  # another process may get the pid soon
    removal.undo_start(home, container_id, live.undo)
    before = containers.read(home.root, container_id)
    options = before.get("Options")  # --rm is still set after a power loss
    remove_files = remove_files or (isinstance(options, dict) and bool(options.get("rm")))
    if remove_files or not containers.is_written(home.root, container_id):
        removal.remove_files_of(home.root, container_id)
        containers.note_end(home, before, how, "destroy", kept=False)
    elif before["Status"] in containers.ALIVE:
        containers.note_end(home, before, how, durable=False)
    os.unlink(f"{home.root}/live/{container_id}")


def list_containers(home: Home) -> list[dict[str, Any]]:
    """The states of all containers that run or have files, newest first."""
    collect(home)
    return sorted(containers.containers(home.root), key=lambda each: -(each.get("Created") or time()))
