"""Make the OCI runtime Spec of a run from the options, the image's config and facts about the host.

`make_spec` is a pure function; its neighbours parse single options (`mount_options`, `devices`, `limits`, `security`,
`environment`, `users`). On the hot path the default seccomp profile isn't written out: the annotation
`SECCOMP_ANNOTATION` stands for it, and `complete` fills in ``linux.seccomp`` for readers of the Spec outside this
process (export, explain, another runtime).
"""

from __future__ import annotations

from minibox.engine.spec.devices import asked_rules, default_rules, make_devices
from minibox.engine.spec.environment import environment, read_env_files
from minibox.engine.spec.limits import oom_score_adj, resources, rlimits, sysctls
from minibox.engine.spec.options import UserMounts
from minibox.engine.spec.security import (
    MASKED_PATHS,
    READONLY_PATHS,
    Security,
    capabilities_of,
    seccomp_from_file,
    security_of,
)
from minibox.engine.spec.users import resolve_user
from minibox.errors import ConfigError, UsageError
from minibox.linux.seccomp.program import DEFAULT_PROFILE, SECCOMP_ANNOTATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minibox.docker_words.limits import Ulimit
    from minibox.engine.host.ids import IdMappings
    from minibox.engine.spec.host import HostFacts
    from minibox.engine.spec.options import RunOptions
    from minibox.engine.spec.users import ResolvedUser, UserLookup
    from minibox.oci.runtime import Linux, LinuxIDMapping, Mount, Process, Spec

# The version that a Spec declares: "idmap" came with 1.2, and older runtimes refuse a newer version.
OCI_VERSION, OCI_VERSION_ID_MAPPED = "1.0.2", "1.2.0"
STOP_SIGNAL_ANNOTATION = "org.opencontainers.image.stopSignal"  # image-spec, conversion.md
INIT_DESTINATION = "/dev/init"  # on the container's own tmpfs, so that it leaves nothing in the upperdir
SHM_BYTES = 64 << 20  # Docker's
DEV_BYTES_LIMITED = 1 << 20  # of /dev, if the disk is limited
_TTY_GID = 5
_HOSTNAME_MOST = 64  # HOST_NAME_MAX, gethostname(2)


def make_spec(
    options: RunOptions,
    config: dict[str, Any],
    *,
    lookup: UserLookup,
    host: HostFacts,
    container_id: str,
    rootfs: str,
    root: str,
    network: str = "none",
    files: Mapping[str, str] | None = None,
    id_mappings: IdMappings | None = None,
    idmap_binds: bool = False,
    cgroups_path: str = "",
    init_path: str = "",
    mounts: UserMounts | None = None,
) -> Spec:
    """Return the OCI runtime Spec of one run, a plain dict that can be written as config.json.

    ``process.cwd`` may be missing in the image: whoever executes the Spec makes it, as runc does.

    Args:
        config: the image's, from `checked_config`.
        lookup: returns the text of the image's /etc/passwd or /etc/group.
        rootfs: ``root.path``.
        root: the directory with ``volumes``.
        network: the mode in effect: none, host, bridge, or another private one.
        files: files on the host to mount, by their path in the container: /etc/hosts, /etc/resolv.conf, /etc/hostname.
            A path that the user mounts over is left out.
        id_mappings: of the container's user namespace; None: no user namespace.
        idmap_binds: whether id-mapped bind mounts are possible here.
        init_path: the static init for ``--init``, on the host.
        mounts: the result of `asked_mounts` for the same options; None: parse them here.

    Raises:
        UsageError: an option has an invalid value.
        ConfigError: the image's config is invalid.
        Unsupported: an option that minibox doesn't support.
    """
    if mounts is None:
        mounts = asked_mounts(options, config, host, root=root, container_id=container_id, idmap_binds=idmap_binds)
    security = security_of(options)
    hostname = container_hostname(options, host, container_id, network)
    capabilities = capabilities_of(options, host)
    user = resolve_user(options.user or config.get("User") or "", options.group_add, lookup)
    args = process_args(options, config)
    process = _process(options, config, args, _mapped(user, id_mappings, options), hostname, capabilities, host)
    process["noNewPrivileges"] = security.no_new_privileges
    if security.apparmor:
        process["apparmorProfile"] = security.apparmor
    devices = make_devices(
        options.device, host, bind=id_mappings is not None and not idmap_binds, privileged=options.privileged
    )
    all_mounts = _without(_default_mounts(options, security, network, id_mappings), mounts)
    all_mounts += mounts.mounts
    all_mounts += _without(
        _file_mounts(files or {}, idmap_binds, read_only=options.read_only or bool(options.disk_bytes)), mounts
    )
    all_mounts += devices.mounts
    if options.init or options.idle:
        all_mounts.append(_init_mount(init_path))
    annotations = _annotations(options, config, security)
    linux = _linux(options, security, network, id_mappings)
    linux["resources"] = resources(options, host)
    linux["resources"]["devices"] = [*default_rules(), *devices.rules, *asked_rules(options.device_cgroup_rule)]
    if devices.nodes:
        linux["devices"] = list(devices.nodes)
    if cgroups_path:
        linux["cgroupsPath"] = cgroups_path
    if security.seccomp not in ("default", "unconfined"):
        linux["seccomp"] = seccomp_from_file(security.seccomp, capabilities, host)
    spec: Spec = {
        "ociVersion": OCI_VERSION_ID_MAPPED if idmap_binds else OCI_VERSION,
        "process": process,
        "root": {"path": rootfs, "readonly": options.read_only},
        "hostname": hostname,
        "mounts": all_mounts,
        "annotations": annotations,
        "linux": linux,
    }
    if options.domainname:
        spec["domainname"] = _domain(options.domainname)
    if options.uts:
        _share_uts(options, spec)
    return spec


