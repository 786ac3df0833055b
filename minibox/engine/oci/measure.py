"""Measure what a container uses (`events`), and change its limits (`update`). Off the hot path."""

from __future__ import annotations

from time import monotonic

from minibox.base.files import content_of
from minibox.engine.oci.bundle import parse
from minibox.engine.oci.life import Process
from minibox.engine.oci.state import STOPPED, Container
from minibox.errors import ContainerNotRunning, MiniboxError, trying
from minibox.linux.cgroup.path import place_of
from minibox.linux.cgroup.statistics import statistics
from minibox.linux.cgroup.update import change
from minibox.oci.schema import RESOURCES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minibox.oci.runtime import LinuxResources

OOM_POLL_S = 0.1


def watch(root: str, container_id: str, interval_s: float, *, once: bool) -> Iterator[dict[str, Any]]:
    """Yield events in runc's format: statistics at each interval, and a message each time it runs out of memory.

    Raises:
        ContainerNotFound: there is no such container.
        ContainerNotRunning: it has ended.
    """
    container = Container.find(root, container_id)
    if container.status() == STOPPED:
        raise ContainerNotRunning("container is not running")
    group = container.group()
    if once:
        yield {"type": "stats", "id": container_id, "data": statistics(group)}
        return
    with Process(container) as process:
        killed, due = group.oom_kills(), monotonic() + interval_s
        while not process.wait(min(OOM_POLL_S, max(0.0, due - monotonic()))):
            now = group.oom_kills()
            for _ in range(now - killed):
                yield {"type": "oom", "id": container_id}
            killed = now
            if monotonic() >= due:
                yield {"type": "stats", "id": container_id, "data": statistics(group)}
                due = monotonic() + interval_s


def parse_resources(data: bytes) -> LinuxResources:
    """Parse the resources of ``update --resources``.

    Raises:
        ConfigError: they are invalid.
    """
    found: LinuxResources = parse(data, "resources", RESOURCES)
    return found


def read_file(path: str) -> bytes:
    """Return the content of a file. Raises MiniboxError."""
    with trying(MiniboxError, f"read {path}"):
        return content_of(path)


def update(root: str, container_id: str, resources: LinuxResources) -> None:
    """Change limits of a container; limits that aren't named stay.

    Raises:
        ContainerNotFound: there is no such container.
        ContainerNotRunning: it has ended.
        LimitError: a limit can't be set; nothing was changed.
    """
    with Container.find(root, container_id, locked=True) as container:
        if container.status() == STOPPED:
            raise ContainerNotRunning("container not running")
        group = container.group()
        unit = group.name if container.fields.get("systemd") else ""
        change(place_of(group).host, group, resources, everywhere=True, unit=unit)
        spec = container.spec()
        before: dict[str, Any] = dict(spec["linux"].get("resources", {}))
        given: dict[str, Any] = {**resources}
        for part, values in given.items():
            both = isinstance(values, dict) and isinstance(before.get(part), dict)
            before[part] = {**before[part], **values} if both else values
        merged: Any = before
        spec["linux"]["resources"] = merged
        container.write_spec(spec)
