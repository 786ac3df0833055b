"""The options of one `minibox run`, as the user gives them.

The command line, the Python API and the tests all make a `RunOptions`; `engine.spec.runtime_spec` makes an OCI Spec of
it and the image's config. Values that need the image or the host to be understood (user names, volumes) stay as the
user wrote them; the others are parsed (sizes are bytes).
"""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minibox.docker_words.devices import Device, DeviceLimit, DeviceRule
    from minibox.docker_words.life import LogOption, RestartPolicy
    from minibox.docker_words.limits import Ulimit
    from minibox.docker_words.mounts import MountRequest
    from minibox.docker_words.pairs import Pair, Variable
    from minibox.docker_words.ports import Exposed, Publish
    from minibox.docker_words.security import SecurityOption
    from minibox.oci.runtime import Mount


#: The fields with a syntax of their own, and who parses them in `minibox.docker_words`.
TYPED = {
    "add_host": ("pairs", "parse_add_host"),
    "annotation": ("pairs", "parse_label"),
    "blkio_weight_device": ("devices", "parse_device_weight"),
    "device": ("devices", "parse_device"),
    "device_cgroup_rule": ("devices", "parse_device_rule"),
    "device_read_bps": ("devices", "parse_device_bps"),
    "device_read_iops": ("devices", "parse_device_iops"),
    "device_write_bps": ("devices", "parse_device_bps"),
    "device_write_iops": ("devices", "parse_device_iops"),
    "env": ("pairs", "parse_variable"),
    "expose": ("ports", "parse_expose"),
    "label": ("pairs", "parse_label"),
    "log_opt": ("life", "parse_log_option"),
    "mount": ("mounts", "parse_mount"),
    "publish": ("ports", "parse_publish"),
    "restart": ("life", "parse_restart"),
    "security_opt": ("security", "parse_security_option"),
    "sysctl": ("pairs", "parse_sysctl"),
    "tmpfs": ("mounts", "parse_tmpfs"),
    "ulimit": ("limits", "parse_ulimit"),
    "volume": ("mounts", "parse_volume"),
}


@record
class RunOptions:
    """Options of `docker run`, with the same names and meanings.

    What has a syntax of its own is typed; `minibox.docker_words` parses it at the door.
    """

    image: str
    command: tuple[str, ...] = ()
    # process
    interactive: bool = False
    tty: bool = False
    env: tuple[Variable, ...] = ()
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
    domainname: str = ""
    rm: bool = False
    label: tuple[Pair, ...] = ()
    annotation: tuple[Pair, ...] = ()
    cidfile: str = ""
    pull: str = "missing"  # always, missing, never
    quiet: bool = False  # show nothing of a pull
    platform: str = ""  # "os/arch[/variant]" that the image must be for; "": this machine's
    # file system
    volume: tuple[MountRequest, ...] = ()
    mount: tuple[MountRequest, ...] = ()
    tmpfs: tuple[MountRequest, ...] = ()
    read_only: bool = False
    shm_size_bytes: int = 64 << 20
    device: tuple[Device, ...] = ()
    device_cgroup_rule: tuple[DeviceRule, ...] = ()
    # network
    network: str = ""  # none, host, bridge, or a network's name; "": the user's default
    network_alias: tuple[str, ...] = ()
    add_host: tuple[Pair, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_option: tuple[str, ...] = ()
    publish: tuple[Publish, ...] = ()
    publish_all: bool = False
    publish_address: str = ""  # an address of this host, for entries of `publish` without one; "": all
    expose: tuple[Exposed, ...] = ()
    # limits; None: no limit
    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None  # memory + swap, -1: unlimited swap
    memory_reservation_bytes: int | None = None
    memory_swappiness: int | None = None  # 0 to 100
    kernel_memory_bytes: int | None = None  # no kernel has had it since Linux 5.16
    oom_kill_disable: bool = False
    cpus: float | None = None
    cpu_quota_us: int | None = None  # of each cpu_period_us; -1: unlimited
    cpu_period_us: int | None = None
    cpu_shares: int | None = None
    cpu_rt_period_us: int | None = None
    cpu_rt_runtime_us: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int | None = None
    blkio_weight_device: tuple[DeviceLimit, ...] = ()
    device_read_bps: tuple[DeviceLimit, ...] = ()
    device_read_iops: tuple[DeviceLimit, ...] = ()
    device_write_bps: tuple[DeviceLimit, ...] = ()
    device_write_iops: tuple[DeviceLimit, ...] = ()
    pids_limit: int | None = None  # -1: unlimited
    disk_bytes: int | None = None  # of the container's own layer, which is then in memory
    cpu_time_s: float = 0  # of all processes together; 0: no limit. Python API only
    output_bytes: int | None = None  # of both streams together. Python API only
    cgroup_manager: str = ""  # systemd, cgroupfs; "": whichever the limits need
    # isolation
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[SecurityOption, ...] = ()
    privileged: bool = False
    uts: str = ""  # host; "": a UTS namespace of its own
    userns: str = ""  # host, private ("auto"); "": private where the host can
    large_ids: bool = False  # a private user namespace has ids above 65535, too; see `ids.with_large_ids`. Builds only
    sysctl: tuple[Pair, ...] = ()
    # life; with any of these a supervisor watches the container
    detach: bool = False
    detach_keys: str = "ctrl-p,ctrl-q"
    sig_proxy: bool = True
    restart: RestartPolicy | None = None
    timeout_s: float = 0  # kill the container after this time; 0: never
    log_driver: str = ""  # json-file or none
    log_opt: tuple[LogOption, ...] = ()
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
    svg: str = ""  # a file for a picture of the start
    html: str = ""  # a file for a page of its steps

    @property
    def needs_v1(self) -> bool:
        """Is there a limit that not every host has? See `v1_limits`."""
        return bool(
            self.oom_kill_disable
            or self.memory_swappiness is not None
            or self.kernel_memory_bytes
            or self.cpu_rt_period_us
            or self.cpu_rt_runtime_us
        )


def typed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Parse Docker's words among fields of `RunOptions`; the other fields stay as they are.

    Raises:
        UsageError: a word is invalid.
    """
    found = dict(fields)
    for name, words in fields.items():
        if name not in TYPED or words == ():
            continue
        from importlib import import_module  # most runs have none of these

        module, function = TYPED[name]
        parse = getattr(import_module(f"minibox.docker_words.{module}"), function)
        found[name] = parse(words) if isinstance(words, str) else tuple(map(parse, words))
    return found


def given(options: RunOptions) -> dict[str, object]:
    """Return the options that differ from their defaults, in Docker's words, to record how a container was run."""
    values = {name: getattr(options, name) for name in RunOptions.__annotations__}
    return in_words({name: value for name, value in values.items() if value != getattr(RunOptions, name, None)})


def in_words(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of `RunOptions` in Docker's words, the reverse of `typed`."""
    return {
        name: tuple(map(str, value)) if isinstance(value, tuple) else str(value) if name == "restart" else value
        for name, value in fields.items()
    }


def from_given(values: dict[str, Any]) -> RunOptions:
    """Make options of what `given` returned, after JSON; options that a newer version added get their defaults."""
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
