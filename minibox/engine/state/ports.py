"""The published ports of a running container: ``ports`` in its directory."""

from __future__ import annotations

from minibox.base import damage
from minibox.base.codec import FileKind
from minibox.base.shape import PORT
from minibox.engine.state import claim, containers
from minibox.errors import PortTaken, Unreadable, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from minibox.network.published import Published

FILE = "ports"


def _before(data: bytes) -> dict[str, Any]:
    rows = [line.split(" ") for line in data.decode("ascii").split("\n") if line]
    keys = ("Address", "Port", "Inside", "Protocol")
    return {"Ports": [dict(zip(keys, (row[0], int(row[1]), int(row[2]), row[3]))) for row in rows]}


PORTS = FileKind(
    FILE, {"Ports": [{"Address": str, "Port": PORT, "Inside": PORT, "Protocol": str}]}, before=_before, indented=False
)


def note(path: str, ports: Iterable[Published]) -> None:
    """Write down a container's published ports."""
    rows = [
        {"Address": each.address, "Port": each.port, "Inside": each.inside, "Protocol": each.protocol} for each in ports
    ]
    PORTS.write(path, {"Ports": rows})


def published(root: str, container_id: str) -> list[Published]:
    """The published ports of a container, sorted by the port inside. If the file is damaged, report it; return none."""
    try:
        rows = PORTS.read(f"{root}/containers/{container_id}/{FILE}")["Ports"]
    except OSError:
        return []
    except Unreadable as error:
        damage.tell(error)
        return []
    from minibox.network.published import Published

    found = [Published(row["Address"], row["Port"], row["Inside"], row["Protocol"]) for row in rows]
    return sorted(found, key=lambda each: (each.inside, each.protocol, each.address, each.port))


def port_lines(root: str, name_or_id: str, private_port: str) -> list[str]:
    """What `port` prints: ``80/tcp -> 0.0.0.0:8080``, or only ``0.0.0.0:8080`` if you ask for one port.

    Args:
        private_port: ``80`` or ``80/tcp``; "" for all ports.

    Raises:
        ContainerNotFound
        UsageError: ``private_port`` is invalid or not published.
    """
    from minibox.docker_words.ports import parse_port

    container = containers.find(root, name_or_id)
    live = claim.is_live(root, container["Id"])
    found = published(root, container["Id"]) if live else []
    if not private_port:
        return [f"{each.inside}/{each.protocol} -> {each.address}:{each.port}" for each in found]
    wanted = parse_port(private_port)
    lines = [f"{each.address}:{each.port}" for each in found if (each.inside, each.protocol) in wanted]
    if not lines:
        number, protocol = min(wanted)
        raise UsageError(f"container {container['Name']} does not publish port {number}/{protocol}")
    return lines


def with_holder(taken: PortTaken, root: str, own: Sequence[Published]) -> PortTaken:
    """Add to the error who has the port, if we can find out.

    Args:
        own: the ports already published by the container that wants it.
    """
    hint = "choose another port with -p, or leave out the host's port to get a free one"
    if any(_is_same(each, taken) for each in own):
        return PortTaken(f"publish {taken}: it is published twice", taken.address, taken.port, taken.protocol, hint)
    who = _holder(root, taken)
    words = f"publish {taken}: the port is taken" + (f" by {who}" if who else "")
    return PortTaken(words, taken.address, taken.port, taken.protocol, hint)


def _holder(root: str, taken: PortTaken) -> str:
    for container_id in claim.live_ids(root):
        ports = published(root, container_id)
        if any(_is_same(each, taken) for each in ports) and claim.is_live(root, container_id):
            return f"container {containers.read(root, container_id)['Name']}"
    from minibox.network.port_holder import holder

    pid, name = holder(taken.port, taken.protocol)
    return f"{name} (process {pid})" if pid else ""


def _is_same(port: Published, taken: PortTaken) -> bool:
    from minibox.network.published import ANY_ADDRESS

    same = (port.port, port.protocol) == (taken.port, taken.protocol)
    return same and (port.address == taken.address or ANY_ADDRESS in (port.address, taken.address))
