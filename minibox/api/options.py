"""The keyword arguments for containers, and how they become options of the engine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from minibox.api.place import Places
from minibox.base.paths import absolute
from minibox.base.sizes import parse_size
from minibox.engine.spec.options import RunOptions, typed
from minibox.errors import UsageError, WrongArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.api.network import Network
    from minibox.docker_words.mounts import MountRequest
    from minibox.docker_words.pairs import Variable

MOUNT_FIELDS = (2, 3)

#: ``"SOURCE:DESTINATION[:ro]"`` or a tuple: a path of the host or the name of a volume; a path in the container; options.
Mount = str | tuple[str | os.PathLike[str], str] | tuple[str | os.PathLike[str], str, str]


class ContainerOptions(Places, total=False):
    """Keyword arguments of `run`, `Sandbox` and other functions that make containers.

    They are the options of ``minibox run``, in Python's types. Sizes are bytes, or strings with a unit: ``"64m"``.

    Attributes:
        env: environment variables, added to the image's.
        cwd: working directory, an absolute path in the container. Default: the image's.
        user: ``name|uid[:group|gid]``; names are looked up in the image. Default: the image's.
        network: ``none`` (the default: safe and fastest), ``bridge`` or ``host``, as for ``--network``; or a `Network`
            or its name.
        aliases: further names of the container on that network.
        ports: ports to publish, like ``--publish``; it needs a network. ``{80: 8080, "53/udp": "127.0.0.1:5353"}`` maps
            ports of the container to ports of this host. This host can also reach the container at its ``address``.
        hostname: at most 64 characters. Default: the beginning of the container's id.
        memory: memory limit, a size of at least 6 MiB.
        memory_swap: limit of memory and swap together, a size; -1 for no limit. Default: twice ``memory``.
        cpus: number of CPUs whose time it may use; 0.5 is half a CPU.
        processes: maximum number of processes and threads.
        cpu_time: CPU time that all its processes may use together, in seconds.
        wall_time: seconds until it is killed. The verdict says so; unlike ``timeout``, it raises no exception.
        output: limit of standard output and standard error together, a size.
        file_size: maximum size of a file that it writes.
        disk: limit of what it writes to its root file system, a size. What it writes is then kept in memory; see
            ``--disk`` of ``minibox run``.
        ulimits: ``{"nofile": 64, "core": (0, 0)}``: one limit, or soft and hard limit; -1 for no limit.
        mounts: ``"SOURCE:DESTINATION[:ro]"`` or ``(source, destination[, "ro"])``. The source is a path of the host
            or the name of a volume.
        tmpfs: ``"DESTINATION[:size=64m]"``, each a file system in memory.
        read_only: make the root file system read-only.
        shm_size: size of /dev/shm. Default: 64 MiB.
        entrypoint: replaces the image's entrypoint; "" for none.
        init: run a small init as process 1, which reaps zombies and starts the command.
        privileged, cap_add, cap_drop, security_opt, devices, sysctls, userns: as for ``minibox run``.
        add_hosts: ``{"name": "address"}``, added to /etc/hosts.
        dns: addresses of name servers.
        labels: metadata, shown by ``minibox inspect`` and usable as filters.
        name: the container's name. By default minibox makes one up.
        pull: ``missing`` (the default), ``never`` or ``always``.
        platform: ``OS/ARCH[/VARIANT]``. Default: this machine's.
        root, runroot: directories for minibox's state. Default: from ``MINIBOX_ROOT`` and ``MINIBOX_RUNROOT``, as for
            the command line.
        storage_driver: overlay, btrfs, erofs or copy. Default: from ``MINIBOX_STORAGE_DRIVER`` or config.toml.
    """

    env: Mapping[str, str] | None
    cwd: str | os.PathLike[str] | None
    user: str | int | None
    network: str | Network | None
    aliases: Iterable[str] | None
    ports: Mapping[int | str, int | str] | None
    hostname: str | None
    memory: int | str | None
    memory_swap: int | str | None
    cpus: float | None
    processes: int | None
    cpu_time: float | None
    wall_time: float | None
    output: int | str | None
    file_size: int | str | None
    disk: int | str | None
    ulimits: Mapping[str, int | tuple[int, int]] | None
    mounts: Iterable[Mount] | None
    tmpfs: Iterable[str] | None
    read_only: bool | None
    shm_size: int | str | None
    entrypoint: str | None
    init: bool | None
    privileged: bool | None
    cap_add: Iterable[str] | None
    cap_drop: Iterable[str] | None
    security_opt: Iterable[str] | None
    devices: Iterable[str] | None
    sysctls: Mapping[str, str] | None
    userns: str | None
    add_hosts: Mapping[str, str] | None
    dns: Iterable[str] | None
    labels: Mapping[str, str] | None
    name: str | None
    pull: str | None
    platform: str | None


def run_options(image: str, command: tuple[str, ...], options: ContainerOptions, *, idle: bool = False) -> RunOptions:
    """Convert keyword arguments to options of the engine.

    The keywords are known and of the right types: `minibox.api.arguments` has checked them.

    Raises:
        UsageError: a value is invalid.
    """
    fields: dict[str, Any] = {}
    for key, value in options.items():
        if value is None or key in Places.__annotations__:
            continue
        name, convert = FIELDS[key]
        for field, converted in convert(name, value):
            fields[field] = (*fields.get(field, ()), *converted) if isinstance(converted, tuple) else converted
    network = fields.setdefault("network", "none")
    if network in ("none", "host"):
        for key, value in (("ports", options.get("ports")), ("aliases", options.get("aliases"))):
            if value:
                why = "it has no network" if network == "none" else "its ports and names are this host's"
                raise WrongArgument(
                    f"{key}={value!r} with network {network!r}: {why}", 'give network="bridge", or a Network'
                )
    return RunOptions(image=image, command=command, rm=True, interactive=True, idle=idle, **fields)


def variables(env: Mapping[str, str]) -> tuple[Variable, ...]:
    """Return the variables.

    Raises:
        UsageError: a name is empty or contains "=", or there is a NUL byte.
    """
    from minibox.docker_words.pairs import parse_variable

    for name in env:
        if not name or "=" in name:
            raise UsageError(f"invalid environment variable name {name!r}")
    texts = {name: text_of(value, f"the value of environment variable {name}") for name, value in env.items()}
    return tuple(parse_variable(f"{name}={text}") for name, text in texts.items())


def text_of(value: object, what: str) -> str:
    """Return a string, or a path as a string; ``what`` names the value in the error.

    Raises:
        WrongArgument: it is neither.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return value
    hint = "leave it out" if value is None else f"write {str(value)!r}"
    raise WrongArgument(f"{what} must be a string or a path, not {value!r}", hint)


