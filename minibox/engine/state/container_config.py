"""The image config of a container: how it was run, in the format that `commit` writes to the image, as in Docker."""

from __future__ import annotations

from minibox.engine.spec.healthcheck import healthcheck

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.engine.spec.options import RunOptions
    from minibox.oci.runtime import Mount

# `engine.spec.environment` sets these for each container. They go into an image only if the user or the image set them.
OF_THE_CONTAINER = ("HOSTNAME", "HOME", "TERM")


def container_config(
    options: RunOptions,
    config: dict[str, Any],
    env: Sequence[str],
    labels: dict[str, str],
    volumes: Sequence[str],
) -> dict[str, Any]:
    """The ``config`` member of an image made from this container; OCI image-spec 1.1, config.md.

    Args:
        config: that of the container's image, from `checked_config`.
        env: the environment of the container's process.
        volumes: the destinations of its anonymous volumes.
    """
    images, config = config, dict(config)
    named = {entry.partition("=")[0] for entry in config.get("Env") or ()} | {each.name for each in options.env}
    config["Env"] = [
        entry for entry in env if (name := entry.partition("=")[0]) in named or name not in OF_THE_CONTAINER
    ]
    if options.entrypoint is not None:
        config["Entrypoint"] = [options.entrypoint] if options.entrypoint else None
        config["Cmd"] = None
    if options.command:
        config["Cmd"] = list(options.command)
    for key, value in (
        ("User", options.user),
        ("WorkingDir", options.workdir),
        ("StopSignal", options.stop_signal),
        ("Labels", labels),
    ):
        if value:
            config[key] = value
    if options.publish or options.expose:
        from minibox.engine.spec.ports import exposed_ports, wanted_ports

        ports = {(each.inside, each.protocol) for each in wanted_ports(options, images)}
        ports |= exposed_ports(options, images)
        config["ExposedPorts"] = {f"{port}/{protocol}": {} for port, protocol in sorted(ports)}
    config["Healthcheck"] = healthcheck(options, images) or None
    if volumes:
        config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in volumes}}
    return {key: value for key, value in config.items() if value is not None}


def mounts_of(mounts: Sequence[Mount], directory: str) -> list[dict[str, Any]]:
    """The bind mounts and volumes in a container's Spec that the user or the image asked for, shallowest first.

    Args:
        directory: the container's own. Except for anonymous volumes, minibox itself mounts what lies in it.
    """
    found: list[dict[str, Any]] = []
    for mount in mounts:
        source, destination = mount.get("source", ""), mount["destination"]
        ours = source.startswith(f"{directory}/") and not source.startswith(f"{directory}/volumes/")
        if mount.get("type") == "bind" and not ours and not destination.startswith("/dev/"):
            read_only = not {"ro", "rro"}.isdisjoint(mount.get("options", ()))
            found.append({"Source": source, "Destination": destination, "ReadOnly": read_only})
    return found
