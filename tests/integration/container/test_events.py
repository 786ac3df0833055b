"""events: what users of `docker events` know happens, in that order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from functools import partial
from typing import Any

from minibox.engine.state import claim
from tests.container_box import Box
from tests.probes import requires
from tests.running_container import running

pytestmark = requires("root")


def happened(box: Box, *words: str) -> list[dict[str, Any]]:
    text = box.ok("events", "--since", "1h", "--until", "0s", "--format", "json", *words)
    return [json.loads(line) for line in text.splitlines()]


def actions(box: Box, *words: str) -> list[str]:
    return [event["Action"] for event in happened(box, *words)]


def test_a_life(box: Box) -> None:
    box.ok("create", "--network", "none", "--name", "web", "--label", "team=blue", "base", "sleep", "100")
    for command in (("start",), ("pause",), ("unpause",), ("stop", "-t", "0"), ("start",)):
        box.ok(*command, "web")
    box.ok("rename", "web", "site")
    box.ok("kill", "site")
    box.ok("rm", "site")
    expected = ["create", "start", "pause", "unpause", "kill", "kill", "die", "stop", "start", "rename", "kill", "die",
                "destroy"]  # fmt: skip
    assert actions(box, "--filter", "type=container", "--filter", "label=team=blue") == expected
    (first, second) = happened(box, "--filter", "event=die", "--filter", "label=team")
    assert first["Actor"]["Attributes"]["exitCode"] == second["Actor"]["Attributes"]["exitCode"] == "137"
    assert (first["Actor"]["Attributes"]["name"], second["Actor"]["Attributes"]["name"]) == ("web", "site")
    assert first["from"] == "base" and first["timeNano"] < second["timeNano"]


def test_a_run_in_the_foreground(any_box: Box) -> None:
    any_box("run", "--rm", "--network", "none", "--name", "lab", "base", "sh", "-c", "exit 3")
    assert actions(any_box, "--filter", "container=lab") == ["create", "start", "die", "destroy"]
    (died,) = happened(any_box, "--filter", "container=lab", "--filter", "event=die")
    assert died["Actor"]["Attributes"]["exitCode"] == "3"


def test_rm_by_force_says_that_it_killed(box: Box) -> None:
    box.start("web", "exec sleep 100")
    box.ok("rm", "-f", "web")
    assert actions(box, "--filter", "container=web") == ["create", "start", "kill", "die", "destroy"]


def test_rm_by_force_of_several_says_how_each_ended(box: Box) -> None:
    box.start("killed", "exec sleep 100")
    box.start("paused", "exec sleep 100")
    box.ok("pause", "paused")
    box.start("orphan", "exec sleep 100")
    box.start("ended", "exit 3")
    box.ok("wait", "ended")
    os.kill(box.live("orphan")[1], signal.SIGKILL)
    box.until(lambda: not claim.is_live(str(box.directory / "root"), box.state("orphan")["Id"]))
    box.ok("rm", "-f", "killed", "ended", "paused", "orphan")
    assert actions(box, "--filter", "container=killed")[2:] == ["kill", "die", "destroy"]
    assert actions(box, "--filter", "container=paused")[2:] == ["pause", "kill", "die", "destroy"]
    assert actions(box, "--filter", "container=orphan")[2:] == ["die", "destroy"]
    assert actions(box, "--filter", "container=ended")[2:] == ["die", "destroy"]
    assert box.left() == []


def test_one_that_waits_for_its_restart_does_not_die_again(box: Box) -> None:
    def waits_long(name: str) -> bool:
        return box.state(name).get("RestartCount", 0) > 4 and box.state(name)["Status"] == "restarting"

    for name in ("removed", "orphan"):
        box.start(name, "exit 3", "--restart", "always")
        box.until(partial(waits_long, name))
        if name == "orphan":
            os.kill(box.live(name)[1], signal.SIGKILL)
            box.until(lambda: not claim.is_live(str(box.directory / "root"), box.state("orphan")["Id"]))
            assert "Exited (3)" in box.ok("ps", "--all")
        box.ok("rm", "-f", name)
        found = actions(box, "--filter", f"container={name}")
        assert found.count("die") == found.count("start"), found
        assert found[-1] == "destroy"


def test_events_are_shown_as_they_happen(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    since = ("--since", f"{time.time():.6f}")  # it may begin to look after the start
    words = [*minibox_command, "events", *since, "--filter", "container=web", "--format", "{{.Action}}"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout
            box.start("web", "exec sleep 100")
            assert [following.stdout.readline().strip() for _ in range(2)] == ["create", "start"]
            box.ok("rm", "-f", "web")
            assert [following.stdout.readline().strip() for _ in range(3)] == ["kill", "die", "destroy"]
        finally:
            following.kill()


def test_images_volumes_and_exec(box: Box) -> None:
    archive = str(box.directory / "saved.tar")
    for words in (
        ("tag", "base", "app:1"), ("save", "-o", archive, "app:1"), ("rmi", "app:1"), ("load", "-i", archive),
        ("volume", "create", "data"), ("volume", "rm", "data"),
    ):  # fmt: skip
        box.ok(*words)
    assert actions(box, "--filter", "image=app") == ["tag", "save", "untag", "load"]
    assert actions(box, "--filter", "volume=data") == ["create", "destroy"]
    container_id = box.start("web", "exec sleep 100", "-v", "implied:/data")
    assert actions(box, "--filter", "type=volume", "--filter", "volume=implied") == ["create"]
    box("exec", container_id[:12], "sh", "-c", "exit 4")
    done = happened(box, "--filter", "container=web")[2:]
    assert [each["Action"] for each in done] == ["exec_create: sh -c exit 4", "exec_start: sh -c exit 4", "exec_die"]
    assert done[-1]["Actor"]["Attributes"]["exitCode"] == "4"
    assert actions(box, "--filter", "event=exec_die") == ["exec_die"]


def test_out_of_memory_is_an_event(box: Box) -> None:
    box("run", "--rm", "-m", "16m", "--memory-swap", "16m", "--network", "none", "--name", "big", "base",
        "sh", "-c", "x=x; while :; do x=$x$x; done")  # fmt: skip
    assert actions(box, "--filter", "container=big") == ["create", "start", "oom", "die", "destroy"]


def test_the_end_of_one_whose_owner_was_killed(
    box: Box, minibox_command: list[str], environment: dict[str, str]
) -> None:
    with running(minibox_command, environment, "--network", "none", "--name", "lab") as started:
        box.until(lambda: actions(box, "--filter", "event=start"))
        started.process.kill()
        started.process.wait()
        assert box.ok("ps", "-q") == ""
    assert actions(box, "--filter", "container=lab") == ["create", "start", "die", "destroy"]
    (died,) = happened(box, "--filter", "event=die")
    assert died["Actor"]["Attributes"]["exitCode"] == "137"
