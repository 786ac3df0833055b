"""The commands events and update."""

from __future__ import annotations

import sys

from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.oci.runtime import LinuxResources
    from minibox.oci_cli.commands import Settings

STDIN = "-"
# Option: its place in OCI resources.
_NUMBERS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "pids-limit": ("pids", "limit"),
}
_TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}
_SIZES = {
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
}


def events(settings: Settings, values: dict[str, Any], words: list[str]) -> int:
    """Print the resource usage of a container at intervals, as lines of JSON, until it has ended."""
    from minibox.engine.oci.measure import watch
    from minibox.oci_cli.output import write

    if values["interval"] <= 0:
        raise UsageError("duration interval must be greater than 0")
    for event in watch(settings.root, words[0], values["interval"], once=bool(values["stats"])):
        write(event)
    return 0


def update(settings: Settings, values: dict[str, Any], words: list[str]) -> int:
    """Change a container's limits."""
    from minibox.engine.oci import measure

    if values["resources"]:
        path = values["resources"]
        data = sys.stdin.buffer.read() if path == STDIN else measure.read_file(path)
        measure.update(settings.root, words[0], measure.parse_resources(data))
    else:
        measure.update(settings.root, words[0], resources_of(values))
    return 0


def resources_of(values: dict[str, Any]) -> LinuxResources:
    """Make OCI resources from the options.

    Raises:
        UsageError: an option is invalid or not supported.
    """
    for name in ("l3-cache-schema", "mem-bw-schema"):
        if values[name]:
            raise UsageError(f"--{name}: Intel RDT is not supported", "omit this option")
    found: Any = {}
    for table, read in ((_NUMBERS, _number), (_TEXTS, lambda _, text: text), (_SIZES, _size)):
        for name, (part, field) in table.items():
            value = values[name]
            if value not in ("", None):
                found.setdefault(part, {})[field] = read(name, value)
    resources: LinuxResources = found
    return resources


def _number(name: str, value: str | int) -> int:
    try:
        return int(value)
    except ValueError:
        raise UsageError(f"invalid value for {name}: {value!r}", "give a whole number") from None


def _size(name: str, text: str) -> int:
    from minibox.base.sizes import parse_size

    if text == "-1":
        return -1
    try:
        return parse_size(text)
    except UsageError:
        raise UsageError(f"invalid value for {name}: {text!r}", "give a number of bytes, such as 64m") from None
