"""Commands for running containers and their output: exec, attach, logs, top, port."""

from __future__ import annotations

import sys
from typing import Any

import click

from minibox.cli.commands.run import RunCommand, table_parameters, values_of
from minibox.cli.exec_options import BY_NAME, OPTIONS, make_options
from minibox.cli.parameters import complete_container, settings_of
from minibox.cli.run_options import Option
from minibox.engine.container.exec import ExecOptions
from minibox.engine.process.detach_keys import DETACH_KEYS

container_argument = click.argument("container", shell_complete=complete_container)


class ExecCommand(RunCommand):
    table: tuple[Option, ...] = OPTIONS
    by_name: dict[str, Option] = BY_NAME


def _exec(container: str, command: tuple[str, ...], **params: Any) -> int:
    from minibox.engine.container.exec import exec_

    settings = settings_of(click.get_current_context())
    name, options = options_of({"container": container, "command": command, **params})
    return exec_(settings.home, name, options)


def options_of(params: dict[str, Any]) -> tuple[str, ExecOptions]:
    """The container, and what is to be executed in it, of the parameters of click's."""
    values = {**params}
    name, command = values.pop("container"), values.pop("command")
    return name, make_options(values_of(values), list(command))


exec_ = ExecCommand(
    "exec",
    callback=_exec,
    params=[
        *table_parameters(OPTIONS, ExecOptions),
        click.Argument(["container"], shell_complete=complete_container),
        click.Argument(["command"], nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARG]..."),
    ],
    context_settings={"allow_interspersed_args": False},
    help="""Run a command in a running container.

    The command is isolated like the container: same namespaces, cgroup, capabilities, system call filter and user.
    The exit status is the command's, or 128+N if signal N ended it, 127 if the command wasn't found, 126 if it can't be
    executed, 125 if minibox failed.""",
    epilog="""\b
Examples:
  minibox exec web ls -l /srv
  minibox exec -it web sh
  minibox exec -u www-data -e LANG=C -w /srv web ./report""",
)


@click.command(epilog="\b\nExamples:\n  minibox attach web\n  minibox attach --no-stdin --sig-proxy=false web")
@click.option("--detach-keys", metavar="KEYS", default=DETACH_KEYS, help=f"Keys that detach you  [{DETACH_KEYS}]")
@click.option("--no-stdin", is_flag=True, help="Only show the output")
@click.option(
    "--sig-proxy", metavar="BOOL", type=click.BOOL, default=True, help="Pass signals to the container  [true]"
)
@container_argument
@click.pass_context
def attach(ctx: click.Context, container: str, detach_keys: str, no_stdin: bool, sig_proxy: bool) -> int:
    """Attach your terminal to a detached container, and exit with its status.

    Several users can attach at once. If the container has a terminal, the keys detach you and leave it running, and
    signals aren't passed on. `minibox logs` shows earlier output.
    """
    from minibox.cli.messages import note
    from minibox.engine.container.attach import attach as join

    return join(
        settings_of(ctx).home, container, stdin=not no_stdin, detach_keys=detach_keys, sig_proxy=sig_proxy, on_note=note
    )


@click.command(
    epilog="""\b
Examples:
  minibox logs web
  minibox logs -f --tail 20 web
  minibox logs -t --since 10m --until 2026-01-02T15:04:05Z web"""
)
@click.option("-f", "--follow", is_flag=True, help="Keep showing output until the container ends")
@click.option("-n", "--tail", metavar="NUMBER", default="all", help="Show only this many of the last lines  [all]")
@click.option("--since", metavar="TIME", default="", help="Show output since then: 10m, 1h30m, a date, Unix seconds")
@click.option("--until", metavar="TIME", default="", help="Show output up to that time")
@click.option("-t", "--timestamps", is_flag=True, help="Show the time of each line")
@click.option("--details", is_flag=True, help="No effect: the log has no more details")
@container_argument
@click.pass_context
def logs(
    ctx: click.Context,
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


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="\b\nExamples:\n  minibox top web\n  minibox top web -o pid,rss,args",
)
@container_argument
@click.argument("ps_options", nargs=-1, type=click.UNPROCESSED, metavar="[PS OPTION]...")
@click.pass_context
def top(ctx: click.Context, container: str, ps_options: tuple[str, ...]) -> None:
    """Show the processes of a container with the host's ps(1). The default options are -ef."""
    from minibox.cli.format.table import format_table
    from minibox.engine.container.processes import processes

    heads, rows = processes(settings_of(ctx).home.root, container, ps_options)
    click.echo(format_table(heads, rows))


@click.command(epilog="\b\nExamples:\n  minibox port web\n  minibox port web 80/tcp")
@container_argument
@click.argument("private_port", metavar="[PORT[/PROTOCOL]]", required=False)
@click.pass_context
def port(ctx: click.Context, container: str, private_port: str | None) -> None:
    """Show where the ports of a container are published."""
    from minibox.engine.state.ports import port_lines

    for line in port_lines(settings_of(ctx).home.root, container, private_port or ""):
        click.echo(line)
