"""What the processes of a start asked the kernel for, from strace's output: the Plan as it was executed.

Of each process there are its calls up to its execve, in order, those that change something; of the command itself, which
is many threads' worth of Python, those by which it makes cgroups, id maps and mounts. Calls of what runs inside a
container are left out: its own output is recorded.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

TRACED = (
    "mount,umount2,pivot_root,chroot,open_tree,move_mount,fsopen,fsconfig,fsmount,fspick,mount_setattr,mkdir,mkdirat,"
    "mknod,mknodat,symlink,symlinkat,sethostname,setdomainname,prlimit64,setrlimit,setgroups,setresuid,setresgid,"
    "capset,prctl,seccomp,execve,execveat,chdir,fchdir,setsid,setns,unshare,clone3,clone,vfork,fork,personality,"
    "fchmod,fchown,fchmodat,fchownat,chown,lchown,chmod,write,keyctl,sched_setattr,sched_setscheduler,"
    "sched_setaffinity,ioprio_set,umask,set_mempolicy,bpf"
)
STRACE = ["strace", "-D", "-f", "-qq", "-v", "-y", "-s", "4096", "-e", f"trace={TRACED}", "-e", "signal=none"]

_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>")
_CLONED = re.compile(r"^(?:clone3?|v?fork)\(.*\) = (\d+)$")
_QUESTIONS = re.compile(
    r"prctl\(PR_(GET|CAPBSET_READ|SET_NAME|SET_VMA|SET_DUMPABLE)|prlimit64\([^,]*, \w+, NULL|keyctl\(KEYCTL_(READ|DESC)"
    r"|bpf\(BPF_(?!PROG)"
    r"|write\(\d+<[^>]*(cgroup\.freeze|freezer\.state)>"  # how often is chance: until the last process is gone
)
_OF_COMMAND = re.compile(
    r"mkdir(at)?\(.*/sys/fs/cgroup|write\(\d+</(proc|sys)/|mount|move_mount|open_tree|fs(open|config|mount)|setns|unshare|bpf"
)
_ENTERS = re.compile(r"(pivot_root|chroot|setns|move_mount)\(")


def tasks(text: str) -> list[dict[str, Any]]:
    """Of each process: who made it with which flags (``by``), and its ``calls``."""
    first, calls = _calls(text)
    parents, flags = _parents(calls)
    found = []
    for pid, lines in calls.items():
        # Who was made in another pid namespace has no parent here, as clone told its number there.
        if pid != first and (pid not in parents or _is_thread(flags[pid]) or _is_inside(pid, parents, calls)):
            continue
        kept = [line for line in _until_exec(lines, pid == first) if not _QUESTIONS.match(line)]
        if pid == first or "exec" not in "".join(kept[-1:]):
            kept = [line for line in kept if _OF_COMMAND.match(line) or pid != first]
        kept = [line for line in kept if not line.startswith(("clone", "fork", "vfork")) and _worth(line)]
        if kept:
            by = _name(parents.get(pid, 0), parents, calls)
            found.append({"by": by, "flags": flags.get(pid, ""), "calls": list(map(_shorter, kept))})
    return found


def _calls(text: str) -> tuple[int, dict[int, list[str]]]:
    """The first process, and of each the calls; a call that others interrupted is put together."""
    calls: dict[int, list[str]] = {}
    begun: dict[int, str] = {}
    first = 0
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        pid, rest = int(match[1]), match[2]
        first = first or pid
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := _RESUMED.match(rest):
            rest = begun.pop(pid, "") + rest[resumed.end() :].lstrip(" ")
        if "(" in rest and not rest.startswith(("+++", "---")):
            calls.setdefault(pid, []).append(re.sub(r"\)\s+= ", ") = ", rest))
    return first, calls


def _parents(calls: dict[int, list[str]]) -> tuple[dict[int, int], dict[int, str]]:
    parents: dict[int, int] = {}
    flags: dict[int, str] = {}
    for pid, lines in calls.items():
        for line in lines:
            if made := _CLONED.match(line):
                child = int(made[1])
                parents[child] = pid
                words = re.search(r"flags=([A-Z_|]+)", line)
                flags[child] = words[1] if words else ""
    return parents, flags


def _is_thread(flags: str) -> bool:
    return "CLONE_THREAD" in flags


def _has_entered(lines: list[str]) -> bool:
    """It went into a container, and then became the command there."""
    entered = [number for number, line in enumerate(lines) if _ENTERS.match(line)]
    return bool(entered) and any(line.startswith("exec") and line.endswith(" = 0") for line in lines[entered[0] :])


def _is_inside(pid: int, parents: dict[int, int], calls: dict[int, list[str]]) -> bool:
    above = parents.get(pid, 0)
    while above:
        if _has_entered(calls.get(above, [])):
            return True
        above = parents.get(above, 0)
    return False


def _until_exec(lines: list[str], is_command: bool) -> list[str]:
    if is_command:
        return lines
    for number, line in enumerate(lines):
        if line.startswith("exec") and line.endswith(" = 0"):
            return lines[: number + 1]
    return lines


def _worth(line: str) -> bool:
    """Of the writes only those that say something to the kernel."""
    return not line.startswith("write(") or bool(re.match(r"write\(\d+</(proc|sys)/", line))


def _name(pid: int, parents: dict[int, int], calls: dict[int, list[str]]) -> str:
    """The program that a process last became, or the one that it was made by."""
    while pid:
        for line in reversed(calls.get(pid, [])):
            if line.startswith("exec") and line.endswith(" = 0") and (words := re.search(r'\["([^"]*)"', line)):
                return words[1].rpartition("/")[2]
        pid = parents.get(pid, 0)
    return ""


def _shorter(line: str) -> str:
    """A filter by its hash; no numbers of descriptors."""
    line = re.sub(r"filter=\[.*\]", lambda match: f"filter={hashlib.sha256(match[0].encode()).hexdigest()[:16]}", line)
    line = re.sub(r"insns=\[.*?\]", lambda match: f"insns={hashlib.sha256(match[0].encode()).hexdigest()[:16]}", line)
    line = re.sub(r"0x[0-9a-f]{6,}", "<address>", line)
    line = re.sub(r"\b(setsid\(\)|keyctl\(.*\)) = \d+", r"\1 = <n>", line)
    line = re.sub(r"\) = \d+<[^>]*>$", ") = ok", line)
    return re.sub(r"\b\d+(<[^>]*>)", r"fd\1", line)
