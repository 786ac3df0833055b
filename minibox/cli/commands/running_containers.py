"""Commands for running containers and their output: attach, logs, top, port."""

from __future__ import annotations

import sys

from minibox.cli.declare import argument, command, option
from minibox.cli.messages import echo
from minibox.cli.parameters import complete_container, settings_of
from minibox.engine.process.detach_keys import DETACH_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.cli.declare import Context

container_argument = argument("container", shell_complete=complete_container)


@command(epilog="\b\nExamples:\n  minibox attach web\n  minibox attach --no-stdin --sig-proxy=false web")
@option("--detach-keys", metavar="KEYS", default=DETACH_KEYS, help=f"Keys that detach you  [{DETACH_KEYS}]")
@option("--no-stdin", is_flag=True, help="Only show the output")
@option("--sig-proxy", metavar="BOOL", kind="bool", default=True, help="Pass signals to the container  [true]")
@container_argument
def attach(ctx: Context, container: str, detach_keys: str, no_stdin: bool, sig_proxy: bool) -> int:
    """Attach your terminal to a detached container, and exit with its status.

    Several users can attach at once. If the container has a terminal, the keys detach you and leave it running, and
    signals aren't passed on. `minibox logs` shows earlier output.
    """
    from minibox.cli.messages import note
    from minibox.engine.container.attach import attach as join

    return join(
        settings_of(ctx).home, container, stdin=not no_stdin, detach_keys=detach_keys, sig_proxy=sig_proxy, on_note=note
    )


@command(
    epilog="""\b
Examples:
  minibox logs web
  minibox logs -f --tail 20 web
  minibox logs -t --since 10m --until 2026-01-02T15:04:05Z web"""
)
@option("-f", "--follow", is_flag=True, help="Keep showing output until the container ends")
@option("-n", "--tail", metavar="NUMBER", default="all", help="Show only this many of the last lines  [all]")
@option("--since", metavar="TIME", default="", help="Show output since then: 10m, 1h30m, a date, Unix seconds")
@option("--until", metavar="TIME", default="", help="Show output up to that time")
@option("-t", "--timestamps", is_flag=True, help="Show the time of each line")
@option("--details", is_flag=True, help="No effect: the log has no more details")
@container_argument
def logs(
    ctx: Context,
    container: str,
    follow: bool,
    tail: str,
    since: str,
    until: str,
    timestamps: bool,
    details: bool,
) -> None:
    """Show what a container has written to stdout and stderr."""
    from time import time

    from minibox.cli.messages import note
    from minibox.engine.container.logs import container_log, log_bound, tail_count

    settings, now = settings_of(ctx), time()
    entries = container_log(
        settings.home,
        container,
        follow=follow,
        tail=tail_count(tail),
        since=log_bound(since, now),
        until=log_bound(until, now),
        on_note=note,
    )
    streams = {"stdout": sys.stdout, "stderr": sys.stderr}
    at_start = dict.fromkeys(streams, True)  # at the start of a line? Long lines come in parts
    for entry in entries:
        out = streams.get(entry.stream, sys.stdout)
        text = f"{entry.time} {entry.text}" if timestamps and at_start[entry.stream] else entry.text
        at_start[entry.stream] = entry.text.endswith("\n")
        out.buffer.write(text.encode(errors="replace"))
        if follow or out is sys.stderr:
            out.flush()


@command(
    interspersed=False,
    takes_unknown=True,
    epilog="\b\nExamples:\n  minibox top web\n  minibox top web -o pid,rss,args",
)
@container_argument
@argument("ps_options", nargs=-1, metavar="[PS OPTION]...")
def top(ctx: Context, container: str, ps_options: tuple[str, ...]) -> None:
    """Show the processes of a container with the host's ps(1). The default options are -ef."""
    from minibox.cli.format.table import format_table
    from minibox.engine.container.processes import processes

    heads, rows = processes(settings_of(ctx).home.root, container, ps_options)
    echo(format_table(heads, rows))


@command(epilog="\b\nExamples:\n  minibox port web\n  minibox port web 80/tcp")
@container_argument
@argument("private_port", metavar="[PORT[/PROTOCOL]]", required=False)
def port(ctx: Context, container: str, private_port: str | None) -> None:
    """Show where the ports of a container are published."""
    from minibox.engine.state.ports import port_lines

    for line in port_lines(settings_of(ctx).home.root, container, private_port or ""):
        echo(line)
