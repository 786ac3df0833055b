"""List containers with the filters of `ps`, with Docker's keys.

Source: https://docs.docker.com/reference/cli/docker/container/ls/#filter. A container must match every key. Of several
filters with the same key one must match; of ``label`` filters, all.
"""

from __future__ import annotations

from minibox.base.values import has_label
from minibox.docker_words.filters import parse_filters, parse_truth
from minibox.engine.container import collection
from minibox.engine.state import containers as state
from minibox.engine.state.ports import published
from minibox.errors import ContainerNotFound, ImageNotFound, InvalidReference, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from minibox.base.home import Home
    from minibox.docker_words.filters import Filter

    Container = dict[str, Any]
    Fits = Callable[[Container], bool]

KEYS = ("ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network", "publish",
        "since", "status", "volume")  # fmt: skip
STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead", "damaged")
HEALTHS = ("starting", "healthy", "unhealthy", "none")
OF_ENDED = ("exited", "status")  # these filters show ended containers, too


def parse_container_filters(words: Iterable[str]) -> list[Filter]:
    """Parse the filters of `ps`.

    Raises:
        UsageError: one isn't KEY=VALUE, or its key is unknown or its value is invalid.
    """
    filters = parse_filters(words, KEYS)
    for each in filters:
        if each.key == "exited" and not each.value.lstrip("-").isdecimal():
            raise UsageError(f"invalid filter 'exited={each.value}'", "use an exit status: exited=137")
        for key, known in (("status", STATUSES), ("health", HEALTHS)):
            if each.key == key and each.value not in known:
                raise UsageError(f"invalid filter '{key}={each.value}'", f"use one of {', '.join(known)}")
        if each.key in ("id", "name"):
            _pattern(each.value)
        if each.key in ("publish", "expose"):
            from minibox.docker_words.ports import parse_port

            parse_port(each.value)
        if each.key == "is-task":
            parse_truth(each.value, each.key)
    return filters


def listed(home: Home, filters: Sequence[Filter] = (), *, everything: bool = False, last: int = 0) -> list[Container]:
    """The states of the containers that match the filters, newest first.

    Args:
        everything: include those that don't run. A filter of `OF_ENDED` implies it.
        last: only the newest so many, running or not; 0 for all.

    Raises:
        ContainerNotFound, ImageNotFound: a filter names a container or image that doesn't exist.
    """
    found = [with_ports(_with_health(each, home.root), home.root) for each in collection.list_containers(home)]
    values: dict[str, list[str]] = {}
    for each in filters:
        values.setdefault(each.key, []).append(each.value)
    ports: dict[str, list[str]] = {key: values.pop(key) for key in ("publish", "expose") if key in values}
    fits = [_fits_key(key, words, found, home.root) for key, words in values.items()]
    fits += [_fits_ports(ports)] if ports else []
    everything = everything or last > 0 or any(each.key in OF_ENDED for each in filters)
    chosen = [
        each for each in found if (everything or each["Status"] in state.ALIVE) and all(fit(each) for fit in fits)
    ]
    return chosen[:last] if last > 0 else chosen


def _fits_key(key: str, values: list[str], containers: list[Container], root: str) -> Fits:
    if key == "label":
        return lambda each: all(has_label(labels_of(each), value) for value in values)
    if key == "ancestor":
        wanted = [_ancestor(value, root) for value in values]
        return lambda each: any(fits(each) for fits in wanted)
    if key in ("before", "since"):
        moments = [_named(value, containers, root).get("Created") or 0.0 for value in values]
        if key == "before":
            return lambda each: any((each.get("Created") or 0.0) < moment for moment in moments)
        return lambda each: any((each.get("Created") or 0.0) > moment for moment in moments)
    patterns = [_pattern(value) for value in values] if key in ("id", "name") else []
    simple: dict[str, Fits] = {
        "id": lambda each: any(pattern.search(each["Id"]) for pattern in patterns),
        "name": lambda each: any(pattern.search(text) for pattern in patterns for text in (each["Name"], f"/{each['Name']}")),
        "status": lambda each: each["Status"] in values or ("dead" in values and each["Status"] == "damaged"),
        "exited": lambda each: each["Status"] == "exited" and str(each.get("ExitCode")) in values,
        "health": lambda each: health_of(each) in values,
        "network": lambda each: network_of(each) in values,
        "volume": lambda each: any(value in _mounted(each) for value in values),
        "is-task": lambda each: not any(map(parse_truth, values)),  # minibox has no swarm, so none is a task
    }  # fmt: skip
    return simple[key]


def _pattern(text: str) -> re.Pattern[str]:
    import re

    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"invalid pattern {text!r}: {error}", "use a regular expression: name=^web") from None


def _named(name: str, containers: list[Container], root: str) -> Container:
    container_id = state.find_id(root, name)
    for each in containers:
        if each["Id"] == container_id:
            return each
    raise ContainerNotFound(f"there is no container {name!r}", "minibox ps --all lists all containers")


