"""`minibox build`, and `minibox builder`: disk space of its cache."""

from __future__ import annotations

import os
import sys

from minibox.cli.commands.build_refused import refused
from minibox.cli.declare import argument, command, option
from minibox.cli.format.build_progress import STYLES
from minibox.cli.messages import echo
from minibox.cli.parameters import settings_of
from minibox.errors import MiniboxError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.build.options import BuildOptions
    from minibox.cli.declare import Context
    from minibox.cli.settings import Settings


@command(
    docker_flags=True,
    epilog="""\b
Examples:
  minibox build -t web .
  minibox build -t web --target test --build-arg VERSION=1.2 .
  minibox build -o out .          write the last stage's files to a directory
  tar -c . | minibox build -t web -   a context on stdin
  minibox build --why -t web .    say why each line was reused or not""",
)
@option("-t", "--tag", "tags", metavar="NAME", multiple=True, help="Name the image")
@option("-f", "--file", metavar="FILE", default="", help="Read this Dockerfile; - reads stdin")
@option("--target", metavar="STAGE", default="", help="Build this stage")
@option("--build-arg", "build_args", metavar="NAME[=VALUE]", multiple=True, help="Set an ARG")
@option("--build-context", "contexts", metavar="NAME=PLACE", multiple=True, help="Add a named context")
@option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="Add a label")
@option("--annotation", "annotations", metavar="NAME=VALUE", multiple=True, help="Add an annotation")
@option("--no-cache", is_flag=True, help="Carry out every line again")
@option("--no-cache-filter", metavar="STAGE", multiple=True, help="The same, for these stages")
@option("--cache-from", metavar="NAME|type=...", multiple=True, help="Reuse lines of other machines' builds")
@option("--cache-to", metavar="NAME|type=...", multiple=True, help="Keep the lines there for other machines")
@option("--pull", is_flag=True, help="Look for newer base images")
@option("--platform", "platforms", metavar="PLATFORM,...", multiple=True, help="Build for OS/ARCH[/VARIANT]")
@option("--network", metavar="NAME", default="default", help="Network of RUN: default, none or host")
@option("--add-host", metavar="NAME:ADDRESS", multiple=True, help="Add a line to /etc/hosts of RUN")
@option("--secret", "secrets", metavar="id=NAME[,...]", multiple=True, help="A secret for RUN: src=FILE, env=NAME")
@option("--ssh", metavar="NAME[=SOCKET]", multiple=True, help="An ssh agent for RUN")
@option("-o", "--output", "outputs", metavar="DIR|type=...", multiple=True, help="Write the result there")
@option("--push", is_flag=True, help="Push the image to its registry")
@option("--load", is_flag=True, help="Keep the image in the store (default)")
@option("--iidfile", metavar="FILE", default="", help="Write the image's id to a file")
@option("--metadata-file", metavar="FILE", default="", help="Write digests and names to a file")
@option("--progress", choices=STYLES, default="auto", show_default=True, help="How to show the build")
@option("-q", "--quiet", is_flag=True, help="Print only the image's id")
@option("--shm-size", metavar="SIZE", default="", help="Size of /dev/shm of RUN [64m]")
@option("--ulimit", metavar="NAME=SOFT[:HARD]", multiple=True, help="Resource limit of RUN")
@option("-m", "--memory", metavar="SIZE", default="", help="Limit the memory of each RUN")
@option("--cpuset-cpus", metavar="CPUS", default="", help="Run only on these processors")
@option("--userns", metavar="MODE", default="", help="host: RUN without a user namespace")
@option("--why", is_flag=True, help="Say why each line was reused or not")
@option("--shell", is_flag=True, help="If a RUN fails, open a shell in the state before it")
@option("--check", is_flag=True, help="Check the Dockerfile, and build nothing")
@option("--call", metavar="METHOD", default="build", hidden=True)
@refused
@argument("context", metavar="PATH|URL|-")
def build(ctx: Context, /, **given: Any) -> int:
    """Make an image from a Dockerfile and the files of a directory.

    Each line is a snapshot. Later builds reuse it if the line, what it reads
    and what it stands on are the same, in whatever Dockerfile.
    """
    if given["call"] not in ("build", "check"):
        raise UsageError(f"--call {given['call']} is not supported", "build or check")
    options = _options(given)
    if given["check"] or given["call"] == "check":
        return _check(settings_of(ctx), options)
    _build(settings_of(ctx), options, given)
    return 0


