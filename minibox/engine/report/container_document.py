"""A container in the format of `docker inspect`.

Source: https://docs.docker.com/reference/api/engine/, ContainerInspect.
"""

from __future__ import annotations

import datetime
import os

from minibox.docker_words.devices import parse_device, parse_device_bps, parse_device_iops, parse_device_weight
from minibox.docker_words.life import parse_restart
from minibox.docker_words.limits import parse_ulimit
from minibox.docker_words.ports import bindings
from minibox.engine.container import health
from minibox.engine.report.listing import labels_of, mounts_of, ports_of, volume_name, with_ports
from minibox.engine.state import claim
from minibox.engine.state.log_file import log_path
from minibox.engine.upkeep import networks
from minibox.engine.upkeep.disk import written_bytes
from minibox.network import lease
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import read_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.base.home import Home

NO_TIME = "0001-01-01T00:00:00Z"
#: Docker's member of HostConfig, our option, and its default.
HOST_CONFIG: tuple[tuple[str, str, Any], ...] = (
    ("ContainerIDFile", "cidfile", ""), ("NetworkMode", "network", "default"), ("AutoRemove", "rm", False),
    ("CapAdd", "cap_add", None), ("CapDrop", "cap_drop", None), ("Dns", "dns", []), ("DnsSearch", "dns_search", []),
    ("DnsOptions", "dns_option", []), ("ExtraHosts", "add_host", None),
    ("GroupAdd", "group_add", None), ("OomScoreAdj", "oom_score_adj", 0), ("Privileged", "privileged", False),
    ("ReadonlyRootfs", "read_only", False), ("SecurityOpt", "security_opt", None), ("UsernsMode", "userns", ""),
    ("ShmSize", "shm_size_bytes", 64 << 20), ("CpuShares", "cpu_shares", 0), ("Memory", "memory_bytes", 0),
    ("CpusetCpus", "cpuset_cpus", ""), ("CpusetMems", "cpuset_mems", ""), ("MemoryReservation", "memory_reservation_bytes", 0),
    ("CpuPeriod", "cpu_period_us", 0), ("CpuQuota", "cpu_quota_us", 0), ("BlkioWeight", "blkio_weight", 0),
    ("PidsLimit", "pids_limit", None), ("Init", "init", False), ("KernelMemory", "kernel_memory_bytes", 0),
    ("MemorySwappiness", "memory_swappiness", None), ("OomKillDisable", "oom_kill_disable", False),
    ("CpuRealtimePeriod", "cpu_rt_period_us", 0), ("CpuRealtimeRuntime", "cpu_rt_runtime_us", 0),
    ("DeviceCgroupRules", "device_cgroup_rule", None), ("UTSMode", "uts", ""),
    ("PublishAllPorts", "publish_all", False),
)  # fmt: skip
#: Members of HostConfig for which minibox has no option.
HOST_CONFIG_REST: dict[str, Any] = {
    "VolumeDriver": "", "VolumesFrom": None, "CgroupnsMode": "private", "IpcMode": "private", "PidMode": "",
    "Runtime": "minibox", "Isolation": "", "CgroupParent": "",
}  # fmt: skip
#: Docker's lists of limits for single disks, our option, and what a member's number is called.
DISK_LIMITS = (
    ("BlkioWeightDevice", "blkio_weight_device", parse_device_weight, "Weight"),
    ("BlkioDeviceReadBps", "device_read_bps", parse_device_bps, "Rate"),
    ("BlkioDeviceWriteBps", "device_write_bps", parse_device_bps, "Rate"),
    ("BlkioDeviceReadIOps", "device_read_iops", parse_device_iops, "Rate"),
    ("BlkioDeviceWriteIOps", "device_write_iops", parse_device_iops, "Rate"),
)
#: The members of an image's config that Docker always shows.
CONFIG: dict[str, Any] = {
    "User": "", "ExposedPorts": None, "Env": None, "Entrypoint": None, "Cmd": None, "Volumes": None,
    "WorkingDir": "", "Labels": None, "StopSignal": "", "Healthcheck": None, "OnBuild": None, "Shell": None,
}  # fmt: skip


def container_document(home: Home, found: dict[str, Any], with_size: bool = False) -> dict[str, Any]:
    """A container as Docker's ContainerInspect. For ``--rm``, what only the options tell is missing.

    Args:
        found: its state.
        with_size: add its size on disk.
    """
    container_id: str = found["Id"]
    directory = f"{home.root}/containers/{container_id}"
    command = [str(word) for word in found.get("Command") or []]
    options = found["Options"] if isinstance(found.get("Options"), dict) else {}
    config = found["Config"] if isinstance(found.get("Config"), dict) else {}
    log = log_path(home.root, container_id)
    pid = max(claim.live_process(home.root, container_id), 0)
    document: dict[str, Any] = {
        "Id": container_id,
        "Created": format_time(found.get("Created")),
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": _state(found, home.root, pid),
        "Image": found.get("ImageId", ""),
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": log if os.path.exists(log) else "",
        "Name": f"/{found['Name']}" if found.get("Name") else "",
        "RestartCount": found.get("RestartCount") or 0,
        "Driver": "",
        "Platform": "linux",
        "AppArmorProfile": _apparmor(options),
        "HostConfig": _host_config(options, log),
        "GraphDriver": {"Name": "", "Data": None},
        "Mounts": [_mount(mount) for mount in mounts_of(found)],
        "Config": {
            "Hostname": options.get("hostname") or container_id[:12],
            "Domainname": options.get("domainname") or "",
            "Tty": bool(options.get("tty")),
            "OpenStdin": bool(options.get("interactive")),
            **CONFIG,
            **config,
            "Image": found.get("Image", ""),
            "Labels": labels_of(found),
            "StopTimeout": options.get("stop_timeout_s"),
        },
        "NetworkSettings": {
            **_network_settings(home, container_id, pid),
            "Ports": _ports(with_ports(found, home.root)),
        },
    }
    snapshot = read_record(home.root, container_id)
    if snapshot:
        driver, chain_ids = snapshot
        storage = snapshotter(home.root, driver)
        described = storage.describe(container_id, chain_ids)
        data = {"LowerDir": ":".join(described.lowers), "UpperDir": described.upper}
        document |= {"Driver": driver, "GraphDriver": {"Name": driver, "Data": data}}
        if with_size:
            own = written_bytes(home.root, container_id)
            below = sum(storage.layer_bytes(chain_id) for chain_id in chain_ids)
            document |= {"SizeRw": own, "SizeRootFs": own + below}
    return document


