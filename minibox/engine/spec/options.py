"""What a user asks for: the options of one `minibox run`, before any of it is resolved.

The command line, the Python API and the tests all make a `RunOptions`; `engine.spec.runtime_spec` turns it and
the image's config into an OCI Spec. Values are as the user wrote them where the image or the host
is needed to understand them (user names, volumes), and parsed where not (sizes are bytes).
"""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@record
class RunOptions:
    """Options of `docker run`, same names and meaning.

    Strings that hold a small grammar (``-v``, ``--mount``, ``--ulimit``, ``--device``) stay strings
    here: `engine.spec.runtime_spec` parses them, so that the API accepts them too.
    """

    image: str
    command: tuple[str, ...] = ()
    # process
    interactive: bool = False
    tty: bool = False
    env: tuple[str, ...] = ()  # "NAME=value", or "NAME": taken from the environment of the caller
    env_file: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""  # "[name|uid][:group|gid]", looked up in the image's own files
    group_add: tuple[str, ...] = ()
    entrypoint: str | None = None  # None: the image's; "": none
    init: bool = False
    idle: bool = False  # no command: process 1 only reaps, and others come by `exec`
    stop_signal: str = ""
    stop_timeout_s: int = 10
    oom_score_adj: int | None = None
    ulimit: tuple[str, ...] = ()  # "name=soft[:hard]"
    # container
    name: str = ""
    hostname: str = ""
    rm: bool = False
    label: tuple[str, ...] = ()  # "key=value"
    cidfile: str = ""
    pull: str = "missing"  # always, missing, never
    platform: str = ""  # "os/arch[/variant]" that the image must be for; "": this machine's
    # file system
    volume: tuple[str, ...] = ()  # "[SRC:]DST[:options]"
    mount: tuple[str, ...] = ()  # "type=bind,source=...,target=..."
    tmpfs: tuple[str, ...] = ()  # "DST[:options]"
    read_only: bool = False
    shm_size_bytes: int = 64 << 20
    device: tuple[str, ...] = ()  # "HOST[:CONTAINER[:rwm]]"
    # network
    network: str = ""  # none, host, bridge, or a network's name; "": the default of who runs it
    network_alias: tuple[str, ...] = ()
    add_host: tuple[str, ...] = ()  # "name:address"
    dns: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()  # "[[address:]host port:]port[/protocol]"
    publish_all: bool = False
    publish_address: str = ""  # of this host, for those of `publish` without one; "": all
    expose: tuple[str, ...] = ()  # "port[/protocol]"
    # limits; None: no limit asked for
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
    disk_bytes: int | None = None  # of its own layer, which is in memory then
    cpu_time_s: float = 0  # of all of its processes together; 0: no limit. For a container of the API's
    output_bytes: int | None = None  # to both of its streams together. For a container of the API's
    cgroup_manager: str = ""  # systemd, cgroupfs; "": whichever the limits need
    # isolation
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    privileged: bool = False
    userns: str = ""  # host, private ("auto"); "": private where the host can
    sysctl: tuple[str, ...] = ()  # "name=value"
    # life; with any of these a supervisor looks after the container
    detach: bool = False
    detach_keys: str = "ctrl-p,ctrl-q"
    sig_proxy: bool = True
    restart: str = ""  # no, always, unless-stopped, on-failure[:attempts]
    timeout_s: float = 0  # killed when it has run so long; 0: never
    log_driver: str = ""  # json-file or none
    log_opt: tuple[str, ...] = ()  # "max-size=10m", "max-file=3"
    # health; a time or a number that is 0: as the image says, or else Docker's
    health_cmd: str = ""  # for the container's shell
    health_interval_s: float = 0
    health_timeout_s: float = 0
    health_retries: int = 0
    health_start_period_s: float = 0
    health_start_interval_s: float = 0
    health_on_failure: str = "none"  # none, kill, restart, stop
    no_healthcheck: bool = False  # not the image's either
    # minibox's own
    time_offset_s: int | None = None  # a time namespace whose monotonic and boot clocks run this far ahead
    trace: bool = False


def given(options: RunOptions) -> dict[str, object]:
    """The options that aren't as they are by default: for who asks later how a container was run."""
    values = {name: getattr(options, name) for name in RunOptions.__annotations__}
    return {name: value for name, value in values.items() if value != getattr(RunOptions, name, None)}


def from_given(values: dict[str, Any]) -> RunOptions:
    """From `given`, through JSON; what a later version has added since is its default."""
    known = [(name, values[name]) for name in RunOptions.__annotations__ if name in values]
    fields: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in known}
    return RunOptions(**fields)
