"""Health checks: what users see of them, and what they lead to."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from minibox.engine.state.log_file import log_time
from tests.container_box import Box
from tests.images import derive
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")

OFTEN = ("--health-interval", f"{round(150 * SLOWNESS)}ms", "--health-retries", "2")
WELL = "test -e /well && echo fine || { echo broken >&2; exit 3; }"
SLEEP = "exec sleep 100"
ILL = "/dev/shm/ill"  # in a file system that is another one after the next start
WELL_ANEW = f"test ! -e {ILL}"


def health(box: Box, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.ok("inspect", "-f", "{{json .State.Health}}", name))
    return found


def until(box: Box, name: str, condition: str) -> None:
    assert box.ok("wait", "--condition", condition, "--timeout", "20s", name) == "-1"


def test_health_goes_up_and_down(any_box: Box) -> None:
    any_box.start("young", SLEEP, "--health-cmd", WELL)
    assert health(any_box, "young")["Status"] == "starting"
    assert "(health: starting)" in any_box.ok("ps")
    any_box.ok("rm", "-f", "young")
    any_box.start("web", SLEEP, "--health-cmd", WELL, *OFTEN)
    until(any_box, "web", "unhealthy")
    found = health(any_box, "web")
    assert found["FailingStreak"] >= 2 and 2 <= len(found["Log"]) <= 5
    entry = found["Log"][-1]
    assert (entry["ExitCode"], entry["Output"]) == (3, "broken\n") and entry["Start"] < entry["End"]
    assert "(unhealthy)" in any_box.ok("ps")
    any_box.ok("exec", "web", "touch", "/well")
    until(any_box, "web", "healthy")
    assert health(any_box, "web")["FailingStreak"] == 0 and health(any_box, "web")["Log"][-1]["Output"] == "fine\n"
    assert "(healthy)" in any_box.ok("ps") and any_box.ok("ps", "-q", "--filter", "health=healthy")
    told = ["health_status: unhealthy", "health_status: healthy"]
    any_box.until(lambda: _events(any_box) == told, "the events tell of it")  # just after the state


def _events(box: Box) -> list[str]:
    found = box.ok("events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}")
    return [line for line in found.splitlines() if "health" in line]


def test_a_new_start_begins_anew(box: Box) -> None:
    box.start("web", SLEEP, "--health-cmd", "true")
    box.ok("healthcheck", "run", "web")
    assert health(box, "web")["Status"] == "healthy"
    box.ok("stop", "-t0", "web")
    box.ok("start", "web")
    assert health(box, "web") == {"Status": "starting", "FailingStreak": 0, "Log": []}
    box.ok("healthcheck", "run", "web")
    assert health(box, "web")["Status"] == "healthy"


def test_a_check_that_hangs_is_killed_with_its_children(box: Box) -> None:
    box.start("web", SLEEP, *OFTEN, "--health-cmd", "echo so far; sleep 77; true", "--health-timeout", "200ms")
    until(box, "web", "unhealthy")
    said = "Health check exceeded timeout (0.2s)"  # and what it had said by then, if it had come to that
    box.until(lambda: f"{said}: so far\n" in [entry["Output"] for entry in health(box, "web")["Log"]])
    found = {(entry["ExitCode"], entry["Output"]) for entry in health(box, "web")["Log"]}
    assert found <= {(-1, f"{said}: so far\n"), (-1, said)}
    box.until(lambda: box.ok("exec", "web", "ps").count("sleep 77") <= 1, "no more than the latest check's is left")


def test_a_check_that_leaves_a_process_behind_is_not_waited_for(box: Box) -> None:
    box.start("web", SLEEP, *OFTEN, "--health-cmd", "sleep 100 & echo done")
    until(box, "web", "healthy")


def test_much_output_is_cut(box: Box) -> None:
    box.start("web", SLEEP, *OFTEN, "--health-cmd", "head -c 300000 /dev/zero | tr '\\0' x")
    until(box, "web", "healthy")
    assert health(box, "web")["Log"][-1]["Output"] == "x" * 4096


def test_in_the_start_period_no_failure_counts(box: Box) -> None:
    box.start("web", SLEEP, *OFTEN, "--health-cmd", "false", "--health-start-period", "1m",
              "--health-start-interval", "150ms")  # fmt: skip
    box.until(lambda: len(health(box, "web")["Log"]) >= 3)
    assert (health(box, "web")["Status"], health(box, "web")["FailingStreak"]) == ("starting", 0)


def test_the_images_check_its_user_its_directory_and_no_healthcheck(box: Box, state: Path) -> None:
    check = {"Test": ["CMD", "sh", "-c", "id -u; pwd; echo $WHERE"], "Interval": round(150e6 * SLOWNESS)}
    config = {"Healthcheck": check, "User": "1234", "WorkingDir": "/tmp", "Env": ["WHERE=here", "PATH=/bin:/usr/bin"]}
    derive(state / "root", "checked", config=config)
    box.ok("run", "-d", "--network", "none", "--name", "web", "checked", "sleep", "100")
    until(box, "web", "healthy")
    assert health(box, "web")["Log"][-1]["Output"] == "1234\n/tmp\nhere\n"
    assert json.loads(box.ok("inspect", "-f", "{{json .Config.Healthcheck}}", "web")) == check
    box.ok("run", "-d", "--network", "none", "--name", "bare", "--no-healthcheck", "checked", "sleep", "100")
    assert "health" not in box.ok("ps", "--filter", "name=bare")
    assert box.refused("healthcheck", "run", "bare") == "container bare has no health check"


def test_a_command_that_is_not_there_is_a_failure(box: Box, state: Path) -> None:
    derive(state / "root", "checked", config={"Healthcheck": {"Test": ["CMD", "nosuch"]}})
    box.ok("run", "-d", "--network", "none", "--name", "web", "checked", "sleep", "100")
    assert box("healthcheck", "run", "web").returncode == 1
    entry = health(box, "web")["Log"][-1]
    assert (entry["ExitCode"], entry["Output"]) == (-1, "exec nosuch: no such command in the image")


def test_on_failure_kill_leaves_it_to_the_policy(box: Box) -> None:
    options = (*OFTEN, "--health-cmd", WELL_ANEW, "--health-on-failure", "kill", "--restart", "on-failure:1")
    box.start("web", SLEEP, *options)
    box.tell("web", ILL)
    box.until(lambda: box.state("web").get("RestartCount") == 1 and box.state("web")["Status"] == "running")
    until(box, "web", "healthy")


def test_on_failure_stop_is_final(box: Box) -> None:
    options = (*OFTEN, "--health-cmd", "test ! -e /set", "--health-on-failure", "stop", "--restart", "always")
    box.start("web", "trap 'exit 5' TERM; touch /set; while :; do sleep 0.05; done", *options)
    assert box.ok("wait", "web") == "5"
    assert box.state("web")["Status"] == "exited"
    found = json.loads(box.ok("why", "--json", "web"))
    assert (found["kind"], found["status"]) == ("unhealthy", 5)


def test_on_failure_restart(box: Box) -> None:
    options = (*OFTEN, "--health-cmd", WELL_ANEW, "--health-on-failure", "restart", "--stop-timeout", "0")
    box.start("web", SLEEP, *options)
    before = box.state("web")["Started"]
    box.tell("web", ILL)
    box.until(lambda: box.state("web")["Started"] != before, "it is started anew")
    until(box, "web", "healthy")


def test_by_hand(box: Box) -> None:
    box.start("web", SLEEP, "--health-cmd", WELL, "--health-retries", "1")
    failed = box("healthcheck", "run", "web")
    assert (failed.returncode, failed.stdout) == (1, "unhealthy\n") and health(box, "web")["Status"] == "unhealthy"
    box.ok("exec", "web", "touch", "/well")
    assert box.ok("healthcheck", "run", "web") == "" and health(box, "web")["Status"] == "healthy"
    box.ok("pause", "web")
    assert box.refused("healthcheck", "run", "web") == f"container {box.state('web')['Id']} is paused"
    box.ok("unpause", "web")
    box.ok("stop", "-t0", "web")
    assert "it is not running" in box.refused("healthcheck", "run", "web")


def test_nothing_is_checked_while_it_is_paused(box: Box) -> None:
    box.start("web", SLEEP, *OFTEN, "--health-cmd", "true")
    until(box, "web", "healthy")
    box.ok("pause", "web")
    paused = log_time(time.time())  # one that was under way then may end later
    time.sleep(0.6 * SLOWNESS)
    assert [entry for entry in health(box, "web")["Log"] if entry["Start"] > paused] == []
    box.ok("unpause", "web")
    box.until(lambda: health(box, "web")["Log"][-1]["Start"] > paused)


def test_in_the_foreground_too(box: Box) -> None:
    script = "until [ -e /checked ]; do sleep 0.1; done; ls /checked"
    done = box("run", "--rm", "--network", "none", *OFTEN, "--health-cmd", "touch /checked", "base", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "/checked\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--health-interval", "soon"), "invalid value 'soon' for --health-interval"),
        (("--health-interval", "1s"), "times are set, but there is no health check"),
        (("--no-healthcheck", "--health-cmd", "true"), "--no-healthcheck can't be combined with"),
        (("--health-on-failure", "pray"), "invalid value 'pray' for --health-on-failure"),
    ],
)
def test_options_that_cannot_be_meant(box: Box, options: tuple[str, ...], words: str) -> None:
    assert words in box.refused("run", "-d", *options, "base", "true")
    assert box.left() == []
