# missing: shares the machine's pid namespace: the type pid is missing

import json
import os
import shutil
import signal

SETS = ("bounding", "effective", "permitted")

config = {
    "ociVersion": "1.0.2",
    "hostname": "bundle",
    "root": {"path": "rootfs", "readonly": True},
    "process": {
        "terminal": False,
        "args": ["/bin/sh", "-c", "echo ready; exec sleep 100000"],
        "env": ["PATH=/usr/bin:/bin"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "capabilities": {name: ["CAP_KILL"] for name in SETS},
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}],
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "size=1m"]},
        {"destination": "/shared", "type": "bind", "source": "/srv/shared", "options": ["bind", "ro"]},
    ],
    "linux": {"namespaces": [{"type": name} for name in ("mount", "uts", "ipc")]},
}

os.makedirs("/srv/bundle")
shutil.copytree("/rootfs", "/srv/bundle/rootfs", symlinks=True)
with open("/srv/bundle/config.json", "w") as file:
    json.dump(config, file)

print("ready")
signal.pause()
