"""The filter of anybody's Spec on the real kernel: every action, comparisons, flags, and who answers for a call."""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.oci_runtime import TIMEOUT_S, Runtime
from tests.probes import requires

pytestmark = [requires("root", "command:busybox")]
RECEIVE, ANSWER = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND


def ended(runtime: Runtime, script: str, **seccomp: Any) -> tuple[int, str]:
    """Exit status and output of a shell under a profile."""
    runtime.write(runtime.bundle.shell(script, seccomp=seccomp))
    done = runtime.run("run", "--bundle", str(runtime.bundle.path), "c1")
    return done.returncode, done.stdout + done.stderr


def mkdir_is(action: str, **more: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": action, **more}]}


@pytest.mark.parametrize(
    ("action", "more", "says"),
    [
        ("SCMP_ACT_ERRNO", {}, "Operation not permitted"),
        ("SCMP_ACT_ERRNO", {"errnoRet": 28}, "No space left on device"),
        ("SCMP_ACT_TRACE", {}, "Function not implemented"),  # nobody traces it
        ("SCMP_ACT_LOG", {}, "made"),
        ("SCMP_ACT_ALLOW", {}, "made"),
    ],
)
def test_actions_that_answer(runtime: Runtime, action: str, more: Any, says: str):
    assert says in ended(runtime, "mkdir /x 2>&1 && echo made", **mkdir_is(action, **more))[1]


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
def test_actions_that_end_it(runtime: Runtime, action: str):
    assert ended(runtime, "busybox mkdir /x; echo $?", **mkdir_is(action)) == (0, "159\nBad system call\n")


def test_a_default_with_an_errno_of_its_own(runtime: Runtime):
    """All that a shell needs is allowed, and mkdir is not among it."""
    seccomp = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 122, "architectures": ["SCMP_ARCH_X86_64"]}
    listed = Path("/usr/include/asm-generic/unistd.h")
    names = [
        line.split()[1].removeprefix("__NR_") for line in listed.read_text().splitlines() if "#define __NR_" in line
    ]
    names += ["arch_prctl", "open", "stat", "access", "dup2", "fork", "poll", "getpgrp", "readlink", "vfork", "pipe"]
    allowed = {"names": sorted(set(names) - {"mkdirat"}), "action": "SCMP_ACT_ALLOW"}
    assert "Disk quota exceeded" in ended(runtime, "mkdir /x 2>&1; true", **seccomp, syscalls=[allowed])[1]


@pytest.mark.parametrize(
    ("operator", "value", "two", "hit"),
    [
        ("SCMP_CMP_EQ", 0o700, 0, True), ("SCMP_CMP_NE", 0o700, 0, False), ("SCMP_CMP_LT", 0o701, 0, True),
        ("SCMP_CMP_LE", 0o677, 0, False), ("SCMP_CMP_GE", 0o700, 0, True), ("SCMP_CMP_GT", 0o700, 0, False),
        ("SCMP_CMP_MASKED_EQ", 0o777, 0o700, True), ("SCMP_CMP_MASKED_EQ", 0o070, 0o070, False),
    ],
)  # fmt: skip
def test_comparisons(runtime: Runtime, operator: str, value: int, two: int, hit: bool):
    argument = {"index": 1, "value": value, "valueTwo": two, "op": operator}
    rule = {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "args": [argument]}
    rules = [rule | {"names": ["chmod"]}, rule | {"names": ["fchmodat"], "args": [argument | {"index": 2}]}]
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "flags": ["SECCOMP_FILTER_FLAG_LOG"]}
    assert ("not permitted" in ended(runtime, "touch /x; chmod 700 /x 2>&1", **seccomp)[1]) == hit


class Agent:
    """Who answers: it takes listeners from a socket, and refuses what it is asked with an errno."""

    def __init__(self, path: Path, errno: int) -> None:
        self.states: list[Any] = []
        self._errno = errno
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                data, fds, *_ = socket.recv_fds(connection, 1 << 16, 1)
                while part := connection.recv(1 << 16):
                    data += part
            self.states.append(json.loads(data))
            self._threads.append(threading.Thread(target=self._answer, args=(fds[0],), daemon=True))
            self._threads[-1].start()

    def _answer(self, fd: int) -> None:
        with open(fd, "rb", 0):
            while True:
                request = bytearray(80)
                try:
                    fcntl.ioctl(fd, RECEIVE, request)
                    (number,) = struct.unpack_from("=Q", request)
                    fcntl.ioctl(fd, ANSWER, struct.pack("=QqiI", number, 0, -self._errno, 0))
                except OSError:
                    return

    def until_told(self) -> None:
        """Until it has taken a listener: whoever hands one over doesn't wait for that."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self.states:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_a_listener_answers_for_a_call(runtime: Runtime, no_new_privileges: bool):
    """Of the container, and of each process that joins it."""
    path = runtime.directory / "agent"
    agent = Agent(path, 28)
    seccomp = mkdir_is("SCMP_ACT_NOTIFY") | {
        "listenerPath": str(path),
        "listenerMetadata": "about it",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
    }
    try:
        spec = runtime.bundle.shell("mkdir /x 2>&1; sleep 1000", seccomp=seccomp) | {"annotations": {"a": "b"}}
        spec["process"]["noNewPrivileges"] = no_new_privileges
        runtime.create("c1", spec)
        pid = runtime.state("c1")["pid"]
        agent.until_told()
        (told,) = agent.states
        assert told["fds"] == ["seccompFd"] and told["pid"] == pid and told["metadata"] == "about it"
        assert told["state"]["id"] == "c1" and told["state"]["status"] == "creating" and told["state"]["pid"] == pid
        assert told["state"]["annotations"] == {"a": "b"}
        runtime.ok("start", "c1")
        done = runtime.run("exec", "c1", "mkdir", "/y")
        assert "No space left on device" in done.stderr
        assert len(agent.states) == 2 and agent.states[1]["state"]["status"] == "running"
        runtime.until_written("c1", "No space left on device")
        runtime.ok("delete", "--force", "c1")
    finally:
        agent.close()


def test_nobody_takes_the_listener(runtime: Runtime):
    seccomp = mkdir_is("SCMP_ACT_NOTIFY") | {"listenerPath": str(runtime.directory / "nobody")}
    runtime.write(runtime.bundle.shell("true", seccomp=seccomp))
    assert "send the seccomp listener to" in runtime.error("create", "--bundle", str(runtime.bundle.path), "c1")