def _domain(name: str) -> str:
    if len(name.encode()) > _HOSTNAME_MOST or not name.isprintable():
        raise UsageError(f"invalid domain name {name!r}", f"use at most {_HOSTNAME_MOST} characters")
    return name


def _share_uts(options: RunOptions, spec: Spec) -> None:
    """Leave out the UTS namespace, for the host's names."""
    if options.hostname or options.domainname:
        name = "--hostname" if options.hostname else "--domainname"
        raise UsageError(f"{name} and --uts host exclude each other", "it would change the host's name")
    del spec["hostname"]
    linux = spec["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "uts"]


def complete(spec: Spec) -> Spec:
    """Return a copy with ``linux.seccomp`` written out, for readers outside this process."""
    from minibox.linux.seccomp.default_profile import default_profile

    annotations = dict(spec.get("annotations") or {})
    if annotations.pop(SECCOMP_ANNOTATION, "") != DEFAULT_PROFILE:
        return spec
    bounding = spec.get("process", {}).get("capabilities", {}).get("bounding", [])
    linux: Linux = {**spec.get("linux", {}), "seccomp": default_profile(bounding)}
    return {**spec, "annotations": annotations, "linux": linux}


def container_hostname(options: RunOptions, host: HostFacts, container_id: str, network: str) -> str:
    """Return ``--hostname``; else the host's name on the host's network, or the first 12 digits of the id.

    Raises:
        UsageError: not a host name.
    """
    name = options.hostname
    if not name:
        return host.hostname if network == "host" or options.uts else container_id[:12]
    parts = name.split(".")
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if len(name) > _HOSTNAME_MOST or not plain.isascii() or not plain.isalnum():
        raise UsageError(f"invalid hostname {name!r}", hint="use at most 64 letters, digits, '-' and '.'")
    if any(not part or part[0] == "-" or part[-1] == "-" for part in parts):
        raise UsageError(f"invalid hostname {name!r}", hint="each part must begin and end with a letter or digit")
    return name


def labels(options: RunOptions, config: dict[str, Any]) -> dict[str, str]:
    """Return the image's labels, overridden by the user's.

    Raises:
        UsageError: a label without a key.
    """
    result: dict[str, str] = dict(config.get("Labels") or {})
    for label in options.label:
        if not label.name or "\0" in label.name + label.value:
            raise UsageError(f"invalid label {str(label)!r}", hint="write key=value")
        result[label.name] = label.value
    return result


def _annotations(options: RunOptions, config: dict[str, Any], security: Security) -> dict[str, str]:
    annotations = labels(options, config) | {each.name: each.value for each in options.annotation}
    stop_signal = options.stop_signal or config.get("StopSignal") or ""
    if stop_signal:
        from minibox.linux.signals import signal_number

        signal_number(stop_signal)
        annotations[STOP_SIGNAL_ANNOTATION] = stop_signal
    annotations.pop(SECCOMP_ANNOTATION, None)  # an image must not set it
    if security.seccomp == "default":
        annotations[SECCOMP_ANNOTATION] = DEFAULT_PROFILE
    return annotations


def _process(
    options: RunOptions,
    config: dict[str, Any],
    args: list[str],
    user: ResolvedUser,
    hostname: str,
    capabilities: list[str],
    host: HostFacts,
) -> Process:
    entries = read_env_files(options.env_file, host.read, host.environ)
    cwd = options.workdir or config.get("WorkingDir") or "/"
    if not cwd.startswith("/") or "\0" in cwd:
        raise UsageError(f"working directory {cwd!r} is not absolute", hint="begin it with /")
    # execve as an ordinary user drops what root would keep. Docker writes that into the Spec; so do we.
    held = capabilities if user.uid == 0 else []
    process: Process = {
        "terminal": options.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)},
        "args": args,
        "env": environment(
            config.get("Env") or (),
            (*entries, *options.env),
            host.environ,
            hostname=hostname,
            home=user.home,
            tty=options.tty,
        ),
        "cwd": cwd,
        "capabilities": {"bounding": capabilities, "effective": held, "permitted": held},
    }
    if options.ulimit or options.cpu_time_s:
        process["rlimits"] = rlimits((*_cpu_backstop(options), *options.ulimit))
    if options.oom_score_adj is not None:
        process["oomScoreAdj"] = oom_score_adj(options.oom_score_adj)
    return process


