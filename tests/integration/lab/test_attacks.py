"""`explain --without`: which attack gets through without which protection, as docs/security.md says."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from minibox.base.files import wait_readable
from minibox.linux.cgroup import detect
from minibox.linux.cgroup.usage_meter import descendants
from tests.conftest import Run
from tests.engines import wait_until
from tests.probes import requires, requires_user
from tools import attacks

#: On v2 a cgroup with processes has none below it that has limits of its own: what takes a neighbour's share isn't tried there.
in_a_neighbours_cgroup = pytest.mark.skipif("memory" not in detect().v1, reason="needs cgroup v1")

FEW = ("explain", "--json", "--without", "ipc-namespace", "run", "--network", "none", "base")


@requires("root")
@in_a_neighbours_cgroup
def test_the_table_of_the_page_is_what_happens(minibox: Run) -> None:
    """Each protection stops an attack, each attack is stopped, and `make attacks` has written the page."""
    done = minibox(*shlex.split(attacks.COMMAND), env={"COLUMNS": "80"}, timeout_s=600)
    assert done.returncode == 0, done.stderr
    assert "It stops none" not in done.stdout and "get through this start" not in done.stdout
    assert "Not tried" not in done.stdout and "something else stops it" not in done.stdout
    assert done.stdout == attacks.in_page()


@requires("root")
def test_two_left_out_at_once(minibox: Run) -> None:
    asked = ("--without", "session-keyring", "--without", "seccomp")
    done = minibox("explain", *asked, "run", "--network", "none", "base", timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert "Without session-keyring and seccomp, these attacks get through:" in done.stdout
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("    ") and line[4] != " "][:2] == [
        "key:",
        "session-key:",
    ]
    assert "handle: " in done.stdout and "capabilities and user-namespace left out" in " ".join(done.stdout.split())


@requires("root")
@in_a_neighbours_cgroup
def test_a_start_that_has_no_limit_says_so(minibox: Run) -> None:
    asked = ("explain", "--without", "pids-limit", "run", "--network", "none", "base")
    done = minibox(*asked, timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert "This start has no pids-limit." in done.stdout
    free = done.stdout.partition("These get through this start as it is:")[2]
    assert "processes: " in free and "memory: " in free and "set-uid: " in free


@requires_user
def test_an_ordinary_user(minibox_user: Run) -> None:
    done = minibox_user(*FEW, timeout_s=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["protections"][0]["stops"] == ["shared-memory"]
    assert {"disk", "memory", "kill"} <= found["not_tried"].keys()
    refused = minibox_user("explain", "--without", "user-namespace", "run", "base")
    assert refused.returncode == 125 and "only root can start a container without it" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--without", "secomp", "run", "base"), "did you mean seccomp?"),
        (("--without", "seccomp", "exec", "web", "sh"), "--without needs a run command"),
        (("--without", "seccomp", "--shell", "run", "base"), "can't be given with"),
    ],
)
def test_refused(minibox: Run, words: tuple[str, ...], said: str) -> None:
    done = minibox("explain", *words)
    assert done.returncode == 125 and said in done.stderr


@requires("root")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_it_leaves_nothing(
    minibox: Run, minibox_command: list[str], environment: dict[str, str], state: Path, number: int
) -> None:
    setting = Path("/proc/sys/kernel/printk_ratelimit_burst")
    before = setting.read_text()
    words = ("--without", "all", "run", "--network", "none", "-m", "64m", "base")
    started = subprocess.Popen([*minibox_command, "explain", *words], env=environment)
    containers = state / "root/containers"
    wait_until(lambda: started.poll() is not None or len(list(containers.glob("*"))) > 1, "two containers")
    assert started.poll() is None
    pids = [pid for pid in descendants(started.pid) if pid != started.pid]
    helpers = [os.pidfd_open(pid) for pid in pids]
    assert _shared_memory(pids)
    started.send_signal(number)
    assert started.wait(60) != 0
    for helper in helpers:
        assert wait_readable(helper, 60)
        os.close(helper)
    assert minibox("ps", "--all", "--quiet").stdout == ""
    assert list(containers.glob("*")) == [] and setting.read_text() == before
    assert not _shared_memory(pids)  # which would keep the session keyring, too


def _shared_memory(pids: list[int]) -> list[str]:
    """The System V shared memory segments that these processes have made."""
    return [line for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:] if int(line.split()[4]) in pids]