def _build(settings: Settings, options: BuildOptions, given: dict[str, Any]) -> None:
    from minibox.build.events import ImageMade
    from minibox.build.failure import LineFailed
    from minibox.build.image.export import pushed_names
    from minibox.build.platforms import new_build
    from minibox.cli.format.build_progress import shown
    from minibox.cli.messages import write_stderr

    style = "quiet" if given["quiet"] else given["progress"]
    display = shown(style, sys.stderr)
    stdin = sys.stdin.buffer if sys.stdin is not None else None
    build = new_build(
        settings.home, options, storage_driver=settings.storage_driver, on_event=display.show, stdin=stdin
    )
    pushes = given["push"] or any(each.push for each in build.outputs)
    if pushes and not build.names:
        raise UsageError("an image without a name can't be pushed", "--tag NAME")
    try:
        result = build.run()
        if result.made:
            display.show(ImageMade(result.made.id, result.made.digest, result.names))
    except LineFailed as error:
        display.close()
        lines = ["", *error.output, "------", *error.excerpt, "------"]
        if style != "rawjson":
            write_stderr("\n".join(lines) + "\n")
        raise
    finally:
        display.close()
    if result.made:
        if pushes:
            _push(settings, result.names if given["push"] else pushed_names(build.outputs, result.names))
        if given["iidfile"]:
            _write(given["iidfile"], result.made.id)
        if style == "quiet":
            echo(result.made.id)
    if given["metadata_file"]:
        from minibox.base.json_text import dumps

        _write(given["metadata_file"], dumps(result.metadata(), "\n") + "\n")


def _push(settings: Settings, names: Sequence[str]) -> None:
    from minibox.cli.format import progress
    from minibox.engine.resources import registry
    from minibox.image.reference import parse_name

    with progress.Shown(sys.stderr) as display:
        for name in names:
            display.begin()
            registry.push(
                settings.home,
                parse_name(name),
                environ=os.environ,
                all_platforms=True,
                on_progress=display.show,
            )
            display.end()


def _write(path: str, text: str) -> None:
    from minibox.errors import kernel_says

    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise MiniboxError(f"write {path}: {kernel_says(error)}") from error


def _options(given: dict[str, Any]) -> BuildOptions:
    """Make the build's options of the command line's."""
    from minibox.base.sizes import parse_size
    from minibox.build.options import BuildOptions
    from minibox.build.words import (
        agent_of,
        annotation_of,
        argument_of,
        label_of,
        pair_of,
        secret_of,
        source_date_epoch,
    )

    def size(name: str) -> int | None:
        return parse_size(given[name], f"--{name.replace('_', '-')}") if given[name] else None

    arguments = tuple(pair for text in given["build_args"] if (pair := argument_of(text, os.environ)))
    outputs = given["outputs"]
    if outputs and (given["load"] or given["push"]):
        outputs = (*outputs, "type=image")  # besides what is written elsewhere
    return BuildOptions(
        given["context"],
        file=given["file"],
        tags=given["tags"],
        target=given["target"],
        build_args=arguments,
        contexts=tuple(pair_of(text, "--build-context") for text in given["contexts"]),
        labels=tuple(label_of(text) for text in given["labels"]),
        annotations=tuple(annotation_of(text) for text in given["annotations"]),
        cache_from=given["cache_from"],
        cache_to=given["cache_to"],
        no_cache=given["no_cache"],
        no_cache_filter=tuple(name for text in given["no_cache_filter"] for name in text.split(",")),
        pull=given["pull"],
        platform=",".join(given["platforms"]),
        network=given["network"],
        add_host=given["add_host"],
        secrets=tuple(secret_of(text, os.environ) for text in given["secrets"]),
        ssh=tuple(agent_of(text, os.environ) for text in given["ssh"]),
        outputs=outputs,
        source_date_epoch=source_date_epoch(dict(arguments), os.environ),
        shm_size_bytes=size("shm_size") or 64 << 20,
        ulimit=given["ulimit"],
        memory_bytes=size("memory"),
        cpuset_cpus=given["cpuset_cpus"],
        userns=given["userns"],
        why=given["why"],
        shell=given["shell"],
    )


def _check(settings: Settings, options: BuildOptions) -> int:
    """Print what the rules find, as docker build --check does; return the exit status."""
    from minibox.build.checking import check_build

    stdin = sys.stdin.buffer if sys.stdin is not None else None
    found = check_build(settings.home.root, options, stdin)
    if not found.findings:
        if found.error:
            raise found.error
        echo("Check complete, no warnings found.")
        return 0
    count = len(found.findings)
    echo(f"Check complete, {count} warning{'s' * (count != 1)} {'have' if count != 1 else 'has'} been found!")
    for each in found.findings:
        echo(f"\nWARNING: {each.rule.name} - {each.rule.url}\n{each.rule.description}\n{each.message}")
        echo(f"\n{found.name}:{each.line}:{each.column}\n--------------------")
        for number in range(max(1, each.line - 2), min(len(found.source), each.last_line + 2) + 1):
            mark = ">>>" if each.line <= number <= each.last_line else "   "
            echo(f"{number:4} | {mark} {found.source[number - 1]}")
        echo("--------------------")
    if found.error:
        raise found.error
    return 1
