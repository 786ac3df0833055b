"""Profiles that deny one system call: whatever runc or crun starts, starts here. All of the table by `make long`."""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.oci_runtime import Runtime
from tests.peers import LONG, OURS, Make
from tests.probes import requires

pytestmark = [
    requires("root", "command:busybox", "command:cc", "command:strace", "command:runc", "command:crun"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the probe is of x86-64"),
]
TABLE = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
#: What minibox did behind the filter once, what it does, and what its peers do.
SOME = ("close_range", "sendmsg", "capget", "rt_sigprocmask", "setresuid", "capset", "read")
NAMES = re.findall(r"#define __NR_(\w+) ", TABLE.read_text()) if LONG else SOME
PROBE = Path(__file__).parents[1] / "integration/oci/probe.c"


@pytest.fixture(scope="module")
def probe(session_directory: Path) -> Path:
    program = session_directory / "peers-probe"
    words = ["cc", "-O1", "-static", "-nostdlib", "-fno-stack-protector", "-o", str(program), str(PROBE)]
    subprocess.run(words, check=True)
    return program


def denying(probe: Path, name: str, action: str, *, no_new_privs: bool) -> Make:
    def make(runtime: Runtime) -> Any:
        shutil.copy(probe, runtime.bundle.rootfs / "probe")
        rules = [{"names": [name], "action": action}]
        seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules}
        spec = runtime.bundle.spec("/probe", seccomp=seccomp)
        spec["process"] |= {
            "noNewPrivileges": no_new_privs,
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5]},
            "capabilities": {each: ["CAP_KILL"] for each in ("bounding", "effective", "permitted", "inheritable")},
        }
        return spec

    return make


@pytest.mark.parametrize("no_new_privs", [False, True], ids=["privileges", "no new privileges"])
@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
def test_what_a_peer_starts_starts_here(peers, probe, action, no_new_privs):
    started: dict[str, set[str]] = {name: set() for name in peers.all}
    for name in NAMES:
        found = peers.run(denying(probe, name, action, no_new_privs=no_new_privs))
        for runtime, ended in found.items():
            if ended.status == 42:
                started[runtime].add(name)
        for runtime in peers.all.values():
            runtime.remove_all()  # which runc leaves when it is killed
    assert started["runc"] | started["crun"] <= started[OURS]
    assert {"close_range", "sendmsg", "capget", "rt_sigprocmask", "setresuid"} <= started[OURS]


PROGRAMS = ("true", "echo hi", "id -u", "env", "cat /dev/null", "mkdir -p /a/b", "ls /", "sh -c 'ls / | wc -l'",
            "uname", "readlink /bin/sh", "date +%Z", "sleep 0", "sh -c 'echo $((1 + 1))'", "stat -c %a /")  # fmt: skip
#: What a profile of years ago had on its list beside what the application does, for the runtime's sake.
OF_OLD = """access arch_prctl brk capget capset chdir clone close epoll_ctl epoll_pwait exit_group fchdir fcntl fstat fstatfs
futex getdents64 getpid getppid gettid keyctl lstat mmap mprotect munmap nanosleep newfstatat openat prctl read
rt_sigaction rt_sigprocmask sched_yield setgid setgroups setsid setuid sigaltstack stat statfs tgkill umask""".split()
NEWER = "close_range openat2 clone3 faccessat2 statx rseq pidfd_open mount_setattr clock_gettime sendmsg poll".split()


@pytest.fixture(scope="module")
def profiles(session_directory: Path) -> list[tuple[str, dict[str, Any]]]:
    """Programs, each with profiles made from what it was seen to do."""
    trace, found = session_directory / "peers-trace", []
    denied: Any = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": NEWER, "action": "SCMP_ACT_ERRNO"}]}
    for program in PROGRAMS if LONG else PROGRAMS[:1]:
        words = ["strace", "-f", "-qq", "-o", str(trace), "busybox", *shlex.split(program)]
        subprocess.run(words, check=False, capture_output=True)
        seen = {*re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE), "execve", "exit", "exit_group"}
        for names in (seen, seen | {*OF_OLD}):
            allowed = [{"names": sorted(names), "action": "SCMP_ACT_ALLOW"}]
            found.append((program, {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": allowed}))
    return [*found, (PROGRAMS[7], denied)]


def test_profiles_of_applications(peers, profiles):
    """58 bundles by `make long`: allow-lists without what runtimes do today. What a peer starts, starts here."""
    started = dict.fromkeys(peers.all, 0)
    for program, profile in profiles:
        for no_new_privs in (False, True):

            def make(runtime: Runtime, words: str = program, seccomp: Any = profile, bit: bool = no_new_privs) -> Any:
                spec = runtime.bundle.spec("/bin/busybox", *shlex.split(words), seccomp=seccomp)
                spec["process"]["noNewPrivileges"] = bit
                return spec

            found = peers.run(make)
            for name, runtime in peers.all.items():
                runtime.remove_all()
                started[name] += found[name].status == 0
            theirs = [found[name].output for name in ("runc", "crun") if found[name].status == 0]
            if theirs:
                assert found[OURS].status == 0 and found[OURS].output in theirs, (program, no_new_privs, found)
    # All but those that forbid to drop capabilities, where nothing is to be gained by no_new_privs.
    assert started[OURS] >= len(profiles) * 2 - len(profiles) // 2, started
    assert started[OURS] >= max(started.values())


def test_exec_is_likewise(peers, probe):
    """In a container that was made with yesterday's profile."""

    def make(runtime: Runtime) -> Any:
        spec = denying(probe, "close_range", "SCMP_ACT_KILL_PROCESS", no_new_privs=False)(runtime)
        spec["process"]["args"] = ["sleep", "1000"]
        return spec

    with peers.running(make) as runtimes:
        assert {name: runtime.run("exec", "c1", "/probe").returncode for name, runtime in runtimes.items()} == (
            dict.fromkeys(runtimes, 42)
        )
