"""A filter that forbids a system call which is ours to make: whatever runc or crun starts, starts here.

What those two need was measured for each system call and both actions, with runc 1.1.5 and crun 1.8.1, which need more
than is written here; `interop/test_oci_peers_seccomp.py` does so with some, and with all by `make long`.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from minibox.engine.process import gate
from minibox.errors import ExecFailed, StepError
from minibox.plan.start import Start
from tests.bundles import Bundle, Ended, status_of
from tests.probes import requires

pytestmark = [
    requires("root", "command:busybox", "command:cc"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the probe is of x86-64"),
]
CALLS = range(512)  # the table of Linux 6.18 ends with 470; numbers of none make no difference
READ, WRITE, EXECVE, EXIT, EXIT_GROUP = 0, 1, 59, 60, 231
CAPSET, PRCTL = 126, 157
ACTIONS = {"errno": 0x00050001, "kill": 0x80000000}  # EPERM, and SIGSYS to the whole process
ALLOW = 0x7FFF0000
LOAD_NUMBER, EQUALS, ANSWER = (0x20, 0, 0, 0), 0x15, 0x06


def bpf(*steps: tuple[int, int, int, int]) -> bytes:
    """An array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def forbidding(number: int, action: int) -> bytes:
    """A filter that forbids one system call."""
    return bpf(LOAD_NUMBER, (EQUALS, 0, 1, number), (ANSWER, 0, 0, action), (ANSWER, 0, 0, ALLOW))


def forbidding_all_but(numbers: Iterable[int], action: int) -> bytes:
    """A filter that forbids all others."""
    steps = [step for number in numbers for step in ((EQUALS, 0, 1, number), (ANSWER, 0, 0, ALLOW))]
    return bpf(LOAD_NUMBER, *steps, (ANSWER, 0, 0, action))


@pytest.fixture(scope="module")
def probe(session_directory: Path) -> Path:
    """The static program of probe.c."""
    program, source = session_directory / "probe", Path(__file__).with_name("probe.c")
    subprocess.run(
        ["cc", "-Wall", "-Werror", "-O1", "-static", "-nostdlib", "-fno-stack-protector", "-o", program, source],
        check=True,
    )
    return program


@pytest.fixture
def start(tmp_path: Path, probe: Path) -> Callable[..., Ended]:
    """Start the probe under a filter, at once or through a gate; how it ended."""
    bundle = Bundle(tmp_path / "bundle")
    shutil.copy(probe, bundle.rootfs / "probe")
    (bundle.rootfs / "proc").mkdir()

    def start(filter_: bytes, *, no_new_privs: bool, gated: bool = False, ambient: bool = False) -> Ended:
        spec: Any = bundle.spec("/probe", namespaces=[{"type": "mount"}, {"type": "pid"}]) | {"mounts": []}
        sets = ("bounding", "effective", "permitted", *(("inheritable", "ambient") if ambient else ()))
        spec["process"] |= {
            "noNewPrivileges": no_new_privs,
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5]},
            "capabilities": {each: ["CAP_KILL"] for each in sets},
        }
        if not gated:
            return bundle.run(spec, Start(seccomp=filter_, detached=True))
        files = gate.make_gate(str(tmp_path))
        try:
            with bundle.started(spec, Start(seccomp=filter_, detached=True, gate=True), gate=files) as (execution, out):
                for fd in files:
                    os.close(fd)
                files = (-1, -1)
                assert gate.open_gate(str(tmp_path)) is None
                return Ended(status_of(execution), os.read(out, 100).decode())
        finally:
            for fd in files:
                if fd >= 0:
                    os.close(fd)
            for name in (gate.FIFO, gate.REPORT):
                (tmp_path / name).unlink(missing_ok=True)

    return start


@pytest.mark.parametrize("gated", [False, True], ids=["run", "create and start"])
@pytest.mark.parametrize("no_new_privs", [False, True], ids=["privileges", "no new privileges"])
@pytest.mark.parametrize("action", ACTIONS)
def test_all_but_what_must_follow_are_forbidden_at_once(start, action, no_new_privs, gated):
    """With no_new_privs the filter is the last before the exec; else capabilities are dropped behind it, and the gate."""
    needed = [WRITE, EXIT_GROUP, EXECVE, *([] if no_new_privs else [CAPSET, *([READ] if gated else [])])]
    filter_ = forbidding_all_but(needed, ACTIONS[action])
    assert start(filter_, no_new_privs=no_new_privs, gated=gated) == Ended(42, "started\n")


def test_ambient_capabilities_take_one_call_more(start):
    needed = [WRITE, EXIT_GROUP, EXECVE, CAPSET, PRCTL]
    filter_ = forbidding_all_but(needed, ACTIONS["kill"])
    assert start(filter_, no_new_privs=False, ambient=True) == Ended(42, "started\n")


@pytest.mark.parametrize("no_new_privs", [False, True], ids=["privileges", "no new privileges"])
@pytest.mark.parametrize("action", ACTIONS)
def test_each_of_the_table_is_forbidden(start, action, no_new_privs):
    """One at a time: what fails is what the probe does itself, and to drop capabilities."""
    failed = set()
    for number in CALLS:
        try:
            if start(forbidding(number, ACTIONS[action]), no_new_privs=no_new_privs).status != 42:
                failed.add(number)
        except (ExecFailed, StepError):
            failed.add(number)
    own = {EXECVE} if action == "errno" else {EXECVE, WRITE, EXIT_GROUP}
    assert failed == own | (set() if no_new_privs else {CAPSET})


def test_a_command_that_is_not_there_is_told_under_a_filter_that_forbids_to_look(start, tmp_path):
    """What is done when the exec has failed is forbidden, too."""
    (tmp_path / "bundle/rootfs/probe").unlink()
    with pytest.raises(ExecFailed) as failed:
        start(forbidding_all_but([EXECVE, CAPSET, EXIT_GROUP], ACTIONS["errno"]), no_new_privs=False)
    assert (failed.value.errno, failed.value.root_fd) == (errno.ENOENT, -1)
