"""The command exec."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.oci_cli.commands import Settings


def exec_(settings: Settings, values: dict[str, Any], words: list[str]) -> int:
    """Run another process in a container. Returns its exit status, or 0 for a detached one."""
    from minibox.engine.oci.exec import ExecOptions
    from minibox.engine.oci.exec import exec_ as run

    options = ExecOptions(
        note=lambda text: settings.log.write("warning", text),
        process=values["process"],
        command=tuple(words[1:]),
        cwd=values["cwd"],
        env=tuple(values["env"]),
        user=values["user"],
        additional_gids=tuple(values["additional-gids"]),
        tty=bool(values["tty"]),
        no_new_privs=bool(values["no-new-privs"]),
        caps=tuple(values["cap"]),
        apparmor=values["apparmor"],
        label=values["process-label"],
        cgroups=tuple(values["cgroup"]),
        ignore_paused=bool(values["ignore-paused"]),
        detach=bool(values["detach"]),
        console_socket=values["console-socket"],
        pidfd_socket=values["pidfd-socket"],
        pid_file=values["pid-file"],
        preserve_fds=values["preserve-fds"],
    )
    return run(settings.root, words[0], options)
