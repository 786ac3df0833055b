"""wait --condition, with the names that Docker and podman have."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.container_box import Box
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")

SLEEP = "exec sleep 100"


def sleeps(pid: int) -> bool:
    """Is a process between two looks at what it waits for?"""
    return "nanosleep" in Path(f"/proc/{pid}/wchan").read_text()


@pytest.fixture
def waiting(box, minibox_command, environment):
    """A wait under way; its output is looked at when the block has ended."""

    @contextmanager
    def waiting(*words: str, printed: str) -> Iterator[None]:
        command = [*minibox_command, "wait", *words]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                box.until(lambda: sleeps(process.pid), "it waits")  # an exit before that isn't its next one
                assert process.poll() is None
                yield
                out, _ = process.communicate(timeout=60 * SLOWNESS)
            finally:
                process.kill()
            assert out.strip() == printed

    return waiting


def test_running_of_one_that_is_started_later(box: Box, waiting) -> None:
    box.ok("create", "--network", "none", "--name", "web", "base", "sleep", "100")
    assert box.ok("wait", "web") == "0"  # it doesn't run
    assert box.ok("wait", "--condition", "created", "web") == "-1"
    with waiting("--condition", "running", "web", printed="-1"):
        box.ok("start", "web")


def test_exited_waits_for_one_that_was_never_started(box: Box, waiting) -> None:
    box.ok("create", "--network", "none", "--name", "web", "base", "sh", "-c", "exit 4")
    with waiting("--condition", "exited", "web", printed="4"):
        box.ok("start", "web")
    assert box.ok("wait", "--condition", "exited", "web") == "4"


def test_next_exit_is_one_that_comes(box: Box, waiting) -> None:
    box.start("web", "test -e /second && exit 6; touch /second; exit 5")
    assert box.ok("wait", "web") == "5"
    with waiting("--condition", "next-exit", "web", printed="6"):
        box.ok("start", "web")


def test_next_exit_though_its_policy_starts_it_again(box: Box, waiting) -> None:
    box.start("web", "trap 'exit 3' USR1; echo x; while :; do sleep 0.05; done", "--restart", "always")
    box.until_logged("web", "x")
    with waiting("--condition", "next-exit", "web", printed="3"):
        box.ok("kill", "-s", "USR1", "web")
    assert box.ok("wait", "--condition", "running", "web") == "-1"


def test_removed_tells_how_it_ended(box: Box, waiting) -> None:
    box.start("web", SLEEP)
    with waiting("--condition", "removed", "web", printed="137"):
        box.ok("stop", "-t0", "web")
        box.ok("rm", "web")


def test_removed_of_one_of_rm(box: Box, waiting) -> None:
    box.start("web", "while [ ! -e /go ]; do sleep 0.02; done; exit 8", "--rm")
    with waiting("--condition", "removed", "web", printed="8"):
        box.tell("web")


def test_paused(box: Box, waiting) -> None:
    box.start("web", SLEEP)
    with waiting("--condition", "paused", "web", printed="-1"):
        box.ok("pause", "web")
    box.ok("unpause", "web")


def test_what_can_not_become_healthy_is_not_waited_for(box: Box) -> None:
    box.start("web", SLEEP)
    assert box.refused("wait", "--condition", "healthy", "web") == "container web has no health check"
    box.start("ends", "sleep 0.5", "--health-cmd", "false", "--health-interval", "10s")
    assert box.refused("wait", "--condition", "healthy", "ends") == "container ends has ended and is not healthy"


def test_timeout(box: Box) -> None:
    box.start("web", SLEEP, "--health-cmd", "true", "--health-interval", "1m")
    assert box.refused("wait", "--timeout", "200ms", "web", status=124) == "container web has not ended yet"
    refused = box.refused("wait", "--condition", "healthy", "--timeout", "200ms", "web", status=124)
    assert refused == "container web is not healthy yet"


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--condition", "happy"), "unknown condition 'happy'"), (("--timeout", "soon"), "invalid value 'soon'")],
)
def test_what_cannot_be_meant(box: Box, options: tuple[str, ...], words: str) -> None:
    assert box.refused("wait", *options, "web").startswith(words)
