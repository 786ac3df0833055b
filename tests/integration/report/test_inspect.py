"""inspect of containers: Docker's members say what is, while they run and after."""

from __future__ import annotations

import json
from typing import Any

from tests.container_box import Box
from tests.probes import requires

pytestmark = requires("root")


def look(box: Box, name: str) -> dict[str, Any]:
    (found,) = json.loads(box.ok("container", "inspect", name))
    assert isinstance(found, dict)
    return found


def test_a_life(box: Box) -> None:
    box.ok("create", "--network", "none", "--name", "web", "--label", "team=blue", "-m", "64m", "--cpus", "0.5",
           "--restart", "on-failure:3", "--ulimit", "nofile=10:20", "--tmpfs", "/tmp:size=1m", "--log-opt",
           "max-size=1m", "--sysctl", "net.core.somaxconn=9", "-v", "data:/data", "-v", "/etc:/host:ro",
           "base", "sh", "-c", "exec sleep 100")  # fmt: skip
    found = look(box, "web")
    assert (found["State"]["Status"], found["State"]["Running"], found["State"]["Pid"]) == ("created", False, 0)
    assert found["State"]["StartedAt"] == found["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    host = found["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 << 20, 128 << 20, 500_000_000)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert host["Tmpfs"] == {"/tmp": "size=1m"} and host["Sysctls"] == {"net.core.somaxconn": "9"}
    assert host["LogConfig"]["Config"] == {"max-size": "1m"}
    assert found["Config"]["Labels"]["team"] == "blue" and "io.minibox.seccomp" not in found["Config"]["Labels"]
    mounts = {each["Destination"]: (each["Type"], each.get("Name"), each["RW"]) for each in found["Mounts"]}
    assert mounts == {"/data": ("volume", "data", True), "/host": ("bind", None, False)}
    assert found["GraphDriver"]["Data"]["UpperDir"].endswith("/upper")

    box.ok("start", "web")
    box.ok("pause", "web")
    state = look(box, "web")["State"]
    assert (state["Status"], state["Running"], state["Paused"]) == ("paused", True, True) and state["Pid"] > 0
    assert look(box, "web")["LogPath"].endswith("/log")
    box.ok("unpause", "web")
    box.ok("stop", "-t", "0", "web")
    state = look(box, "web")["State"]
    assert (state["Status"], state["Running"], state["ExitCode"], state["Pid"]) == ("exited", False, 137, 0)
    assert found["Created"] < state["StartedAt"] < state["FinishedAt"]


def test_its_address(box: Box) -> None:
    box.ok("run", "-d", "--name", "web", "base", "sleep", "100")
    network = look(box, "web")["NetworkSettings"]
    shown = box.ok("exec", "web", "ip", "addr", "show", "eth0")
    assert f"inet {network['IPAddress']}/{network['IPPrefixLen']} " in shown and network["MacAddress"] in shown
    assert network["Gateway"] in box.ok("exec", "web", "ip", "route")
    assert box.ok("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "web") == network["IPAddress"]
    box.ok("stop", "-t", "0", "web")
    assert look(box, "web")["NetworkSettings"]["IPAddress"] == ""


def test_one_that_is_started_again_and_again(box: Box) -> None:
    box.start("web", "exit 7", "--restart", "on-failure:2")
    box.until(lambda: look(box, "web")["State"]["Status"] == "exited")
    found = look(box, "web")
    assert (found["RestartCount"], found["State"]["ExitCode"]) == (2, 7)
    assert box.ok("container", "ls", "-a", "--format", "{{.Status}}").startswith("Exited (7) ")