def _cpu_backstop(options: RunOptions) -> tuple[Ulimit, ...]:
    """Limit each process to about the CPU time of all together, in case the watcher of the total dies."""
    if not options.cpu_time_s:
        return ()
    from minibox.docker_words.limits import Ulimit

    return (Ulimit("cpu", int(options.cpu_time_s) + 2, int(options.cpu_time_s) + 2),)


def process_args(options: RunOptions, config: dict[str, Any]) -> list[str]:
    """Return the arguments of the container's first process.

    Raises:
        UsageError: there is no command.
    """
    if options.idle:
        return [INIT_DESTINATION, "--"]
    args = _args(options, config)
    return [INIT_DESTINATION, "--", *args] if options.init else args


def _args(options: RunOptions, config: dict[str, Any]) -> list[str]:
    """Combine command and entrypoint as Docker does: ``--entrypoint`` replaces the image's and drops its Cmd."""
    entrypoint, command = config.get("Entrypoint") or [], list(options.command)
    if options.entrypoint is not None:
        entrypoint = [options.entrypoint] if options.entrypoint else []
    elif not command:
        command = config.get("Cmd") or []
    args = [*entrypoint, *command]
    if not args:
        raise UsageError("no command specified, and the image has none", hint="minibox run IMAGE COMMAND")
    if any("\0" in arg for arg in args):
        raise UsageError("an argument of the command contains a NUL byte")
    if not args[0]:
        raise UsageError("the command is an empty string")
    return args


def _mapped(user: ResolvedUser, mappings: IdMappings | None, options: RunOptions) -> ResolvedUser:
    """Check a user against the id mappings. Unmapped groups that only /etc/group lists are left out."""
    if mappings is None:
        return user
    for what, number, ranges in (("uid", user.uid, mappings.uids), ("gid", user.gid, mappings.gids)):
        if not _contains(ranges, number):
            raise UsageError(
                f"{what} {number} is not mapped in the container's user namespace",
                hint=f"use an id below {ranges[-1]['containerID'] + ranges[-1]['size']}, or --userns host for all ids"
                if mappings.lease
                else "give your user more ids in /etc/subuid and /etc/subgid, or run as root",
            )
    if not _single(mappings.gids) and all(_contains(mappings.gids, gid) for gid in user.additional_gids):
        return user
    if options.group_add:
        raise UsageError(
            "can't add groups: the container's user namespace doesn't map them",
            hint="give your user ids in /etc/subgid",
        )
    # Without a mapped range, setgroups(2) is denied (user_namespaces(7)), so there can be no groups.
    groups = () if _single(mappings.gids) else tuple(g for g in user.additional_gids if _contains(mappings.gids, g))
    return type(user)(user.uid, user.gid, groups, user.home, user.name)


def _contains(ranges: tuple[LinuxIDMapping, ...], number: int) -> bool:
    return any(each["containerID"] <= number < each["containerID"] + each["size"] for each in ranges)


def _single(ranges: tuple[LinuxIDMapping, ...]) -> bool:
    return sum(each["size"] for each in ranges) == 1


