"""Commands for networks: network create, connect, disconnect, inspect, ls, prune, rm."""

from __future__ import annotations

from minibox.cli.declare import argument, command, option
from minibox.cli.for_each import for_each
from minibox.cli.messages import echo
from minibox.cli.parameters import complete_container, prune_options, settings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import click
    from click.shell_completion import CompletionItem

    from minibox.cli.declare import Context

HEADINGS = {
    "CreatedAt": "CREATED AT", "Driver": "DRIVER", "ID": "NETWORK ID", "IPv4": "IPV4", "IPv6": "IPV6",
    "Internal": "INTERNAL", "Labels": "LABELS", "Name": "NAME", "Scope": "SCOPE",
}  # fmt: skip
ID_DIGITS = 12


def complete_network(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a network."""
    from minibox.cli.completion import network_candidates

    return network_candidates(settings_of(ctx), incomplete)


@command(
    epilog="""\b
Examples:
  minibox network create back
  minibox network create --internal --subnet 10.99.0.0/24 lab"""
)
@option("-d", "--driver", metavar="NAME", default="bridge", help="Only bridge is supported  [default: bridge]")
@option("--internal", is_flag=True, help="No access to other networks; only this host can reach it")
@option("--label", "labels", metavar="KEY[=VALUE]", multiple=True, help="Add a label")
@option("--subnet", metavar="ADDRESS/BITS", default="", help="Address range  [a free one]")
@argument("name", metavar="NETWORK")
def create(ctx: Context, driver: str, internal: bool, labels: tuple[str, ...], subnet: str, name: str) -> None:
    """Create a network and print its id. Containers on it reach each other by address and by name.

    Containers on other networks can't reach them. A network exists until you remove it, even after a reboot.
    """
    from minibox.engine.upkeep.networks import DRIVER
    from minibox.engine.upkeep.networks import create as make
    from minibox.errors import Unsupported

    if driver != DRIVER:
        raise Unsupported(f"network driver {driver!r} is not supported", "use bridge")
    made, _ = make(settings_of(ctx).home, name, internal=internal, subnet=subnet, labels=labels)
    echo(made.id)


@command(
    epilog="""\b
Examples:
  minibox network ls
  minibox network ls -q --filter label=team=web
  minibox network ls --format '{{.Name}}: {{.Internal}}'"""
)
@option("-f", "--filter", "filters", metavar="KEY=VALUE", multiple=True,
              help="Show only matches: dangling, driver, id, label, name, scope, type")  # fmt: skip
@option("--format", "form", metavar="FORMAT", default="", help="table, json, or a template: {{.Name}} {{.ID}}")
@option("--no-trunc", is_flag=True, help="Show full ids")
@option("-q", "--quiet", is_flag=True, help="Show only ids")
def ls(ctx: Context, filters: tuple[str, ...], form: str, no_trunc: bool, quiet: bool) -> None:
    """List networks: bridge (the default), host, none, and those that you created."""
    from minibox.cli.format.format import print_rows
    from minibox.docker_words.filters import parse_filters
    from minibox.engine.upkeep.networks import LIST_KEYS, listed

    found = listed(settings_of(ctx).home, parse_filters(filters, LIST_KEYS))
    rows = [_row(each, no_trunc) for each in found]
    print_rows(rows, form or ("{{.ID}}" if quiet else ""), HEADINGS, ("ID", "Name", "Driver", "Scope"))


def _row(found: dict[str, Any], whole: bool) -> dict[str, Any]:
    """Return the fields of Docker's `network ls --format`."""
    return {
        "CreatedAt": found["Created"],
        "Driver": found["Driver"],
        "ID": found["Id"] if whole else found["Id"][:ID_DIGITS],
        "IPv4": "true",
        "IPv6": "false",
        "Internal": "true" if found["Internal"] else "false",
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(found["Labels"].items())),
        "Name": found["Name"],
        "Scope": "local",
    }


@command(
    epilog="""\b
Examples:
  minibox network inspect back
  minibox network inspect -f '{{range .IPAM.Config}}{{.Subnet}}{{end}}' back"""
)
@option("-f", "--format", "form", metavar="FORMAT", default="", help="json, or a template: {{.Name}} {{.Internal}}")
@argument("names", metavar="NETWORK...", nargs=-1, required=True, shell_complete=complete_network)
def inspect(ctx: Context, names: tuple[str, ...], form: str) -> None:
    """Show details of networks and the containers that run on them, as JSON with Docker's field names."""
    from minibox.cli.commands.inspect import show_each
    from minibox.engine.upkeep.networks import inspect as look

    settings = settings_of(ctx)
    show_each(names, lambda name: look(settings.home, name), form)


@command(epilog="\b\nExamples:\n  minibox network connect back web\n  minibox network connect --alias db back box")
@option("--alias", "aliases", metavar="NAME", multiple=True, help="Another name of the container on the network")
@argument("network", metavar="NETWORK", shell_complete=complete_network)
@argument("container", metavar="CONTAINER", shell_complete=complete_container)
def connect(ctx: Context, aliases: tuple[str, ...], network: str, container: str) -> None:
    """Connect a container to another network: now if it is running, and at each later start."""
    from minibox.engine.upkeep.networks import connect as join

    join(settings_of(ctx).home, network, container, aliases=aliases)


@command(epilog="\b\nExample:\n  minibox network disconnect back web")
@option("-f", "--force", is_flag=True, help="Ignore a container that isn't on the network")
@argument("network", metavar="NETWORK", shell_complete=complete_network)
@argument("container", metavar="CONTAINER", shell_complete=complete_container)
def disconnect(ctx: Context, force: bool, network: str, container: str) -> None:
    """Disconnect a container from a network: its link is removed, and its names no longer resolve."""
    from minibox.engine.upkeep.networks import disconnect as leave

    leave(settings_of(ctx).home, network, container, force=force)


@command(epilog="\b\nExamples:\n  minibox network rm back\n  minibox network rm -f one two")
@option("-f", "--force", is_flag=True, help="Ignore networks that don't exist")
@argument("names", metavar="NETWORK...", nargs=-1, required=True, shell_complete=complete_network)
def rm(ctx: Context, names: tuple[str, ...], force: bool) -> int:
    """Remove networks. A network with containers on it can't be removed."""
    from minibox.engine.container.collection import collect
    from minibox.engine.upkeep.networks import remove

    settings = settings_of(ctx)
    collect(settings.home)  # removes killed containers from their networks
    return for_each(names, lambda name: remove(settings.home, name, force=force))


@command(epilog="\b\nExample:\n  minibox network prune --force")
@prune_options
def prune(ctx: Context, force: bool, filters: tuple[str, ...]) -> int:
    """Remove networks that no container uses, running or not."""
    from minibox.cli.commands.image import confirmed
    from minibox.docker_words.filters import parse_filters
    from minibox.engine.container.collection import collect
    from minibox.engine.upkeep.networks import PRUNE_KEYS
    from minibox.engine.upkeep.networks import prune as remove_unused

    wanted = parse_filters(filters, PRUNE_KEYS)
    if not force and not confirmed("WARNING! This will remove all custom networks not used by at least one container."):
        return 1
    settings = settings_of(ctx)
    collect(settings.home)
    gone = remove_unused(settings.home, wanted)
    if gone:
        echo("Deleted Networks:\n" + "\n".join(gone))
    return 0
