"""The keywords by which a container is made, and the options of the engine that they are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from minibox.api.place import Places
from minibox.base.paths import absolute
from minibox.engine.options import RunOptions
from minibox.engine.sizes import parse_size
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.api.network import Network

MOUNT_FIELDS = (2, 3)

#: Of the host: a path, or ``volume``, a volume's name; of the container; and options as of ``-v``: ``ro``.
Mount = str | tuple[str | os.PathLike[str], str] | tuple[str | os.PathLike[str], str, str]


class ContainerOptions(Places, total=False):
    """Keywords of `run`, `Sandbox` and their like: those of ``minibox run`` in Python's types.

    Attributes:
        env: variables on top of the image's.
        cwd: absolute path in the container; the image's when it isn't given.
        user: ``name|uid[:group|gid]``, looked up in the image; the image's when it isn't given.
        network: ``none``, the default here: safe, and the quickest; ``bridge``, ``host``, as of ``--network``; or a
            `Network`, or the name of one.
        aliases: what it is called on that network besides its names.
        ports: ``{80: 8080, "53/udp": "127.0.0.1:5353"}``: of its own, on such a network, and the ports of this host that
            lead there, as by ``--publish``; this host reaches it by its ``address`` without.
        hostname: at most 64 characters; the beginning of the id when it isn't given.
        memory: limit in bytes, or with a unit: ``"64m"``. At least 6 MiB.
        memory_swap: memory and swap together; twice ``memory`` when it isn't given, -1 for no limit.
        cpus: how many processors' time it gets; 0.5 is half of one.
        processes: how many processes and threads it may have at one time.
        cpu_time: seconds of processor time that all of its processes may use together.
        wall_time: seconds after which it is killed; unlike ``timeout`` that is a verdict, and no exception.
        output: how much it may write to standard output and standard error together, as ``memory``.
        file_size: how large a file may get that it writes, as ``memory``.
        disk: how much it may write, as ``memory``: then it is kept in memory, see ``--disk`` of ``minibox run``.
        ulimits: ``{"nofile": 64, "core": (0, 0)}``: soft and hard limit; -1 is none.
        mounts: ``"SOURCE:DESTINATION[:ro]"`` or ``(source, destination[, "ro"])``: a directory or file of the host by
            its path, or a volume by its name.
        tmpfs: ``"DESTINATION[:size=64m]"``: in memory.
        read_only: its root file system can't be written.
        shm_size: of /dev/shm, as ``memory``; 64 MiB when it isn't given.
        entrypoint: in place of the image's; "" for none.
        init: a small process 1 that reaps, before the command.
        privileged, cap_add, cap_drop, security_opt, devices, sysctls, userns: as of ``minibox run``.
        add_hosts: ``{"name": "address"}`` for its /etc/hosts.
        dns: addresses of name servers.
        labels: for ``minibox ps`` and its like.
        name: of the container; made up when it isn't given.
        pull: ``missing`` (the default), ``never`` or ``always``.
        platform: ``OS/ARCH[/VARIANT]``; this machine's when it isn't given.
        root, runroot: where minibox keeps its state; from ``MINIBOX_ROOT`` and ``MINIBOX_RUNROOT``, as for the command,
            when they aren't given.
        storage_driver: overlay, btrfs, erofs or copy; from ``MINIBOX_STORAGE_DRIVER`` or config.toml when it isn't given.
    """

    env: Mapping[str, str]
    cwd: str | os.PathLike[str]
    user: str | int
    network: str | Network
    aliases: Iterable[str]
    ports: Mapping[int | str, int | str]
    hostname: str
    memory: int | str
    memory_swap: int | str
    cpus: float
    processes: int
    cpu_time: float
    wall_time: float
    output: int | str
    file_size: int | str
    disk: int | str
    ulimits: Mapping[str, int | tuple[int, int]]
    mounts: Iterable[Mount]
    tmpfs: Iterable[str]
    read_only: bool
    shm_size: int | str
    entrypoint: str
    init: bool
    privileged: bool
    cap_add: Iterable[str]
    cap_drop: Iterable[str]
    security_opt: Iterable[str]
    devices: Iterable[str]
    sysctls: Mapping[str, str]
    userns: str
    add_hosts: Mapping[str, str]
    dns: Iterable[str]
    labels: Mapping[str, str]
    name: str
    pull: str
    platform: str


def run_options(image: str, command: tuple[str, ...], options: ContainerOptions, *, idle: bool = False) -> RunOptions:
    """What the engine understands.

    Raises:
        TypeError: there is no such keyword.
        UsageError: a value can't be meant.
    """
    fields: dict[str, Any] = {}
    for key, value in options.items():
        if key in Places.__annotations__:
            continue
        if key not in FIELDS:
            raise TypeError(f"unknown option {key!r}; there are {', '.join(ContainerOptions.__annotations__)}")
        name, convert = FIELDS[key]
        for field, converted in convert(name, value):
            fields[field] = (*fields.get(field, ()), *converted) if isinstance(converted, tuple) else converted
    fields.setdefault("network", "none")
    return RunOptions(image=image, command=command, rm=True, interactive=True, idle=idle, **fields)


def variables(env: Mapping[str, str]) -> tuple[str, ...]:
    """``NAME=value`` of each.

    Raises:
        UsageError: a name has a "=", which a variable's can't have.
    """
    for name in env:
        if not name or "=" in name:
            raise UsageError(f"invalid name of an environment variable: {name!r}")
    return tuple(
        f"{name}={text_of(value, f'the value of the environment variable {name}')}" for name, value in env.items()
    )


def text_of(value: object, what: str) -> str:
    """A text, or a path's.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return value
    raise TypeError(f"{what} is no text, but {value!r}")


