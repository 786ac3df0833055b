"""Options of `docker build` that minibox refuses, each by name; their values that ask for what minibox does anyhow are taken."""

from __future__ import annotations

from minibox.cli.declare import option
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import click

_ATTESTATIONS = "minibox makes no attestations"
_LIMITS = "limit memory and processors with --memory and --cpuset-cpus"
_SERVER = "minibox builds without a server"
#: Why, by option.
REFUSED = {
    "--allow": "RUN --security=insecure is not supported",
    "--attest": _ATTESTATIONS,
    "--builder": "there is only one builder",
    "--cgroup-parent": _LIMITS,
    "--cpu-period": _LIMITS,
    "--cpu-quota": _LIMITS,
    "--cpu-shares": _LIMITS,
    "--cpuset-mems": _LIMITS,
    "--detach": _SERVER,
    "--disable-content-trust": "pull by digest: FROM NAME@sha256:...",
    "--invoke": "--shell opens a shell if a RUN fails",
    "--isolation": "it is for Windows",
    "--memory-swap": _LIMITS,
    "--print": "--check checks the Dockerfile",
    "--provenance": _ATTESTATIONS,
    "--rm": "the containers of RUN always go; --shell keeps what a failed one left",
    "--root": "minibox's own goes before the command: minibox --root DIR build",
    "--sbom": _ATTESTATIONS,
    "--security-opt": "a build's containers have the default profile",
    "--server-config": _SERVER,
    "--squash": "use a second stage, and COPY what you need",
}
#: Other names of them.
SHORT = {"--cpu-shares": "-c"}
#: Values that change nothing here.
TAKEN = {
    "--allow": ("network.host",),
    "--builder": ("default",),
    "--isolation": ("default",),
    "--provenance": ("false",),
    "--sbom": ("false",),
}
#: Flags, by what minibox does.
FLAGS = {"--detach": False, "--disable-content-trust": True, "--rm": True, "--squash": False}
#: Flags that change nothing here: nothing is sent anywhere, and no container of a RUN is left.
WITHOUT_EFFECT = ("--compress", "--force-rm")


def refused(command: Any) -> Any:
    """Add these options to a command."""
    for name in REFUSED.keys() - FLAGS.keys():
        names = [name, *([SHORT[name]] if name in SHORT else [])]
        command = option(*names, multiple=True, hidden=True, expose_value=False, callback=_refuse)(command)
    for name, default in FLAGS.items():
        both = f"{name}/--no-{name[2:]}"
        command = option(both, default=default, hidden=True, expose_value=False, callback=_refuse_flag)(command)
    for name in WITHOUT_EFFECT:
        command = option(name, is_flag=True, hidden=True, expose_value=False)(command)
    return command


def _refuse(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    name = param.opts[0]
    if set(values) - set(TAKEN.get(name, ())):
        raise UsageError(f"{name} is not supported", REFUSED[name])


def _refuse_flag(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    name = param.opts[0]
    if value is not FLAGS[name]:
        raise UsageError(f"{name}{'' if value else '=false'} is not supported", REFUSED[name])
