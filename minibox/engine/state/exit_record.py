"""The exit record that the supervisor writes (``native/parent/supervisor_exit.c``): ``root/containers/<id>/exit``."""

from __future__ import annotations

from minibox.base import damage
from minibox.base.codec import FileKind, plain
from minibox.base.shape import Between
from minibox.errors import Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXIT = FileKind(
    "exit",
    {
        "status": Between(0, 255),
        "signal": Between(0, 64),
        "timed_out": bool,
        "relayed?": Between(0, 64),
        "log_lost_bytes?": Between(0, (1 << 63) - 1),
        "finished_ns": Between(0, (1 << 63) - 1),
    },
    before=plain,
)


def exit_path(root: str, container_id: str) -> str:
    """The path of the exit record. It exists after the container has ended under a supervisor, until the next start."""
    return f"{root}/containers/{container_id}/exit"


def read_exit(root: str, container_id: str) -> dict[str, Any] | None:
    """Read the exit record as members of the state; return None if it is missing or damaged."""
    try:
        record = EXIT.read(exit_path(root, container_id))
    except OSError:
        return None
    except Unreadable as error:
        damage.tell(error)
        return None
    return {
        "ExitCode": record["status"],
        "Signal": record["signal"],
        "TimedOut": record["timed_out"],
        **({"Relayed": record["relayed"]} if "relayed" in record else {}),
        "LogLost": record.get("log_lost_bytes", 0),
        "Finished": record["finished_ns"] / 1e9,
    }
