"""The command events."""

from __future__ import annotations

import datetime
import sys
import time

from minibox.cli.declare import command, option
from minibox.cli.messages import echo
from minibox.cli.parameters import settings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.cli.declare import Context

#: Fields of Docker's events.Message: the name in templates, and the name in JSON.
FIELDS = {
    "Status": "status", "ID": "id", "From": "from", "Type": "Type", "Action": "Action", "Actor": "Actor",
    "Scope": "scope", "Time": "time", "TimeNano": "timeNano",
}  # fmt: skip


@command(
    epilog="""\b
Examples:
  minibox events
  minibox events --since 10m --until 0s
  minibox events --filter container=web --filter event=die
  minibox events --format '{{.Time}} {{.Action}} {{.Actor.Attributes.name}}'""",
)
@option("-f", "--filter", "filters", metavar="KEY=VALUE", multiple=True,
              help="Show only matches: container, event, image, label, type or volume")  # fmt: skip
@option("--format", "form", metavar="FORMAT", default="", help="json, or a template: {{.Action}} {{json .Actor}}")
@option("--since", metavar="TIME", default="", help="Also show events since then: 10m, 1h30m, a date, or Unix seconds")
@option("--until", metavar="TIME", default="", help="Stop at that time")
def events(ctx: Context, filters: tuple[str, ...], form: str, since: str, until: str) -> None:
    """Show events of containers, images and volumes as they happen, until Ctrl-C or the time of --until."""
    from minibox.cli.format.format import sendable
    from minibox.docker_words.filters import parse_time
    from minibox.engine.state.events import parse_event_filters, read

    now_s = time.time()
    since_s, until_s = (parse_time(word, now_s) if word else None for word in (since, until))
    render = renderer(form)
    wanted = parse_event_filters(filters)
    for event in read(settings_of(ctx).home.runroot, since_s=since_s, until_s=until_s, filters=wanted):
        echo(sendable(render(event)))
        sys.stdout.flush()


def renderer(form: str) -> Any:
    """Return the function that formats an event as a line.

    Raises:
        UsageError: the template is invalid.
    """
    import json

    from minibox.cli.format.template import Template
    from minibox.cli.format.template_functions import Map

    form = form.strip()
    if not form:
        return format_event
    if form in ("json", "{{json .}}"):
        return lambda event: json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    template = Template(form)

    def render(event: dict[str, Any]) -> str:
        actor = {**event["Actor"], "Attributes": Map(event["Actor"]["Attributes"])}
        return template.render({field: event.get(key, "") for field, key in FIELDS.items()} | {"Actor": actor})

    return render


def format_event(event: dict[str, Any]) -> str:
    """Format an event: ``2024-05-01T10:00:00.123456789+02:00 container start ID (image=base, name=web)``."""
    from minibox.cli.format.table import printable

    moment = datetime.datetime.fromtimestamp(event["time"]).astimezone()
    zone = moment.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    when = f"{moment:%Y-%m-%dT%H:%M:%S}.{event['timeNano'] % 10**9:09d}{zone}"
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(event["Actor"]["Attributes"].items()))
    words = f"{when} {event['Type']} {event['Action']} {event['Actor']['ID']}"
    return printable(f"{words} ({attributes})" if attributes else words)
