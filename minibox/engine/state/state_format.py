"""The format of a container's state.json; see `engine.state.containers`."""

from __future__ import annotations

from minibox.base.codec import FileKind, plain
from minibox.base.shape import PID, Between, long_id, moment
from minibox.engine.spec.options import RunOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXIT = Between(-(1 << 31), (1 << 31) - 1)
COUNT = Between(0, (1 << 63) - 1)
#: The shapes of options, by the annotations of `RunOptions` (which are strings).
OPTION_SHAPES: dict[str, Any] = {
    "str": str,
    "str | None": (str, None),
    "bool": bool,
    "int": int,
    "int | None": (int, None),
    "float": float,
    "float | None": (float, None),
    "RestartPolicy | None": str,
}
#: What is typed is recorded in Docker's words.
OPTIONS = {
    f"{name}?": [str] if kind.startswith("tuple[") else OPTION_SHAPES[kind]
    for name, kind in RunOptions.__annotations__.items()
}
HEALTHCHECK = {
    "Test?": ([str], None),
    **{f"{name}?": COUNT for name in ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")},
}
#: The members of an image's config that we read. The others may be anything.
CONFIG = {
    "Labels?": ({str: str}, None),
    "Healthcheck?": (HEALTHCHECK, None),
    **{f"{name}?": ([str], None) for name in ("Env", "Entrypoint", "Cmd")},
    **{f"{name}?": (str, None) for name in ("User", "WorkingDir", "StopSignal")},
    "Volumes?": (dict, None),
}


def status(value: object) -> bool:
    """The shape of a container's status."""
    return value in ("created", "running", "paused", "restarting", "exited")


CONTAINER = FileKind(
    "container",
    {
        "Id": long_id,
        "Name": str,
        "Status": status,
        **{f"{name}?": str for name in ("Image", "ImageDigest", "ImageId", "Driver", "EndedFor")},
        **{f"{name}?": (str, None) for name in ("Error", "Hint")},
        **{f"{name}?": (moment, None) for name in ("Created", "Started", "Finished")},
        **{
            f"{name}?": bool
            for name in (
                "ReadOnly",
                "Supervised",
                "OOMKilled",
                "TimedOut",
                "Crowded",
                "OwnerKilled",
                "DiskFull",
                "OOMEnded",
            )
        },
        **{f"{name}?": EXIT for name in ("ExitCode", "Signal", "Relayed")},
        **{f"{name}?": (COUNT, None) for name in ("MemoryPeak", "Refused", "RestartCount", "OOMKills", "LogLost")},
        **{f"{name}?": (float, None) for name in ("CpuTime", "RestartDelay")},
        "Pid?": PID,
        "Command?": [str],
        "Forwarded?": [int],
        "Labels?": {str: str},
        "Config?": CONFIG,
        "Mounts?": [{"Source?": str, "Destination?": str, "ReadOnly?": bool}],
        "Options?": OPTIONS,
    },
    before=plain,
)
