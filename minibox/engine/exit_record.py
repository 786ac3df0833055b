"""How a container ended, as its supervisor wrote it: ``root/containers/<id>/exit``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def exit_path(root: str, container_id: str) -> str:
    """There when it has ended under a supervisor, and has not been started anew."""
    return f"{root}/containers/{container_id}/exit"


def read_exit(root: str, container_id: str) -> dict[str, Any] | None:
    """What of the state it says; None when there is no record, or none that can be read."""
    from json import loads

    try:
        with open(exit_path(root, container_id), encoding="ascii") as file:
            record = loads(file.read())
        return {
            "ExitCode": int(record["status"]),
            "Signal": int(record["signal"]),
            "TimedOut": bool(record["timed_out"]),
            "Finished": record["finished_ns"] / 1e9,
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None
