"""Mutated specs for `minibox-oci`: one that works, and up to three changes of it."""

from __future__ import annotations

import copy
import random
from typing import Any

SCRIPT = """
id; pwd; hostname; env | sort; ulimit -n; cat /proc/self/oom_score_adj /proc/self/cgroup
grep -E '^(Cap|NoNewPrivs|Seccomp|Groups)' /proc/self/status
cut -d ' ' -f 4- /proc/self/mountinfo; ls -ln /dev / | cut -c 1-10
read nothing </gate/fifo
exit 3
"""
CAPABILITIES = ["CAP_KILL", "CAP_CHOWN", "CAP_NET_BIND_SERVICE"]
BASE: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "cwd": "/", "args": ["sh", "-c", SCRIPT], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        "noNewPrivileges": True,
    },
    "root": {"path": "{work}/rootfs"},
    "hostname": "oci",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        {"destination": "/gate", "type": "bind", "source": "{work}/gate", "options": ["rbind"]},
    ],
    "linux": {
        "cgroupsPath": "{cgroup}",
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network")],
        "maskedPaths": ["/proc/kcore", "/proc/keys"], "readonlyPaths": ["/proc/sys"],
    },
}  # fmt: skip
IDS = [{"containerID": 0, "hostID": 70000, "size": 65536}]
HOOK = {"path": "/bin/sh", "args": ["sh", "-c", "cat >>{work}/hooks-{case}"]}

