"""Commands for registries: pull, push, login, logout."""

from __future__ import annotations

import os
import sys

from minibox.cli.declare import argument, command, option
from minibox.cli.messages import echo
from minibox.cli.parameters import complete_image, settings_of
from minibox.cli.pull import show_pull
from minibox.errors import UsageError
from minibox.image.reference import parse_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.cli.declare import Context
    from minibox.image.reference import Reference

PLATFORM_HELP = "Use the image for OS/ARCH[/VARIANT]  [this machine's]"


@command(
    epilog="""\b
Examples:
  minibox pull debian:12
  minibox pull --platform linux/arm64 localhost:5000/team/app
  minibox pull --all-tags registry.example/team/app"""
)
@option("-a", "--all-tags", is_flag=True, help="Pull all images of the repository")
@option("--platform", metavar="PLATFORM", default="", help=PLATFORM_HELP)
@option("-q", "--quiet", is_flag=True, help="Print only the image's name")
@argument("name", metavar="NAME[:TAG|@DIGEST]")
def pull(ctx: Context, name: str, all_tags: bool, platform: str, quiet: bool) -> None:
    """Download an image from a registry into the store.

    A NAME without a host means docker.io. Layers that are in the store already aren't downloaded again, and an
    interrupted download continues where it stopped.
    """
    pulled = show_pull(
        settings_of(ctx), parse_name(name), None if quiet else sys.stdout, platform=platform, all_tags=all_tags
    )
    echo(pulled.rpartition(":")[0] if all_tags else pulled)


@command(
    epilog="""\b
Examples:
  minibox push localhost:5000/team/app:1.0
  minibox push --all-tags registry.example/team/app"""
)
@option("-a", "--all-tags", is_flag=True, help="Push all images of the repository that are in the store")
@option("--all-platforms", is_flag=True, help="Push an index with all its platforms, if the store has them")
@option("--platform", metavar="PLATFORM", default="", help=PLATFORM_HELP)
@option("-q", "--quiet", is_flag=True, help="Print only the image's name")
@argument("name", metavar="NAME[:TAG]", shell_complete=complete_image)
def push(ctx: Context, name: str, all_tags: bool, all_platforms: bool, platform: str, quiet: bool) -> None:
    """Upload an image from the store to the registry in its name.

    The image and its digest don't change. Layers that the registry has already aren't uploaded again.
    """
    from minibox.cli.format import progress
    from minibox.engine.resources import registry

    def begin(reference: Reference) -> None:
        if not quiet:
            echo(f"The push refers to repository [{reference.name}]")
            if not (all_tags or name.endswith(f":{reference.tag}")):
                echo(f"Using default tag: {reference.tag}")
        shown.begin()

    lines: list[str] = []
    names: list[str] = []

    def pushed(reference: Reference, descriptor: dict[str, object]) -> None:
        lines.append(f"{reference.tag}: digest: {descriptor['digest']} size: {descriptor['size']}")
        names.append(str(reference))

    if platform and all_platforms:
        raise UsageError("--platform can't be given with --all-platforms")
    settings = settings_of(ctx)
    with progress.Shown(None if quiet else sys.stdout) as shown:
        registry.push(settings.home, parse_name(name), environ=os.environ, platform=platform, all_tags=all_tags, all_platforms=all_platforms, on_begin=begin, on_progress=shown.show, on_pushed=pushed)  # fmt: skip
    for line in names if quiet else lines:
        echo(line)


@command(
    epilog="""\b
Examples:
  minibox login registry.example
  minibox login --username me --password-stdin localhost:5000 < password"""
)
@option("-u", "--username", metavar="NAME", help="User name")
@option("-p", "--password", metavar="TEXT", help="Password; other users can see it on the command line")
@option("--password-stdin", is_flag=True, help="Read the password from stdin")
@argument("server", required=False, default="")
def login(ctx: Context, server: str, username: str | None, password: str | None, password_stdin: bool) -> None:
    """Log in to a registry. The default SERVER is docker.io.

    If the registry accepts them, user name and password are saved where Docker and Podman find them.
    """
    from minibox.engine.resources import registry

    secret = _read_password(username, password, password_stdin)
    if username is None or secret is None:
        username, secret = _ask(registry.registry_host(server), username)
    place = registry.login(server, username, secret, environ=os.environ)
    if place.startswith("/"):
        echo(f"minibox: the password is stored unencrypted in {place}", err=True)
    echo("Login Succeeded")


def _read_password(username: str | None, password: str | None, from_stdin: bool) -> str | None:
    """Return the password from the command line or stdin, or None."""
    if password is not None and from_stdin:
        raise UsageError("--password can't be given with --password-stdin")
    if from_stdin:
        if username is None:
            raise UsageError("--password-stdin needs --username")
        secret = sys.stdin.read().rstrip("\r\n")
        if not secret:
            raise UsageError("--password-stdin: there is no password on stdin")
        return secret
    if password is not None:
        if sys.stdin is not None and sys.stdin.isatty():
            raise UsageError(
                "--password: all users of this machine can see it in the process list, and your shell's history keeps it",
                "omit it to be asked, or use --password-stdin",
            )
        echo("minibox: --password is insecure; use --password-stdin", err=True)
    return password


def _ask(host: str, username: str | None) -> tuple[str, str]:
    """Ask on the terminal for what is missing."""
    from getpass import getpass

    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("can't ask for user name and password: stdin is not a terminal",
                         "minibox login --username NAME --password-stdin SERVER < FILE")  # fmt: skip
    try:
        username = username or input(f"Username at {host}: ").strip()
        secret = getpass("Password: ")
    except EOFError:
        raise UsageError("no user name and password were given") from None
    if not username or not secret:
        raise UsageError("user name and password must not be empty")
    return username, secret


@command(epilog="\b\nExample:\n  minibox logout registry.example")
@argument("server", required=False, default="")
def logout(ctx: Context, server: str) -> None:
    """Log out of a registry: remove its saved password. The default SERVER is docker.io."""
    from minibox.engine.resources import registry

    host = registry.registry_host(server)
    places = registry.logout(server, environ=os.environ)
    if not places:
        echo(f"Not logged in to {host}")
    for place in places:
        echo(f"Removing login credentials for {host} from {place}")
