"""Specs of options, on a host that isn't there."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

from minibox.engine.host.ids import IdMappings
from minibox.engine.spec.host import HostFacts
from minibox.engine.spec.image_config import checked_config
from minibox.engine.spec.options import RunOptions, typed
from minibox.engine.spec.runtime_spec import make_spec

PASSWD = "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1::/:/bin/false\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n"
GROUP = "root:x:0:\naudio:x:29:ada,bin\nusers:x:100:\nada:x:1001:\ndocker:x:998:bin,ada\n"
FILES = {"/etc/passwd": PASSWD, "/etc/group": GROUP}
ID = "0123456789abcdef" * 4
RANGE = IdMappings(
    ({"containerID": 0, "hostID": 100000, "size": 65536},), ({"containerID": 0, "hostID": 100000, "size": 65536},)
)
SINGLE = IdMappings(({"containerID": 0, "hostID": 1000, "size": 1},), ({"containerID": 0, "hostID": 1000, "size": 1},))


def facts(**changes: Any) -> HostFacts:
    """A host with /src, /src/file, /dev/fuse and /dev/sda."""

    def look(path: str) -> os.stat_result:
        modes = {
            "/src": (stat.S_IFDIR | 0o755, 0),
            "/here/data": (stat.S_IFDIR | 0o755, 0),
            "/src/file": (stat.S_IFREG | 0o644, 0),
            "/dev": (stat.S_IFDIR | 0o755, 0),
            "/dev/snd": (stat.S_IFDIR | 0o755, 0),
            "/dev/snd/seq": (stat.S_IFCHR | 0o660, os.makedev(116, 1)),
            "/dev/fuse": (stat.S_IFCHR | 0o666, os.makedev(10, 229)),
            "/dev/sda": (stat.S_IFBLK | 0o660, os.makedev(8, 0)),
            "/dev/null": (stat.S_IFCHR | 0o666, os.makedev(1, 3)),
        }
        if "\0" in path:
            raise ValueError("embedded null byte")
        if path not in modes:
            raise FileNotFoundError(2, "No such file or directory", path)
        mode, rdev = modes[path]
        return os.stat_result((mode, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0, 0, 4096, 0, rdev))

    def read(path: str) -> bytes:
        files = {
            "env": b"# comment\nFROM_FILE=1\n\n  SPACED= x y \nCALLER\nMISSING\n",
            "profile": json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}).encode(),
        }
        if path not in files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return files[path]

    directories = {"/dev": ["fuse", "null", "sda", "snd", "gone"], "/dev/snd": ["seq"]}
    known: dict[str, Any] = {
        "environ": {"CALLER": "mine"},
        "cwd": "/here",
        "hostname": "thehost",
        "cpus": 4,
        "stat": look,
        "lstat": look,
        "read": read,
        "list_dir": lambda path: directories.get(path, []),
    }
    return HostFacts(**{**known, **changes})


def spec_of(config: dict[str, Any] | None = None, *, given: dict[str, Any] | None = None, **options: Any) -> Any:
    """The Spec of options for an image with ``Cmd: [sh]``."""
    arguments: dict[str, Any] = {"host": facts(), **(given or {})}
    return make_spec(
        RunOptions(image="base", **typed(options)),
        checked_config({"config": {"Cmd": ["sh"]} if config is None else config}),
        lookup=lambda path: FILES[path],
        container_id=ID,
        rootfs="/bundle/rootfs",
        root="/root-dir",
        **arguments,
    )


def mount_at(spec: Any, destination: str) -> Any:
    (found,) = [mount for mount in spec["mounts"] if mount["destination"] == destination]
    return found