# Each gives pairs of a field of `RunOptions` and its value.


def _plain(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, value)]


def _text(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, os.fspath(value) if isinstance(value, os.PathLike) else str(value))]


def _words(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, str):
        raise UsageError(f"{name}={value!r} is one text, and a list of them is meant")
    return [(name, tuple(value))]


def _size(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, parse_size(value) if isinstance(value, str) else int(value))]


def _file_size(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, (f"fsize={_size(name, value)[0][1]}",))]


def _env(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, variables(value))]


def _pairs(separator: str) -> Any:
    def convert(name: str, value: Any) -> list[tuple[str, Any]]:
        return [(name, tuple(f"{key}{separator}{text}" for key, text in value.items()))]

    return convert


def _ports(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(name, tuple(f"{outside}:{inside}" for inside, outside in value.items()))]


def _ulimits(name: str, value: Any) -> list[tuple[str, Any]]:
    pairs = {key: limit if isinstance(limit, tuple) else (limit, limit) for key, limit in value.items()}
    return [(name, tuple(f"{key}={soft}:{hard}" for key, (soft, hard) in pairs.items()))]


def _mounts(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, str):
        raise UsageError(f"mounts={value!r} is one text, and a list of them is meant")
    found = []
    for each in value:
        if isinstance(each, str):
            found.append(("volume", (each,)))
        elif isinstance(each, tuple) and len(each) in MOUNT_FIELDS:
            source, destination, *more = map(os.fspath, each)
            is_path = isinstance(each[0], os.PathLike) or "/" in source or source in (".", "..")
            if is_path:
                source = absolute(source)
            if not {":", ","} & {*source, *destination}:
                found.append(("volume", (":".join((source, destination, *more)),)))
                continue
            if more not in ([], ["ro"], ["rw"]):
                raise UsageError(f"invalid mount {each!r}: with : or , in its paths its options are ro or rw")
            fields = (f"type={'bind' if is_path else 'volume'}", f"source={source}", f"target={destination}")
            found.append(("mount", (",".join(map(_quoted, (*fields, *(["readonly"] if more == ["ro"] else [])))),)))
        else:
            raise UsageError(
                f"invalid mount {each!r}", 'write "SOURCE:DESTINATION[:ro]" or (source, destination[, "ro"])'
            )
    return found


def _quoted(field: str) -> str:
    """A field of CSV."""
    return '"' + field.replace('"', '""') + '"' if {",", '"'} & {*field} else field


FIELDS: dict[str, tuple[str, Any]] = {
    "env": ("env", _env),
    "cwd": ("workdir", _text),
    "user": ("user", _text),
    "network": ("network", _text),  # a Network's text is its name
    "aliases": ("network_alias", _words),
    "ports": ("publish", _ports),
    "hostname": ("hostname", _text),
    "memory": ("memory_bytes", _size),
    "memory_swap": ("memory_swap_bytes", _size),
    "cpus": ("cpus", _plain),
    "processes": ("pids_limit", _plain),
    "cpu_time": ("cpu_time_s", _plain),
    "wall_time": ("timeout_s", _plain),
    "output": ("output_bytes", _size),
    "file_size": ("ulimit", _file_size),
    "disk": ("disk_bytes", _size),
    "ulimits": ("ulimit", _ulimits),
    "mounts": ("volume", _mounts),
    "tmpfs": ("tmpfs", _words),
    "read_only": ("read_only", _plain),
    "shm_size": ("shm_size_bytes", _size),
    "entrypoint": ("entrypoint", _text),
    "init": ("init", _plain),
    "privileged": ("privileged", _plain),
    "cap_add": ("cap_add", _words),
    "cap_drop": ("cap_drop", _words),
    "security_opt": ("security_opt", _words),
    "devices": ("device", _words),
    "sysctls": ("sysctl", _pairs("=")),
    "userns": ("userns", _text),
    "add_hosts": ("add_host", _pairs(":")),
    "dns": ("dns", _words),
    "labels": ("label", _pairs("=")),
    "name": ("name", _text),
    "pull": ("pull", _text),
    "platform": ("platform", _text),
}
