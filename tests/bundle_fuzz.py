"""Valid, unusual bundles, each of a seed; what a process in one sees; and what of that differs between runtimes."""

from __future__ import annotations

import os
import random
import re
import shutil
from typing import Any

from minibox.linux.capabilities import NAMES
from tests.oci_runtime import Runtime

SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
#: What a container may be given wherever tests run.
CAPABILITIES = [name for name in NAMES if name not in ("CAP_SYS_RESOURCE", "CAP_PERFMON", "CAP_BPF")][:36]
LIMITS = (("RLIMIT_NOFILE", 64, 512), ("RLIMIT_CORE", 0, 1000), ("RLIMIT_FSIZE", 1 << 20, 1 << 30),
          ("RLIMIT_CPU", 100, 1000), ("RLIMIT_STACK", 1 << 20, 8 << 20), ("RLIMIT_DATA", 1 << 28, 1 << 30))  # fmt: skip
#: Each section is compared by itself.
REPORT = r"""
section() { echo "== $1"; }
section env; /bin/busybox env | /bin/busybox sort
section ids; id -u; id -g; id -G; umask; pwd
section limits; ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hf; ulimit -Ht; ulimit -Ss; ulimit -Hd
section status; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
section oom; cat /proc/self/oom_score_adj
section names; hostname; cat /proc/sys/kernel/domainname
section sysctl; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/sys/fs/mqueue/msg_max 2>/dev/null
section mounts; cat /proc/self/mountinfo
section dev; ls -ln /dev | /bin/busybox sed 's/ *[A-Z][a-z][a-z] [ 0-9]* *[0-9:]* / /; s/^l[^ ]*/l/'
section masked; for each in /proc/kcore /proc/keys /etc/passwd /masked /masked/in; do
    test -e $each && echo $each $(head -c 1 $each 2>&1 | wc -c); done
section readonly; for each in /proc/sys/kernel/hostname /closed/x /proc/bus/x /x /t/x /run/x /dev/x /bound/x; do
    ( : > $each ) 2>/dev/null && echo "$each"; done
section files; ls -lnd /t /run /bound /bound-file /a /a/b /work/here / 2>/dev/null | /bin/busybox awk '{print $1, $3, $4, $NF}'; ls -A /t /run /bound /a 2>/dev/null
section cgroup; /bin/busybox sed 's/^[0-9]*://' /proc/self/cgroup | /bin/busybox sort
section namespaces; for each in cgroup ipc mnt net pid user uts; do test $(readlink /proc/self/ns/$each) = "$(/bin/busybox grep "^$each " /host-namespaces | cut -d' ' -f2)" && echo "$each of the host"; done
section maps; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
section session; cat /proc/self/stat | cut -d' ' -f5,6,7; ls /proc/self/fd | wc -l
section hooks; cat /hooks 2>/dev/null
section streams; for each in 0 1 2; do test -t $each && echo "$each is a terminal"; done
exit 3
"""


class Draw:
    """Choices of one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def chance(self, of: float) -> bool:
        return self._random.random() < of

    def one(self, *values: Any) -> Any:
        return self._random.choice(values)

    def some(self, values: Any, most: int) -> list[Any]:
        values = list(values)
        return self._random.sample(values, self._random.randint(0, min(most, len(values))))


def spec_of(seed: int, runtime: Runtime) -> Any:
    """The Spec of a seed, for a runtime's bundle, which gets what it needs."""
    draw = Draw(seed)
    rootfs = runtime.bundle.rootfs
    _furnish(rootfs)
    spec = runtime.bundle.spec("sh", "-c", REPORT)
    spec["ociVersion"] = "1.0.0"
    _process(draw, spec["process"])
    spec["root"]["readonly"] = draw.chance(0.3)
    _namespaces(draw, spec)
    _mounts(draw, spec, runtime)
    _linux(draw, spec)
    _hooks(draw, spec, runtime)
    if draw.chance(0.3):
        spec["annotations"] = {"a": "b", "org.example": ""}
    return runtime.bundle.with_ids(spec) if draw.chance(0.2) else spec