def _ancestor(name: str, root: str) -> Fits:
    """Match containers of this image, or of an image based on it. If the image is gone, match the name they ran."""
    from minibox.image.layout.inventory import find, inventory
    from minibox.image.layout.layout import Layout
    from minibox.storage.snapshot import read_record

    try:
        image, _ = find(inventory(Layout(root)), name)
    except (ImageNotFound, InvalidReference):
        return lambda each: name in (each["Image"], each["Image"].removesuffix(":latest"))

    def fits(container: Container) -> bool:
        if container.get("ImageId") == image.id:
            return True
        _, chain_ids = read_record(root, container["Id"]) or ("", ())
        return bool(image.chain_ids) and tuple(chain_ids[: len(image.chain_ids)]) == tuple(image.chain_ids)

    return fits


def labels_of(container: Container) -> dict[str, str]:
    """A container's labels, without the other annotations of its Spec."""
    config = container.get("Config")
    labels = config.get("Labels") or {} if isinstance(config, dict) else container.get("Labels")
    return labels if isinstance(labels, dict) else {}


def _with_health(container: Container, root: str) -> Container:
    config = container.get("Config")
    if not isinstance(config, dict) or not config.get("Healthcheck"):
        return container
    from minibox.engine.container import health

    results = health.status(root, container["Id"], container)
    return {**container, "Health": results} if results else container


def health_of(container: Container) -> str:
    """The status of its health check; "none" without one."""
    health = container.get("Health")
    status = health.get("Status") if isinstance(health, dict) else None
    return status if isinstance(status, str) and status else "none"


def network_of(container: Container) -> str:
    """The mode of its network; "bridge" if none was given."""
    options = container.get("Options")
    return str(options.get("network") or "bridge") if isinstance(options, dict) else "bridge"


def with_ports(container: Container, root: str) -> Container:
    """Add the published ports as `Ports`."""
    found = published(root, container["Id"]) if container["Status"] in state.ALIVE else ()
    return {**container, "Ports": [dict(each.__dict__) for each in found]} if found else container


def ports_of(container: Container) -> list[tuple[int, str, str, int]]:
    """The ports of a running container on a bridge, sorted: number, protocol, and the host's address and port ("" and 0
    for a port that is only exposed, by its image or `--expose`)."""
    if container.get("Status") not in state.ALIVE or network_of(container) in ("none", "host"):
        return []
    rows = [(each["inside"], each["protocol"], each["address"], each["port"]) for each in container.get("Ports", ())]
    known = {row[:2] for row in rows}
    return sorted([*rows, *((*port, "", 0) for port in _exposed(container) - known)])


def _exposed(container: Container) -> set[tuple[int, str]]:
    config = container.get("Config")
    if not isinstance(config, dict) or not config.get("ExposedPorts"):
        return set()
    from minibox.docker_words import ports

    return set(ports.ports_of(config["ExposedPorts"]))


def _fits_ports(values: dict[str, list[str]]) -> Fits:
    """Match ``publish`` and ``expose``. As in Docker, one match of either key is enough, and ports are those inside."""
    from minibox.docker_words.ports import parse_port, parse_publish

    wanted = {key: set().union(*map(parse_port, words)) for key, words in values.items()}

    def fits(each: Container) -> bool:
        options = each.get("Options")
        words = options.get("publish") or () if isinstance(options, dict) else ()
        now = {(port["inside"], port["protocol"]) for port in each.get("Ports", ())}
        asked = {(port.inside, port.protocol) for word in words for port in parse_publish(word).ports}
        return bool((now | asked) & wanted.get("publish", set()) or _exposed(each) & wanted.get("expose", set()))

    return fits


def mounts_of(container: Container) -> list[Container]:
    """The mounts in its state."""
    mounts = container.get("Mounts")
    return [each for each in mounts if isinstance(each, dict)] if isinstance(mounts, list) else []


def volume_name(source: str) -> str:
    """The name of the volume whose data is at ``source``; "" if it isn't a volume."""
    directory, _, last = source.rpartition("/")
    above, _, name = directory.rpartition("/")
    return name if last == "_data" and above.endswith("/volumes") else ""


def _mounted(container: Container) -> set[str]:
    found: set[str] = set()
    for each in mounts_of(container):
        source = str(each.get("Source", ""))
        found |= {source, str(each.get("Destination", "")), volume_name(source)}
    return found - {""}


def sizes(root: str, containers: Iterable[Container]) -> dict[str, tuple[int, int]]:
    """The size of each container on disk in bytes, without and with its image's layers; by id."""
    from minibox.engine.upkeep.disk import written_bytes
    from minibox.storage.drivers import snapshotter
    from minibox.storage.snapshot import read_record

    found: dict[str, tuple[int, int]] = {}
    layers: dict[tuple[str, str], int] = {}
    for each in containers:
        driver, chain_ids = read_record(root, each["Id"]) or ("", ())
        if not driver:
            continue
        for chain_id in chain_ids:
            if (driver, chain_id) not in layers:
                layers[driver, chain_id] = snapshotter(root, driver).layer_bytes(chain_id)
        own = written_bytes(root, each["Id"])
        found[each["Id"]] = (own, own + sum(layers[driver, chain_id] for chain_id in chain_ids))
    return found
