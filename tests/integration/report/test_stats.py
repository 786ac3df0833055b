"""stats: what is shown is what a container uses, with a cgroup of either version and without one."""

from __future__ import annotations

import json
import time
from typing import Any

import pexpect
import pytest

from tests.container_box import Box
from tests.leaks import SLOWNESS
from tests.probes import requires, requires_user

pytestmark = requires("root")

BUSY = "echo ready; while :; do :; done"


def rows(box: Box, *words: str) -> dict[str, dict[str, Any]]:
    lines = box.ok("stats", "--no-stream", "--format", "json", *words).splitlines()
    return {row["Name"]: row for row in map(json.loads, lines)}


@pytest.mark.parametrize(
    "any_box", ["root", pytest.param("user", marks=[requires_user, pytest.mark.kernel])], indirect=True
)
def test_a_busy_and_an_idle_container(any_box: Box) -> None:
    any_box.start("busy", BUSY)
    any_box.start("idle", "sleep 100 & sleep 100 & echo ready; wait")
    for name in ("busy", "idle"):
        any_box.until_logged(name, "ready")
    found: dict[str, dict[str, Any]] = {}

    def is_busy() -> bool:  # the machine may have had something better to do meanwhile
        found.update(rows(any_box))
        return float(found["busy"]["CPUPerc"].rstrip("%")) > 10

    any_box.until(is_busy)
    assert set(found) == {"busy", "idle"}
    assert 10 > float(found["idle"]["CPUPerc"].rstrip("%"))
    assert (found["busy"]["PIDs"], found["idle"]["PIDs"]) == ("1", "3")
    used, _, limit = found["idle"]["MemUsage"].partition(" / ")
    assert used != "0B" and "--" not in used and limit.endswith("GiB")
    assert found["idle"]["NetIO"] == "0B / 0B" and "--" not in found["idle"]["BlockIO"]
    any_box.ok("rm", "-f", "busy", "idle")


@pytest.mark.kernel
@requires("cgroup:memory")
def test_memory_and_its_limit(box: Box) -> None:
    box.start("web", "head -c 20000000 /dev/zero >/dev/shm/held; echo ready; exec sleep 100", "-m", "40m")
    box.until_logged("web", "ready")
    row = rows(box, "web")["web"]
    used, _, limit = row["MemUsage"].partition(" / ")
    assert limit == "40MiB" and 19 < float(used.removesuffix("MiB")) < 30
    assert 45 < float(row["MemPerc"].rstrip("%")) < 75


def test_one_that_has_ended_uses_nothing(box: Box) -> None:
    box.ok("run", "--network", "none", "--name", "done", "base", "true")
    assert rows(box) == {}
    assert rows(box, "-a")["done"]["MemUsage"] == rows(box, "done")["done"]["MemUsage"] == "0B / 0B"
    assert "there is no container" in box.refused("stats", "--no-stream", "nobody")
    assert "template" in box.refused("stats", "--format", "{{nothing .}}")


def test_a_live_table_stays_in_place(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    box.start("web", "exec sleep 100")
    with pexpect.spawn(minibox_command[0], ["stats"], env=environment, encoding="utf-8", dimensions=(10, 120)) as shown:
        shown.expect_exact("\x1b[2J\x1b[H")
        shown.expect("CONTAINER ID")
        shown.expect("web")
        box.start("later", "exec sleep 100")
        shown.expect("later", timeout=30 * SLOWNESS)
        box.ok("rm", "-f", "later")
        shown.expect_exact("\x1b[J", timeout=30 * SLOWNESS)
        time.sleep(0.1)
        shown.sendintr()
        shown.expect(pexpect.EOF)