def _furnish(rootfs: Any) -> None:
    for name in ("t", "run", "bound", "a", "bound-file", "work", "made", "etc", "x"):
        path = rootfs / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.rmtree(rootfs / "real", ignore_errors=True)
    for path in (rootfs, *rootfs.rglob("*")):
        os.chown(path, 0, 0, follow_symlinks=False)
    for directory in ("etc", "masked/in", "closed", "real/deep", "proc", "sys"):
        (rootfs / directory).mkdir(parents=True, exist_ok=True)
    (rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nguest:x:7:8::/home/guest:/bin/sh\n")
    (rootfs / "hooks").write_text("")
    (rootfs / "hooks").chmod(0o666)
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    (rootfs / "host-namespaces").write_text(
        "".join(f"{each} {os.readlink(f'/proc/self/ns/{each}')}\n" for each in kinds)
    )
    for name, target in (("link", "/real/deep"), ("dangling", "/made/by/mount"), ("up", "../../real")):
        (rootfs / name).unlink(missing_ok=True)
        (rootfs / name).symlink_to(target)
    for applet in ("umask", "sort"):
        (rootfs / "bin" / applet).unlink(missing_ok=True)
        (rootfs / "bin" / applet).symlink_to("busybox")


def _process(draw: Draw, process: Any) -> None:
    process["env"] = [draw.one("PATH=/bin", "PATH=/none:/bin", "PATH=:/bin:"), *draw.some(
        ("A=1", "A=2", "B= spaced = ", "HOME=/own", "EMPTY=", "PATH=/bin", "LONG=" + "x" * 5000, "Ü=ö"), 5
    )]  # fmt: skip
    process["cwd"] = draw.one("/", "/", "/bin", "/work/here", "/link")
    user = {"uid": draw.one(0, 0, 7, 1000, 65534), "gid": draw.one(0, 8, 1000)}
    if draw.chance(0.4):
        user["additionalGids"] = draw.some((5, 8, 10, 20), 3)
    if draw.chance(0.3):
        user["umask"] = draw.one(0o22, 0o77, 0o2, 0)
    process["user"] = user
    if draw.chance(0.8):
        sets = {each: draw.some(CAPABILITIES, 8) for each in SETS}
        sets["bounding"] = sorted({*sets["bounding"], *sets["permitted"], *sets["inheritable"]})
        sets["permitted"] = sorted({*sets["permitted"], *sets["effective"]})
        sets["inheritable"] = sorted({*sets["inheritable"], *sets["ambient"]})
        sets["permitted"] = sorted({*sets["permitted"], *sets["ambient"]})
        sets["bounding"] = sorted({*sets["bounding"], *sets["permitted"], *sets["inheritable"]})
        process["capabilities"] = {each: sets[each] for each in SETS if each != "ambient" or draw.chance(0.5)}
    process["rlimits"] = [{"type": name, "soft": soft, "hard": hard} for name, soft, hard in draw.some(LIMITS, 3)]
    process["noNewPrivileges"] = draw.chance(0.5)
    if draw.chance(0.3):
        process["oomScoreAdj"] = draw.one(0, 100, 1000)


def _namespaces(draw: Draw, spec: Any) -> None:
    wanted = ["pid", "mount", "ipc", "uts", *draw.some(("network", "cgroup"), 2)]
    spec["linux"]["namespaces"] = [{"type": each} for each in wanted]
    spec["hostname"] = draw.one("box", "a.b.c", "x" * 60)


def _mounts(draw: Draw, spec: Any, runtime: Runtime) -> None:
    source = runtime.directory / "source"
    (source / "sub").mkdir(parents=True, exist_ok=True)
    (source / "file").write_text("content\n")
    for path in (source, source / "sub", source / "file"):
        path.chmod(0o777)
    flags = ("nosuid", "nodev", "noexec", "ro", "noatime", "relatime", "strictatime", "nodiratime", "sync")
    for mount in spec["mounts"]:
        if mount["destination"] == "/dev":
            mount["options"] = [
                "nosuid",
                draw.one("mode=755", "mode=0711"),
                *draw.some(("strictatime", "size=65536k", "ro", "noexec"), 3),
            ]
        if mount["destination"] == "/proc" and draw.chance(0.3):
            mount["options"] = draw.some(("nosuid", "noexec", "nodev"), 3)
    more: list[Any] = []
    if draw.chance(0.5):
        options = draw.some(flags, 4) + draw.some(("mode=700", "size=1m", "uid=7", "gid=8", "nr_inodes=100"), 3)
        more.append(
            {
                "destination": draw.one("/t", "t", "/t/", "//t"),
                "type": "tmpfs",
                "source": draw.one("tmpfs", "any"),
                "options": options,
            }
        )
    if draw.chance(0.4):
        more.append(
            {
                "destination": "/run",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": draw.some(("mode=755", "nosuid", "tmpcopyup"), 3),
            }
        )
    if draw.chance(0.6):
        options = [
            draw.one("bind", "rbind"),
            *draw.some(flags[:7], 3),
            *draw.some(("rprivate", "rslave", "mode=755", "rro"), 1),
        ]
        more.append(
            {
                "destination": draw.one("/bound", "/link/bound", "/a/b", "/dangling"),
                "type": draw.one("bind", "none", ""),
                "source": str(source),
                "options": options,
            }
        )
        if not more[-1]["type"]:
            del more[-1]["type"]
    if draw.chance(0.4):
        more.append(
            {
                "destination": draw.one("/bound-file", "/made/up/file", "/etc/hostname"),
                "type": "bind",
                "source": str(source / "file"),
                "options": ["bind", *draw.some(("ro", "nosuid"), 2)],
            }
        )
    if draw.chance(0.4):
        more.append(
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "mode=1777", "size=65536k"],
            }
        )
    if draw.chance(0.3):
        more.append(
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec"]}
        )
    if draw.chance(0.3) and {"type": "network"} in spec["linux"]["namespaces"]:
        more.append({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]})
    spec["mounts"] += more


