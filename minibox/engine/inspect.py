"""Images and containers in the words of `docker inspect`: its names of fields, as far as minibox knows what to say.

Source: https://docs.docker.com/reference/api/engine/, ImageInspect and ContainerInspect.
"""

from __future__ import annotations

import datetime
import os

from minibox.engine import health, ownership, removal, state
from minibox.engine.disk import written_bytes
from minibox.engine.images import disk_usage
from minibox.errors import ContainerNotFound, ImageNotFound, InvalidReference, MiniboxError, StoreError
from minibox.image.inventory import find, inventory
from minibox.image.layout import Layout
from minibox.network import lease
from minibox.storage import DRIVERS, read_record, snapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.image.inventory import StoredImage

NO_TIME = "0001-01-01T00:00:00Z"
#: Docker's member of HostConfig, our option, and what it is when it wasn't given.
HOST_CONFIG: tuple[tuple[str, str, Any], ...] = (
    ("NetworkMode", "network", "default"), ("AutoRemove", "rm", False), ("Privileged", "privileged", False),
    ("ReadonlyRootfs", "read_only", False), ("Init", "init", False), ("UsernsMode", "userns", ""),
    ("Memory", "memory_bytes", 0), ("MemorySwap", "memory_swap_bytes", 0), ("CpuShares", "cpu_shares", 0),
    ("CpusetCpus", "cpuset_cpus", ""), ("PidsLimit", "pids_limit", None), ("ShmSize", "shm_size_bytes", 64 << 20),
    ("OomScoreAdj", "oom_score_adj", 0), ("CapAdd", "cap_add", None), ("CapDrop", "cap_drop", None),
    ("SecurityOpt", "security_opt", None), ("GroupAdd", "group_add", None), ("Dns", "dns", []),
    ("ExtraHosts", "add_host", None), ("Tmpfs", "tmpfs", None), ("Devices", "device", []), ("Ulimits", "ulimit", None),
    ("Sysctls", "sysctl", None), ("ContainerIDFile", "cidfile", ""),
)  # fmt: skip


def inspect(name: str, *, root: str, runroot: str, kind: str = "", with_size: bool = False) -> dict[str, Any]:
    """The container or the image of that name or id; of a name that both have, the container.

    Args:
        kind: "container", "image", or "" for whichever there is.
        with_size: for a container, what it takes of the disk too.

    Raises:
        ContainerNotFound, ImageNotFound: there is none.
        StoreError: the image is damaged.
    """
    if kind not in ("", "container", "image"):
        raise MiniboxError(f"unknown type {kind!r}", "one of container, image")
    if kind != "image":
        removal.collect(root, runroot)
        try:
            return container_document(state.find(root, name), root, runroot, with_size)
        except ContainerNotFound:
            if kind:
                raise
    try:
        return image_document(name, root)
    except (ImageNotFound, InvalidReference) as error:
        if kind:
            raise
        raise ImageNotFound(f"no container and no image {name!r}", "minibox ps --all; minibox images") from error


def image_document(reference: str, root: str) -> dict[str, Any]:
    """An image of the store as Docker's ImageInspect.

    Raises:
        ImageNotFound: there is none.
        StoreError: it is damaged.
    """
    images = inventory(Layout(root))
    image, _ = find(images, reference)
    if image.error:
        raise StoreError(image.error, image.hint or None)
    process = image.config.get("config")
    history = image.config.get("history")
    last = history[-1] if isinstance(history, list) and history and isinstance(history[-1], dict) else {}
    entry = image.entries[0]
    repositories = dict.fromkeys((name.repository, name.digest) for name in image.names)
    return {
        "Id": image.id,
        "RepoTags": [name.familiar for name in image.names if "@" not in name.familiar],
        "RepoDigests": [f"{repository}@{digest}" for repository, digest in repositories],
        "Parent": "",
        "Comment": str(last.get("comment") or ""),
        "Created": image.created,
        "DockerVersion": "",
        "Author": str(image.config.get("author") or ""),
        "Architecture": image.config.get("architecture", ""),
        "Variant": image.config.get("variant", ""),
        "Os": image.config.get("os", ""),
        "Size": disk_usage(root, images).images[images.index(image)].size_bytes,
        "GraphDriver": _graph_driver(root, image),
        "RootFS": {"Type": "layers", "Layers": [diff_id for _, diff_id in image.layers]},
        "Metadata": {"LastTagTime": NO_TIME},
        "Descriptor": {key: entry[key] for key in ("mediaType", "digest", "size", "annotations") if key in entry},
        "Config": _image_config(process if isinstance(process, dict) else {}),
    }


def _image_config(process: dict[str, Any]) -> dict[str, Any]:
    """The members that Docker always shows, and whatever else the image has."""
    usual: dict[str, Any] = {
        "User": "", "ExposedPorts": None, "Env": None, "Entrypoint": None, "Cmd": None, "Volumes": None,
        "WorkingDir": "", "Labels": None, "StopSignal": "", "Healthcheck": None, "OnBuild": None, "Shell": None,
    }  # fmt: skip
    return {**usual, **process}