def _default_mounts(options: RunOptions, security: Security, network: str, mappings: IdMappings | None) -> list[Mount]:
    """Return the mounts of every container: "Default Filesystems" of config-linux.md, with Docker's options."""
    if not 0 <= options.shm_size_bytes < 1 << 63:
        raise UsageError(f"invalid shm-size {options.shm_size_bytes}", hint="write a size as 64m")
    quiet = ["nosuid", "noexec", "nodev"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if mappings is None or _contains(mappings.gids, _TTY_GID):
        pts.append(f"gid={_TTY_GID}")  # an unmapped gid makes the mount fail with EINVAL
    shm_bytes, dev_bytes = options.shm_size_bytes or SHM_BYTES, 64 << 20
    if options.disk_bytes:  # these are memory too: a program whose root is limited could fill them instead
        dev_bytes = DEV_BYTES_LIMITED
        shm_bytes = min(shm_bytes, options.disk_bytes) if shm_bytes == SHM_BYTES else shm_bytes
    shm = [*quiet, "mode=1777", f"size={shm_bytes}"]
    sys: Mount = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": list(quiet)}
    if network == "host" and mappings is not None:
        # sysfs shows the network namespace's devices: only the namespace's owner may mount it.
        sys = {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "rslave", *quiet, "rro"]}
    elif not options.privileged:
        sys["options"].append("ro")
    cgroup = list(quiet) if security.writable_cgroups else [*quiet, "ro"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": list(quiet)},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", f"size={dev_bytes >> 10}k"],
        },
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": shm},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": list(quiet)},
        sys,
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": cgroup},
    ]


def asked_mounts(
    options: RunOptions,
    config: dict[str, Any],
    host: HostFacts,
    *,
    root: str,
    container_id: str,
    idmap_binds: bool = False,
) -> UserMounts:
    """`mount_options.user_mounts`, which is imported only if the options or the image ask for mounts."""
    if not (options.volume or options.mount or options.tmpfs or config.get("Volumes")):
        return UserMounts()
    from minibox.engine.spec.mount_options import user_mounts

    return user_mounts(options, config, host, root=root, container_id=container_id, idmap_binds=idmap_binds)


def _without(ours: list[Mount], mounts: UserMounts) -> list[Mount]:
    """Drop our mounts that the user replaces; a user's own /dev replaces everything below it too."""
    taken = {mount["destination"] for mount in mounts.mounts}
    gone = "/dev/" if "/dev" in taken else "\0"
    return [each for each in ours if each["destination"] not in taken and not each["destination"].startswith(gone)]


def _file_mounts(files: Mapping[str, str], idmap: bool, *, read_only: bool) -> list[Mount]:
    """``read_only``: set if the root is, and if the disk is limited, since these files lie on the host's disk."""
    options = ["bind", "rprivate", *(["idmap"] if idmap else []), *(["ro"] if read_only else [])]
    return [
        {"destination": path, "type": "bind", "source": source, "options": list(options)}
        for path, source in files.items()
    ]


def _init_mount(init_path: str) -> Mount:
    if not init_path:
        raise ConfigError("--init: this installation has no minibox-init", hint="install minibox again: pip install .")
    return {
        "destination": INIT_DESTINATION,
        "type": "bind",
        "source": init_path,
        "options": ["bind", "rprivate", "nosuid", "nodev", "ro"],
    }


def _linux(options: RunOptions, security: Security, network: str, mappings: IdMappings | None) -> Linux:
    result: Linux = {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]}
    result["namespaces"].append({"type": "cgroup"})
    if network != "host":
        result["namespaces"].append({"type": "network"})
    if mappings is not None:
        result["namespaces"].append({"type": "user"})
        result["uidMappings"], result["gidMappings"] = list(mappings.uids), list(mappings.gids)
    if options.time_offset_s is not None:
        result["namespaces"].append({"type": "time"})
        result["timeOffsets"] = {clock: {"secs": options.time_offset_s} for clock in ("monotonic", "boottime")}
    result["sysctl"] = sysctls(options.sysctl, host_network=network == "host", user_namespace=mappings is not None)
    result["rootfsPropagation"] = "private"
    result["maskedPaths"] = list(MASKED_PATHS) if security.system_paths else []
    result["readonlyPaths"] = list(READONLY_PATHS) if security.system_paths else []
    return result