def _linux(draw: Draw, spec: Any) -> None:
    linux = spec["linux"]
    if draw.chance(0.5):
        linux["maskedPaths"] = draw.some(("/proc/kcore", "/proc/keys", "/masked", "/nothing", "/etc/passwd"), 4)
    if draw.chance(0.5):
        linux["readonlyPaths"] = draw.some(("/proc/sys", "/proc/bus", "/closed", "/nothing", "/bin"), 4)
    if draw.chance(0.4):
        names = [
            "kernel.shmmni",
            "fs.mqueue.msg_max",
            *(["net.ipv4.ip_forward"] if {"type": "network"} in linux["namespaces"] else []),
        ]
        values = {"kernel.shmmni": "1234", "fs.mqueue.msg_max": "9", "net.ipv4.ip_forward": "1"}
        linux["sysctl"] = {name: values[name] for name in draw.some(names, 3)}
    if draw.chance(0.3):
        linux["devices"] = [
            {
                "path": draw.one("/dev/mine", "/dev/deep/mine"),
                "type": "c",
                "major": 1,
                "minor": draw.one(3, 5),
                "fileMode": draw.one(0o666, 0o600),
                "uid": draw.one(0, 7),
                "gid": 0,
            }
        ]
    if draw.chance(0.3):
        linux["rootfsPropagation"] = draw.one("private", "rprivate", "slave", "rslave")
    if draw.chance(0.4):
        resources = {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}, "cpu": {"shares": 512}}
        linux["resources"] = {name: resources[name] for name in draw.some(resources, 3)}
    if draw.chance(0.3):
        rule = {
            "names": draw.some(("mkdir", "close_range", "ptrace", "kexec_load", "sendmsg", "umount2"), 4) or ["acct"],
            "action": "SCMP_ACT_ERRNO",
        }
        linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [rule],
        }


def _hooks(draw: Draw, spec: Any, runtime: Runtime) -> None:
    log = runtime.directory / "hooks.log"
    log.write_text("")
    log.chmod(0o666)
    if draw.chance(0.5):
        spec["hooks"] = {}
        for kind in draw.some(KINDS, 6):
            if kind == "startContainer" and (spec["root"]["readonly"] or spec["process"]["user"]["uid"]):
                continue
            target = "/hooks" if kind == "startContainer" else log
            script = (
                f"read -r state; case $state in *'\"id\"'*) known=yes ;; esac; echo {kind} $0 $WORD $known >> {target}"
            )
            hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["WORD=said", "PATH=/bin:/usr/bin"]}
            spec["hooks"][kind] = [hook] * draw.one(1, 1, 2)


def differences(ours: dict[str, list[str]], peers: list[dict[str, list[str]]]) -> dict[str, list[str]]:
    """Lines of ours that no peer has, and those that all peers have and we don't, by section."""
    found = {}
    for section, lines in ours.items():
        theirs = [{*peer.get(section, [])} for peer in peers]
        more = {*lines} - set().union(*theirs)
        less = set.intersection(*theirs) - {*lines}
        if more or less:
            found[section] = [*(f"+{line}" for line in sorted(more)), *(f"-{line}" for line in sorted(less))]
    return found


def report_of(output: str, runtime: Runtime, spec: Any) -> dict[str, list[str]]:
    """What a container has said, by section, without what must differ."""
    masked = spec["linux"].get("maskedPaths", [])
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in output.splitlines():
        if line.startswith("== "):
            current = sections.setdefault(line[3:], [])
        else:
            line = line.replace(str(runtime.directory), "PLACE")
            current.append(line.replace(spec["linux"]["cgroupsPath"], "/CGROUP"))
    # A bind mount that doesn't say: private with us, with runc whatever linux.rootfsPropagation is.
    spreads = {"rslave", "slave", "shared", "rshared"}
    says = any(spreads & {*mount.get("options", [])} for mount in spec["mounts"])
    sections["mounts"] = sorted(
        mount if says else mount.replace("[master]", "[]")
        for mount in map(_mount, sections.get("mounts", []))
        if mount.partition(" ")[0] not in masked
    )
    return sections


def _mount(line: str) -> str:
    """Place, attributes, propagation, type and options of a mount."""
    fields = line.split(" ")
    dash = fields.index("-")
    # A device of the host's, bound: whether it still follows the host's mount there makes no difference.
    spread = " ".join(re.sub(r":\d+", "", each) for each in fields[6:dash] if fields[dash + 1] != "devtmpfs")
    options = ",".join(
        sorted(each for each in fields[dash + 3].split(",") if not each.startswith(("inode64", "size=0")))
    )
    root = fields[3] if fields[dash + 1] not in ("tmpfs", "proc", "sysfs", "devpts", "mqueue") else "-"
    return f"{fields[4]} {fields[5]} [{spread}] {fields[dash + 1]} {root if 'PLACE' in root else ''} {options}"