def _graph_driver(root: str, image: StoredImage) -> dict[str, Any]:
    for driver in DRIVERS:
        storage = snapshotter(root, driver)
        if storage.is_unpacked(image.chain_ids):
            lowers = storage.describe("none", image.chain_ids).lowers
            data = {"UpperDir": lowers[0]}
            return {"Name": driver, "Data": {**data, **({"LowerDir": ":".join(lowers[1:])} if lowers[1:] else {})}}
    return {"Name": "", "Data": None}


def container_document(found: dict[str, Any], root: str, runroot: str, with_size: bool = False) -> dict[str, Any]:
    """A container as Docker's ContainerInspect; what only its options knew isn't there for one run with ``--rm``."""
    command = [str(word) for word in found.get("Command") or []]
    status = str(found.get("Status", ""))
    options = found["Options"] if isinstance(found.get("Options"), dict) else {}
    config = found.get("Config")
    mounts = found.get("Mounts")
    pid = max(ownership.live_process(root, found["Id"]), 0)
    document: dict[str, Any] = {
        "Id": found["Id"],
        "Created": _time(found.get("Created")),
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": {
            "Status": status,
            "Running": status in state.ALIVE,
            "Paused": status == "paused",
            "Restarting": status == "restarting",
            "OOMKilled": bool(found.get("OOMKilled")),
            "Dead": status == "damaged",
            "Pid": pid,
            "ExitCode": found.get("ExitCode") or 0,
            "Error": str(found.get("Error") or ""),
            "StartedAt": _time(found.get("Started") or found.get("Created")),
            "FinishedAt": _time(found.get("Finished")),
            **({"Health": results} if (results := health.status(root, found["Id"], found)) else {}),
        },
        "Image": found.get("ImageId", ""),
        "ResolvConfPath": f"{root}/containers/{found['Id']}/resolv.conf",
        "HostnamePath": f"{root}/containers/{found['Id']}/hostname",
        "HostsPath": f"{root}/containers/{found['Id']}/hosts",
        "LogPath": "",
        "Name": f"/{found['Name']}" if found.get("Name") else "",
        "RestartCount": found.get("RestartCount") or 0,
        "Driver": "",
        "Platform": "linux",
        "GraphDriver": {"Name": "", "Data": None},
        "Mounts": [_mount(mount, root) for mount in mounts] if isinstance(mounts, list) else [],
        "Config": {
            **_image_config(config if isinstance(config, dict) else {}),
            "Hostname": options.get("hostname") or found["Id"][:12],
            "Tty": bool(options.get("tty")),
            "OpenStdin": bool(options.get("interactive")),
            "Image": found.get("Image", ""),
            "Labels": found.get("Labels") or {},
        },
        "HostConfig": _host_config(options),
        "NetworkSettings": _network_settings(found["Id"], runroot),
    }
    snapshot = read_record(root, found["Id"])
    if snapshot:
        driver, chain_ids = snapshot
        described = snapshotter(root, driver).describe(found["Id"], chain_ids)
        data = {"LowerDir": ":".join(described.lowers), "UpperDir": described.upper}
        document["Driver"] = driver
        document["GraphDriver"] = {"Name": driver, "Data": data}
        if with_size:
            document["SizeRw"] = written_bytes(root, found["Id"])
            below = sum(snapshotter(root, driver).layer_bytes(chain_id) for chain_id in chain_ids)
            document["SizeRootFs"] = document["SizeRw"] + below
    return document


def _host_config(options: dict[str, Any]) -> dict[str, Any]:
    """The options of the run in Docker's words and units."""
    found = {words: options.get(name, default) for words, name, default in HOST_CONFIG}
    found["NanoCpus"] = int(1e9 * (options.get("cpus") or 0))
    found["Binds"] = list(options.get("volume") or ()) or None
    found["LogConfig"] = {"Type": "none", "Config": {}}
    found["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
    return found


def _network_settings(container_id: str, runroot: str) -> dict[str, Any]:
    """The address on a bridge, while it has one."""
    for bridge in lease.bridges(runroot):
        for address, holder in lease.leased(lease.directory(runroot, bridge)).items():
            if holder == container_id:
                return {"Bridge": bridge, "IPAddress": address, "Networks": {"bridge": {"IPAddress": address}}}
    return {"Bridge": "", "IPAddress": "", "Networks": {}}


def _mount(mount: dict[str, Any], root: str) -> dict[str, Any]:
    """A mount of state.json in Docker's words."""
    source, read_only = str(mount.get("Source", "")), bool(mount.get("ReadOnly"))
    words = {"Source": source, "Destination": mount.get("Destination", ""), "Mode": "", "RW": not read_only}
    if "/volumes/" in source and source.startswith(f"{root}/"):
        name = os.path.basename(source.removesuffix("/_data"))
        return {"Type": "volume", "Name": name, "Driver": "local", **words, "Propagation": ""}
    return {"Type": "bind", **words, "Propagation": "rprivate"}


def _time(seconds: object) -> str:
    """RFC 3339 with nanoseconds, as Go writes it; Go's zero time for none."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        return NO_TIME
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