#: A path of keys, and what is put there; None takes it away.
CHANGES: list[tuple[str, Any]] = [
    ("process.user", {"uid": 1000, "gid": 1000, "additionalGids": [5, 6], "umask": 0o77}), ("process.user", {"uid": -1, "gid": 0}),
    ("process.args", ["/no/such"]), ("process.args", []), ("process.args", None), ("process.args", "sh"),
    ("process.cwd", "/tmp/new"), ("process.cwd", "relative"), ("process.env", ["PATH=/bin", "A=1", "A=2"]), ("process.env", ["=x"]),
    ("process.capabilities", None), ("process.capabilities", {"bounding": ["CAP_FLY"]}),
    ("process.capabilities", {name: ["CAP_KILL", "CAP_SYS_ADMIN"] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")}),
    ("process.noNewPrivileges", False), ("process.oomScoreAdj", 300), ("process.oomScoreAdj", 5000),
    ("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]), ("process.rlimits", [{"type": "RLIMIT_ODD", "soft": 1, "hard": 1}]),
    ("process.scheduler", {"policy": "SCHED_BATCH", "nice": 5}), ("process.scheduler", {"policy": "SCHED_ODD"}),
    ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 3}), ("process.execCPUAffinity", {"initial": "0", "final": "0"}),
    ("process.terminal", True), ("process.apparmorProfile", "mine"), ("process.selinuxLabel", "a:b:c:d"),
    ("root.readonly", True), ("root.path", "/no/such"), ("root", None), ("hostname", "x" * 70), ("domainname", "example.org"),
    ("linux.namespaces", [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network", "cgroup")]),
    ("linux.namespaces", [{"type": kind} for kind in ("pid", "mount")]), ("linux.namespaces", [{"type": "odd"}]),
    ("linux.namespaces", [{"type": "mount"}, {"type": "mount"}]), ("linux.namespaces", [{"type": "pid"}, {"type": "mount"}, {"type": "network", "path": "/proc/self/ns/mnt"}]),
    ("user", IDS), ("linux.uidMappings", IDS), ("linux.timeOffsets", {"monotonic": {"secs": 100}}),
    ("linux.sysctl", {"net.ipv4.ip_forward": "1"}), ("linux.sysctl", {"kernel.panic": "1"}), ("linux.sysctl", {"net.none": "1"}),
    ("linux.maskedPaths", []), ("linux.readonlyPaths", ["/proc/sys", "/proc/no-such"]), ("linux.rootfsPropagation", "slave"), ("linux.rootfsPropagation", "odd"),
    ("linux.devices", [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7, "gid": 8}]), ("linux.devices", [{"path": "/dev/odd", "type": "q"}]),
    ("linux.resources", {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}, "cpu": {"shares": 512, "quota": 50000, "period": 100000}}),
    ("linux.resources", {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rw"}]}),
    ("linux.resources", {"memory": {"limit": "many"}}), ("linux.resources", {"pids": {"limit": -1}, "unified": {"odd": "1"}}), ("linux.cgroupsPath", "../../x"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ODD"}), ("linux.seccomp", {"defaultAction": "SCMP_ACT_KILL", "architectures": ["SCMP_ARCH_X86_64"]}),
    ("linux.personality", {"domain": "LINUX32"}), ("linux.personality", {"domain": "ODD"}), ("linux.intelRdt", {"closID": "x"}),
    ("mount", {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "nosuid", "noexec"]}),
    ("mount", {"destination": "/data", "type": "bind", "source": "{work}/share", "options": ["bind", "ro"]}),
    ("mount", {"destination": "/data", "type": "bind", "source": "{work}/share", "options": ["rbind", "rprivate", "rro"]}),
    ("mount", {"destination": "/data", "type": "bind", "source": "{work}/no-such", "options": ["bind"]}),
    ("mount", {"destination": "relative", "type": "tmpfs"}), ("mount", {"destination": "/x", "type": "tmpfs", "options": ["odd=1"]}),
    ("mount", {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid"]}),
    ("mount", {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}),
    ("mount", {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"}), ("mount", {"destination": "/proc/x", "type": "bind", "source": "/", "options": ["bind"]}),
    ("hooks", {"prestart": [HOOK], "poststart": [HOOK], "poststop": [HOOK]}), ("hooks", {"createRuntime": [HOOK], "createContainer": [HOOK], "startContainer": [HOOK]}),
    ("hooks", {"createRuntime": [{"path": "/bin/false"}]}), ("hooks", {"prestart": [{"path": "relative"}]}),
    ("annotations", {"a.b": "c"}), ("annotations", {"a": 1}), ("ociVersion", "9.0.0"), ("ociVersion", None), ("process", None), ("linux", None), ("linux", []),
]  # fmt: skip

#: The life of a container, in words after ``minibox-oci --root ...``; ``ready`` waits until the process
#: is at the gate, ``gate`` lets it go on, ``ended`` waits for its end.
LIVES: list[list[list[str]]] = [
    [["create", "-b", "{bundle}", "--pid-file", "{work}/pid-{case}", "box"], ["state", "box"], ["start", "box"], ["ready"], ["gate"], ["delete", "box"]],
    [["create", "-b", "{bundle}", "box"], ["start", "box"], ["ready"], ["ps", "-f", "json", "box"], ["kill", "box", "KILL"], ["ended"], ["delete", "-f", "box"]],
    [["run", "-b", "{bundle}", "-d", "box"], ["ready"], ["exec", "--cwd", "/tmp", "-e", "B=2", "-u", "7:8", "box", "sh", "-c", "id; pwd; env | sort"], ["gate"], ["delete", "-f", "box"]],
    [["run", "-b", "{bundle}", "-d", "box"], ["ready"], ["exec", "-p", "{work}/process.json", "box"], ["update", "--pids-limit", "33", "box"], ["pause", "box"], ["state", "box"], ["resume", "box"], ["delete", "-f", "box"]],
    [["run", "-b", "{bundle}", "-d", "--no-pivot", "box"], ["ready"], ["exec", "--cap", "CAP_SYS_TIME", "--no-new-privs", "box", "grep", "Cap", "/proc/self/status"], ["kill", "box", "9"], ["ended"], ["delete", "-f", "box"]],
    [["run", "-b", "{bundle}", "-d", "--no-new-keyring", "box"], ["ready"], ["exec", "-t", "box", "sh", "-c", "read line; id"], ["exec", "box", "/no/such"], ["kill", "box", "ODD"], ["delete", "box"], ["delete", "-f", "box"]],
    [["create", "-b", "{bundle}", "--preserve-fds", "1", "box"], ["create", "-b", "{bundle}", "box"], ["list", "-q"], ["kill", "no-such", "9"], ["delete", "-f", "box"]],
]  # fmt: skip


def case(chance: random.Random, number: int) -> dict[str, Any]:
    """A spec with the change whose turn it is, and others; and what is done with it."""
    spec = copy.deepcopy(BASE)
    step = len(CHANGES) / 75
    changes = [CHANGES[int(number * step) % len(CHANGES)], *chance.sample(CHANGES, chance.choice((0, 0, 1, 2)))]
    for path, value in changes:
        change(spec, path, copy.deepcopy(value))
    return {"spec": spec, "life": LIVES[number % len(LIVES)]}


def change(spec: dict[str, Any], path: str, value: Any) -> None:
    """Put ``value`` at ``path``, unless an earlier change took away what is on its way."""
    if path == "mount":
        spec["mounts"].append(value)
        return
    if path == "user":
        if isinstance(spec.get("linux"), dict):
            spec["linux"] |= {"uidMappings": value, "gidMappings": value}
            spec["linux"]["namespaces"] = [*spec["linux"]["namespaces"], {"type": "user"}]
        return
    *way, last = path.split(".")
    place: Any = spec
    for key in way:
        place = place.get(key) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        return
    if value is None:
        place.pop(last, None)
    else:
        place[last] = value
