"""`minibox-oci create` that is killed at each of its steps: nothing runs, and `delete` removes what it has left."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.oci_runtime import TIMEOUT_S, Runtime
from tests.probes import requires

pytestmark = [requires("root", "command:busybox", "command:strace")]


@pytest.mark.parametrize(
    ("call", "count"),
    [
        ("/mkdir", 1),  # its directory
        ("/rename", 1),  # the first state.json
        ("/rename", 2),  # the Spec
        ("/mknod", 1),  # the gate
        ("sendmsg", 1),  # the process is there, and waits for its ids
        ("sendmsg", 2),
        ("/rename", 3),  # it is at its gate; state.json with its pid
        ("/rename", 4),  # the pid file
        ("pidfd_open", 1),
    ],
)
def test_killed(runtime: Runtime, tmp_path: Path, call: str, count: int) -> None:
    runtime.write(runtime.bundle.shell("sleep 1000"))
    inject = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={count}"]
    words = runtime.argv("create", "--bundle", str(runtime.bundle.path), "--pid-file", str(tmp_path / "pid"), "c1")
    done = subprocess.run([*inject, *words], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert done.returncode == -9, done
    deadline = time.monotonic() + TIMEOUT_S
    while (found := runtime.run("state", "c1")).returncode == 0 and '"status": "stopped"' not in found.stdout:
        assert time.monotonic() < deadline, found  # SIGKILL is on its way to its process
    assert "not running" in runtime.error("kill", "c1") if found.returncode == 0 else True
    runtime.ok("delete", "--force", "c1")
    assert runtime.left() == []
