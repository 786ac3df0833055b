"""The commands ps and container ls."""

from __future__ import annotations

import time

from minibox.cli.declare import command, option
from minibox.cli.format.units import format_ago, format_moment, format_size, format_span
from minibox.cli.messages import echo
from minibox.cli.parameters import settings_of
from minibox.engine.report.listing import health_of, labels_of, mounts_of, network_of, ports_of, volume_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.cli.declare import Context

ID_SHOWN, COMMAND_SHOWN, MOUNT_SHOWN = 12, 20, 15
HEADINGS: dict[str, Any] = {
    "Command": "COMMAND", "CreatedAt": "CREATED AT", "HealthStatus": "HEALTH", "ID": "CONTAINER ID", "Image": "IMAGE",
    "Label": lambda key: key.rpartition(".")[2].upper(), "Labels": "LABELS", "LocalVolumes": "LOCAL VOLUMES",
    "Mounts": "MOUNTS", "Names": "NAMES", "Networks": "NETWORKS", "Ports": "PORTS", "RunningFor": "CREATED",
    "Size": "SIZE", "State": "STATE", "Status": "STATUS",
}  # fmt: skip
COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")


@command(
    epilog="""\b
Examples:
  minibox ps --all
  minibox ps --filter name=^web --filter status=exited
  minibox ps --format 'table {{.Names}}\\t{{.Status}}\\t{{.Label "team"}}'
  minibox ps --all --quiet | xargs --no-run-if-empty minibox rm""",
)
@option("-a", "--all", "everything", is_flag=True, help="Also show stopped containers")
@option("-f", "--filter", "filters", metavar="KEY=VALUE", multiple=True,
              help="Show only matches: ancestor, before, exited, expose, health, id, is-task, label, name, network, publish, "
              "since, status, volume")  # fmt: skip
@option("--format", "form", metavar="FORMAT", default="", help="table, json, or a template: {{.Names}} {{.Status}}")
@option("-n", "--last", kind="int", metavar="N", default=-1, help="Show the newest N, running or not")
@option("-l", "--latest", is_flag=True, help="Show the newest, running or not")
@option("--no-trunc", is_flag=True, help="Show full ids and commands")
@option("-q", "--quiet", is_flag=True, help="Show only ids")
@option("-s", "--size", "with_size", is_flag=True, help="Show how much disk space they use")
@option("--json", "as_json", is_flag=True, help="Print JSON: one list with all details")
def ps(
    ctx: Context, everything: bool, filters: tuple[str, ...], form: str, last: int, latest: bool, no_trunc: bool,
    quiet: bool, with_size: bool, as_json: bool,
) -> None:  # fmt: skip
    """List running containers, newest first; with --all, all containers.

    With a filter on exited or status, stopped containers are shown even without --all.
    """
    from minibox.cli.format.format import print_rows
    from minibox.cli.format.table import format_json
    from minibox.engine.report.listing import listed, parse_container_filters, sizes

    settings = settings_of(ctx)
    root, wanted = settings.home.root, parse_container_filters(filters)
    last = 1 if latest else max(last, 0)
    found = listed(settings.home, wanted, everything=everything, last=last)
    if as_json:
        echo(format_json(found))
        return
    if quiet:
        form, with_size = form or "{{.ID}}", False
    now_s = time.time()
    with_size = with_size or ".Size" in form
    of = sizes(root, found) if with_size else {}
    rows = [container_row(each, now_s, no_trunc=no_trunc, sizes=of.get(each["Id"], (0, 0))) for each in found]
    print_rows(rows, form, HEADINGS, [*COLUMNS, *(["Size"] if with_size else [])])


def container_row(
    found: dict[str, Any], now_s: float, *, no_trunc: bool = False, sizes: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    """Return the fields of Docker's `ps --format`; ``sizes`` as from `engine.report.listing.sizes`."""
    labels = labels_of(found)
    created = found.get("Created") or 0.0
    volumes = [volume_name(str(each.get("Source", ""))) for each in mounts_of(found)]
    mounts = [name or str(each.get("Source", "")) for name, each in zip(volumes, mounts_of(found))]
    return {
        "Command": _quoted(_cut(" ".join(map(str, found["Command"])), 0 if no_trunc else COMMAND_SHOWN)),
        "CreatedAt": format_moment(created),
        "HealthStatus": "" if health_of(found) == "none" else health_of(found),
        "ID": found["Id"] if no_trunc else found["Id"][:ID_SHOWN],
        "Image": found["Image"],
        "Label": lambda key: str(labels.get(key, "")),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "LocalVolumes": str(sum(map(bool, volumes))),
        "Mounts": ",".join(_cut(mount, 0 if no_trunc else MOUNT_SHOWN) for mount in mounts),
        "Names": found["Name"],
        "Networks": network_of(found),
        "Ports": format_ports(ports_of(found)),
        "RunningFor": format_ago(created, now_s),
        "Size": format_size(sizes[0]) + (f" (virtual {format_size(sizes[1])})" if sizes[1] else ""),
        "State": found["Status"],
        "Status": format_status(found, now_s),
    }


def format_ports(ports: list[tuple[int, str, str, int]]) -> str:
    """Format sorted ports like Docker: ``53/udp, 0.0.0.0:80-81->80-81/tcp, 0.0.0.0:8080->443/tcp``.

    Only ports that aren't published, or have the same number on both sides, are joined to ranges. Others come last.
    """
    ended: list[str] = []
    single: list[str] = []
    ranges: dict[tuple[str, str], tuple[int, int]] = {}
    for number, protocol, address, outside in ports:
        if outside not in (0, number):
            single.append(f"{address}:{outside}->{number}/{protocol}")
            continue
        first, last = ranges.get((address, protocol), (number, number - 1))
        if number > last + 1:
            ended.append(_range(first, last, address, protocol))
            first = number
        ranges[address, protocol] = first, number
    return ", ".join([*ended, *(_range(*numbers, *where) for where, numbers in ranges.items()), *single])


def _range(first: int, last: int, address: str, protocol: str) -> str:
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{address}:{numbers}->{numbers}/{protocol}" if address else f"{numbers}/{protocol}"


def format_status(found: dict[str, Any], now_s: float) -> str:
    """Format the status of a container like Docker: ``Up 3 minutes (healthy)``, ``Exited (137) 2 hours ago``."""
    status, health = found["Status"], health_of(found)
    code = found.get("ExitCode") or 0
    if status in ("running", "paused"):
        more = {"starting": "health: starting", "none": ""}.get(health, health) if status == "running" else "Paused"
        up = format_span(now_s - (found.get("Started") or found.get("Created") or now_s))
        return f"Up {up} ({more})" if more else f"Up {up}"
    if status == "exited":
        return (
            f"Exited ({code}) {format_ago(found['Finished'], now_s)}" if found.get("Finished") else f"Exited ({code})"
        )
    if status == "restarting":
        return f"Restarting ({code}) {format_ago(found.get('Finished') or now_s, now_s)}"
    return str(status).capitalize()


def _cut(text: str, at_most: int) -> str:
    return text if len(text) <= at_most or not at_most else text[: at_most - 1] + "…"


def _quoted(text: str) -> str:
    """Quote like Go's strconv.Quote. `format.format_rows` escapes control characters."""
    marks = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return f'"{"".join(marks.get(each, each) for each in text)}"'
