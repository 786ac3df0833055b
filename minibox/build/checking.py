"""``build --check``: apply the rules to a build's Dockerfile, without building it."""

from __future__ import annotations

from minibox.build.dockerfile.lint import check, check_options
from minibox.build.dockerfile.parser import parse
from minibox.build.dockerfile.stages import stages_of
from minibox.build.graph import Graph, predefined_arguments
from minibox.build.opening import Contexts
from minibox.errors import DockerfileError, MiniboxError
from minibox.image.platform import host_platform, parse_platform
from minibox.image.reference import parse as parse_reference
from minibox.image.store import ImageStore
from minibox.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from minibox.build.dockerfile.instructions import Dockerfile
    from minibox.build.dockerfile.rules import Finding
    from minibox.build.options import BuildOptions


@record
class Checked:
    """What the rules have found in a Dockerfile: its name, its lines, and whether a finding is an error there.

    ``error`` is a mistake that prevents the build, besides.
    """

    name: str
    source: tuple[str, ...]
    findings: tuple[Finding, ...]
    is_error: bool
    error: DockerfileError | None = None


def check_build(root: str, options: BuildOptions, stdin: BinaryIO | None) -> Checked:
    """Check the Dockerfile of a build.

    Raises:
        DockerfileError: it can't be parsed.
        BuildError: the context or the Dockerfile can't be read.
    """
    with Contexts(options, root, stdin) as contexts:
        dockerfile = parse(contexts.dockerfile, contexts.dockerfile_name)
        checked = check_dockerfile(root, options, contexts, dockerfile)
        names = [name for name, _ in options.contexts]
        try:
            Graph(dockerfile, target=options.target, build_args=dict(options.build_args), contexts=names)
        except DockerfileError as error:
            return replace(checked, error=error)
        return checked


def check_dockerfile(root: str, options: BuildOptions, contexts: Contexts, dockerfile: Dockerfile) -> Checked:
    """Check a Dockerfile that was parsed. Raises DockerfileError."""
    ignored = contexts.ignored
    arguments = dict(options.build_args)
    host = host_platform()
    platform = parse_platform(options.platform.split(",")[0]) if options.platform else host
    target = options.target or stages_of(dockerfile)[-1].head.name
    findings = check(
        dockerfile,
        build_args=arguments,
        predefined=predefined_arguments(host, platform, target),
        env_of=lambda name: _env_of(root, name),
        is_image=_is_image,
        is_ignored=lambda path: bool(ignored and ignored.has(path)),
    )
    return Checked(dockerfile.name, dockerfile.source, findings, check_options(dockerfile, arguments).error)


def _env_of(root: str, name: str) -> Mapping[str, str] | None:
    """An image's variables, if it is in the store."""
    try:
        config = ImageStore(root).resolve(name).config.get("config") or {}
    except MiniboxError:
        return None
    return dict(entry.partition("=")[::2] for entry in config.get("Env") or [])


def _is_image(name: str) -> bool:
    try:
        parse_reference(name)
    except MiniboxError:
        return False
    return True