# Each converter gets a value that `minibox.api.arguments` has accepted, and returns pairs of a `RunOptions` field and its value.


def _plain(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, value)]


def _integer(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, int(value))]


def _number(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, value if isinstance(value, (int, float)) else float(value))]


def _text(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, os.fspath(value) if isinstance(value, os.PathLike) else str(value))]


def _network(name: str, value: str | Network) -> list[tuple[str, Any]]:
    return [(name, value if isinstance(value, str) else value.joinable_name())]


def _words(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, tuple(text_of(word, f"entry {number} of {name}") for number, word in enumerate(value)))]


def _size(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, parse_size(value) if isinstance(value, str) else int(value))]


def _file_size(name: str, value: Any) -> list[tuple[str, Any]]:
    from minibox.docker_words.limits import Ulimit

    size = _size(name, value)[0][1]
    return [(name, (Ulimit("fsize", size, size),))]


def _env(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, variables(value))]


def _pairs(name: str, value: Any) -> list[tuple[str, Any]]:
    from minibox.docker_words.pairs import Pair

    return [(name, tuple(Pair(str(key), str(text)) for key, text in value.items()))]


def _ports(name: str, value: Any) -> list[tuple[str, Any]]:
    from minibox.docker_words.ports import publish

    return [(name, tuple(publish(inside, outside) for inside, outside in value.items()))]


def _ulimits(name: str, value: Any) -> list[tuple[str, Any]]:
    from minibox.docker_words.limits import Ulimit

    pairs = {key: limit if isinstance(limit, tuple) else (limit, limit) for key, limit in value.items()}
    return [(name, tuple(Ulimit(key, int(soft), int(hard)) for key, (soft, hard) in pairs.items()))]


def _typed(name: str, value: Any) -> list[tuple[str, Any]]:
    return list(typed(dict(_words(name, value))).items())


def _mounts(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, tuple(map(_mount, value)))]


def _mount(given: Mount) -> MountRequest:
    from minibox.docker_words.mounts import MountRequest, checked_options, destination_path, parse_volume, volume_name

    if isinstance(given, str):
        return parse_volume(given)
    if not isinstance(given, tuple) or len(given) not in MOUNT_FIELDS:
        raise UsageError(f"invalid mount {given!r}", 'write "SOURCE:DESTINATION[:ro]" or (source, destination[, "ro"])')
    source, destination, *more = [text_of(part, f"a part of the mount {given!r}") for part in given]
    word = f"{source}:{destination}"
    options = checked_options(more[0], word) if more else ()
    path = destination_path(destination, word)
    if isinstance(given[0], os.PathLike) or "/" in source or source in (".", ".."):
        return MountRequest("bind", absolute(source), path, options)
    return MountRequest("volume", volume_name(source, word), path, options)


FIELDS: dict[str, tuple[str, Any]] = {
    "env": ("env", _env),
    "cwd": ("workdir", _text),
    "user": ("user", _text),
    "network": ("network", _network),
    "aliases": ("network_alias", _words),
    "ports": ("publish", _ports),
    "hostname": ("hostname", _text),
    "memory": ("memory_bytes", _size),
    "memory_swap": ("memory_swap_bytes", _size),
    "cpus": ("cpus", _number),
    "processes": ("pids_limit", _integer),
    "cpu_time": ("cpu_time_s", _number),
    "wall_time": ("timeout_s", _number),
    "output": ("output_bytes", _size),
    "file_size": ("ulimit", _file_size),
    "disk": ("disk_bytes", _size),
    "ulimits": ("ulimit", _ulimits),
    "mounts": ("volume", _mounts),
    "tmpfs": ("tmpfs", _typed),
    "read_only": ("read_only", _plain),
    "shm_size": ("shm_size_bytes", _size),
    "entrypoint": ("entrypoint", _text),
    "init": ("init", _plain),
    "privileged": ("privileged", _plain),
    "cap_add": ("cap_add", _words),
    "cap_drop": ("cap_drop", _words),
    "security_opt": ("security_opt", _typed),
    "devices": ("device", _typed),
    "sysctls": ("sysctl", _pairs),
    "userns": ("userns", _text),
    "add_hosts": ("add_host", _pairs),
    "dns": ("dns", _words),
    "labels": ("label", _pairs),
    "name": ("name", _text),
    "pull": ("pull", _text),
    "platform": ("platform", _text),
}
