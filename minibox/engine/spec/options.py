"""The options of one `minibox run`, as the user gives them.

The command line, the Python API and the tests all make a `RunOptions`; `engine.spec.runtime_spec` makes an OCI Spec of
it and the image's config. Values that need the image or the host to be understood (user names, volumes) stay as the
user wrote them; the others are parsed (sizes are bytes).
"""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.docker_words.limits import Ulimit
    from minibox.docker_words.mounts import MountRequest
    from minibox.docker_words.pairs import Pair
    from minibox.docker_words.ports import Publish
    from minibox.oci.runtime import Mount

#: The fields that have a syntax of their own.
TYPED = frozenset(("ulimit", "label", "volume", "mount", "tmpfs", "add_host", "publish", "sysctl"))


@record
class RunOptions:
    """Options of `docker run`, with the same names and meanings.

    What has a syntax of its own is typed; `minibox.docker_words` parses it at the door. Only ``device``, ``security_opt``,
    ``expose``, ``restart`` and ``log_opt`` are still words.
    """

    image: str
    command: tuple[str, ...] = ()
    # process
    interactive: bool = False
    tty: bool = False
    env: tuple[str, ...] = ()  # "NAME=value", or "NAME": the caller's value
    env_file: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""  # "[name|uid][:group|gid]", looked up in the image's own files
    group_add: tuple[str, ...] = ()
    entrypoint: str | None = None  # None: the image's; "": none
    init: bool = False
    idle: bool = False  # no command: process 1 only reaps, and `exec` starts the others
    stop_signal: str = ""
    stop_timeout_s: int = 10
    oom_score_adj: int | None = None
    ulimit: tuple[Ulimit, ...] = ()
    # container
    name: str = ""
    hostname: str = ""
    rm: bool = False
    label: tuple[Pair, ...] = ()
    cidfile: str = ""
    pull: str = "missing"  # always, missing, never
    platform: str = ""  # "os/arch[/variant]" that the image must be for; "": this machine's
    # file system
    volume: tuple[MountRequest, ...] = ()
    mount: tuple[MountRequest, ...] = ()
    tmpfs: tuple[MountRequest, ...] = ()
    read_only: bool = False
    shm_size_bytes: int = 64 << 20
    device: tuple[str, ...] = ()  # "HOST[:CONTAINER[:rwm]]"
    # network
    network: str = ""  # none, host, bridge, or a network's name; "": the user's default
    network_alias: tuple[str, ...] = ()
    add_host: tuple[Pair, ...] = ()
    dns: tuple[str, ...] = ()
    publish: tuple[Publish, ...] = ()
    publish_all: bool = False
    publish_address: str = ""  # an address of this host, for entries of `publish` without one; "": all
    expose: tuple[str, ...] = ()  # "port[/protocol]"
    # limits; None: no limit
    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None  # memory + swap, -1: unlimited swap
    memory_reservation_bytes: int | None = None
    cpus: float | None = None
    cpu_quota_us: int | None = None  # of each cpu_period_us; -1: unlimited
    cpu_period_us: int | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int | None = None
    pids_limit: int | None = None  # -1: unlimited
    disk_bytes: int | None = None  # of the container's own layer, which is then in memory
    cpu_time_s: float = 0  # of all processes together; 0: no limit. Python API only
    output_bytes: int | None = None  # of both streams together. Python API only
    cgroup_manager: str = ""  # systemd, cgroupfs; "": whichever the limits need
    # isolation
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    privileged: bool = False
    userns: str = ""  # host, private ("auto"); "": private where the host can
    large_ids: bool = False  # a private user namespace has ids above 65535, too; see `ids.with_large_ids`. Builds only
    sysctl: tuple[Pair, ...] = ()
    # life; with any of these a supervisor watches the container
    detach: bool = False
    detach_keys: str = "ctrl-p,ctrl-q"
    sig_proxy: bool = True
    restart: str = ""  # no, always, unless-stopped, on-failure[:attempts]
    timeout_s: float = 0  # kill the container after this time; 0: never
    log_driver: str = ""  # json-file or none
    log_opt: tuple[str, ...] = ()  # "max-size=10m", "max-file=3"
    # health; 0: the image's value, or else Docker's default
    health_cmd: str = ""  # runs in the container's shell
    health_interval_s: float = 0
    health_timeout_s: float = 0
    health_retries: int = 0
    health_start_period_s: float = 0
    health_start_interval_s: float = 0
    health_on_failure: str = "none"  # none, kill, restart, stop
    no_healthcheck: bool = False  # ignores the image's check too
    # minibox's own
    time_offset_s: int | None = None  # a time namespace whose monotonic and boot clocks are this far ahead
    trace: bool = False


def given(options: RunOptions) -> dict[str, object]:
    """Return the options that differ from their defaults, in Docker's words, to record how a container was run."""
    values = {name: getattr(options, name) for name in RunOptions.__annotations__}
    return {
        name: tuple(map(str, value)) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value != getattr(RunOptions, name, None)
    }


def from_given(values: dict[str, Any]) -> RunOptions:
    """Make options of what `given` returned, after JSON; options that a newer version added get their defaults."""
    from minibox.docker_words.run_options import typed

    known = [(name, values[name]) for name in RunOptions.__annotations__ if name in values]
    fields: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in known}
    return RunOptions(**typed(fields))


@record
class Volume:
    """A volume that must exist before the start.

    Attributes:
        name: its directory under ``root/volumes``, or under the container's directory if it is anonymous.
        path: the directory that is mounted, ``_data`` in it.
        destination: where the container sees it.
        anonymous: made for this container only, and removed with it.
        copy: if it is new, fill it with the image's content at ``destination``.
    """

    name: str
    path: str
    destination: str
    anonymous: bool
    copy: bool


@record
class UserMounts:
    """The mounts that the options and the image ask for, and their volumes; see `engine.spec.mount_options`."""

    mounts: tuple[Mount, ...] = ()
    volumes: tuple[Volume, ...] = ()