def _state(found: dict[str, Any], root: str, pid: int) -> dict[str, Any]:
    status = str(found.get("Status", ""))
    results = health.status(root, found["Id"], found)
    return {
        "Status": status,
        "Running": status in ("running", "paused", "restarting"),  # as in Docker
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": bool(found.get("OOMKilled")),
        "Dead": status == "damaged",
        "Pid": pid,
        "ExitCode": found.get("ExitCode") or 0,
        "Error": str(found.get("Error") or ""),
        "StartedAt": format_time(found.get("Started") or (found.get("Created") if pid else None)),
        "FinishedAt": format_time(found.get("Finished")),
        **({"Health": results} if results else {}),
    }


def _apparmor(options: dict[str, Any]) -> str:
    words = [word for word in options.get("security_opt") or () if isinstance(word, str)]
    return next(
        (word[len("apparmor=") :] for word in reversed(words) if word.startswith(("apparmor=", "apparmor:"))), ""
    )


def _host_config(options: dict[str, Any], log: str) -> dict[str, Any]:
    """The options of the run, with Docker's names and units."""
    found = {words: options.get(name, default) for words, name, default in HOST_CONFIG}
    memory = options.get("memory_bytes") or 0
    policy = parse_restart(options.get("restart") or "no")
    logged = options.get("log_driver") != "none" and (options.get("detach") or os.path.exists(log))
    return {
        **HOST_CONFIG_REST,
        **found,
        "Binds": list(options.get("volume") or ()) or None,
        "PortBindings": bindings(options.get("publish") or ()),
        "LogConfig": {
            "Type": "json-file" if logged else "none",
            "Config": dict(word.partition("=")[::2] for word in options.get("log_opt") or ()),
        },
        "RestartPolicy": {"Name": policy.name, "MaximumRetryCount": policy.attempts or 0},
        "MemorySwap": options.get("memory_swap_bytes") or 2 * memory,
        "NanoCpus": int(1e9 * (options.get("cpus") or 0)),
        "Tmpfs": dict(word.partition(":")[::2] for word in options.get("tmpfs") or ()) or None,
        "Sysctls": dict(word.partition("=")[::2] for word in options.get("sysctl") or ()) or None,
        "Devices": [
            {"PathOnHost": each.source, "PathInContainer": each.path, "CgroupPermissions": each.access}
            for each in map(parse_device, options.get("device") or ())
        ],
        "Ulimits": [
            {"Name": each.name, "Soft": each.soft, "Hard": each.hard}
            for each in map(parse_ulimit, options.get("ulimit") or ())
        ]
        or None,
        "Annotations": dict(word.partition("=")[::2] for word in options.get("annotation") or ()) or None,
        **{
            name: [{"Path": each.path, number: each.number} for each in map(parse, options.get(field) or ())]
            for name, field, parse, number in DISK_LIMITS
        },
    }


def _network_settings(home: Home, container_id: str, pid: int) -> dict[str, Any]:
    """Its addresses on bridges, while it has any."""
    settings: dict[str, Any] = {
        "Bridge": "", "SandboxKey": f"/proc/{pid}/ns/net" if pid else "", "Gateway": "", "IPAddress": "",
        "IPPrefixLen": 0, "MacAddress": "", "Networks": {},
    }  # fmt: skip
    for name, (held, names) in networks.places(home, container_id).items():
        place = {
            "Gateway": held.gateway, "IPAddress": held.address, "IPPrefixLen": held.prefix_length,
            "MacAddress": lease.mac_text(held.address),
        }  # fmt: skip
        if name == networks.DEFAULT:  # as in Docker: other networks are shown below their name only
            settings |= {"Bridge": held.bridge, **place}
        settings["Networks"][name] = {**place, "Aliases": names or None, "DNSNames": names or None}
    return settings


def _ports(found: dict[str, Any]) -> dict[str, list[dict[str, str]] | None]:
    shown: dict[str, list[dict[str, str]] | None] = {}
    for number, protocol, address, port in ports_of(found):
        places = shown.setdefault(f"{number}/{protocol}", None) or []
        if port:
            shown[f"{number}/{protocol}"] = [*places, {"HostIp": address, "HostPort": str(port)}]
    return shown


def _mount(mount: dict[str, Any]) -> dict[str, Any]:
    """A mount of state.json in Docker's format."""
    source, read_only = str(mount.get("Source", "")), bool(mount.get("ReadOnly"))
    words = {"Source": source, "Destination": mount.get("Destination", ""), "Mode": "", "RW": not read_only}
    if name := volume_name(source):
        return {"Type": "volume", "Name": name, "Driver": "local", **words, "Propagation": ""}
    return {"Type": "bind", **words, "Propagation": "rprivate"}


def format_time(seconds: object) -> str:
    """Format a time as Go does: RFC 3339 with nanoseconds; Go's zero time for none."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        return NO_TIME
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
