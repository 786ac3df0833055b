"""The power is cut: what a command has said is kept, is kept. `hostile/test_power_cut.py` cuts it while commands run."""

from __future__ import annotations

import subprocess

import pytest

from tests.power import after_a_cut, machine
from tests.probes import requires

__all__ = ["after_a_cut", "machine"]
pytestmark = requires("root", "command:mkfs.ext4", "command:mkfs.xfs")
FOREVER = ("base", "sleep", "1000")


@pytest.mark.parametrize("driver", ["overlay", "copy"])  # the kernel syncs an overlay's files at its end, some time
def test_how_a_container_ended_is_kept(machine, after_a_cut, driver):
    machine.variables["MINIBOX_STORAGE_DRIVER"] = driver
    machine("run", "--rm", "--network", "none", "base", "true")
    subprocess.run(["sync", "--file-system", str(machine.disk)], check=True)
    machine("run", "--network", "none", "--name", "six", "base", "sh", "-c", "exit 6", status=6)
    assert after_a_cut().states() == {"six": "Exited (6)"}
    machine("run", "--network", "none", "--name", "missing", "base", "/no/such/command", status=127)
    assert after_a_cut().states() == {"six": "Exited (6)", "missing": "Created"}
    machine("start", "-a", "six", status=6)
    found = after_a_cut()
    assert found("inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "six") == "6 exited"
    if driver == "overlay":  # a copy of the image's files may be lost, as all that a container writes
        assert found("start", "-a", "six", status=6) == ""


def test_what_runs_in_the_background_is_kept(machine, after_a_cut):
    machine("run", "-d", "--network", "none", "--name", "web", *FOREVER)
    machine("create", "--network", "none", "--name", "made", *FOREVER)
    machine("run", "-d", "--network", "none", "--name", "done", "base", "sh", "-c", "exit 4")
    assert machine("wait", "done") == "4"
    assert after_a_cut().states() == {"web": "Exited (137)", "made": "Created", "done": "Exited (4)"}
    machine("rename", "web", "net")
    machine("update", "--restart", "always", "net")
    found = after_a_cut()
    assert "net" in found.states() and found.wanted() == {"net"}


def test_what_is_removed_stays_removed(machine, after_a_cut):
    for name in ("one", "two"):
        machine("run", "-d", "--network", "none", "--restart", "always", "--name", name, *FOREVER)
    machine("run", "--network", "none", "--name", "ended", "base", "true")
    machine("rm", "-f", "one")
    machine("rm", "ended")
    found = after_a_cut()
    assert set(found.states()) == {"two"} and found.wanted() == {"two"}
    machine("stop", "-t", "0", "two")
    machine("container", "prune", "-f")
    found = after_a_cut()
    assert found.states() == {} and found("system", "boot") == ""
    assert found("system", "check", "--quick").endswith("nothing damaged, nothing left over")


def test_what_was_stopped_is_not_started(machine, after_a_cut):
    for name, policy in (("stopped", "unless-stopped"), ("ran", "unless-stopped")):
        machine("run", "-d", "--network", "none", "--restart", policy, "--name", name, *FOREVER)
    machine("stop", "-t", "0", "stopped")
    assert after_a_cut().wanted() == {"ran"}
    machine("start", "stopped")
    assert after_a_cut().wanted() == {"stopped", "ran"}


def test_volumes_and_networks_are_kept_and_removed(machine, after_a_cut):
    machine("volume", "create", "--label", "a=b", "kept")
    machine("volume", "create", "gone")
    machine("network", "create", "--label", "a=b", "kept")
    machine("network", "create", "gone")
    machine("create", "--network", "none", "--name", "web", *FOREVER)
    machine("network", "connect", "kept", "web")
    machine("run", "--rm", "--network", "none", "-v", "filled:/etc", "base", "true")
    found = after_a_cut()
    assert found("volume", "inspect", "-f", "{{.Labels}}", "kept") == "map[a:b]"
    assert set(found("volume", "ls", "-q").split()) == {"kept", "gone", "filled"}
    assert "passwd" in found("run", "--rm", "--network", "none", "-v", "filled:/etc", "base", "ls", "/etc")
    assert found("network", "ls", "--filter", "label=a=b", "-q", "--no-trunc") != ""
    assert found.joined() == {"kept"}
    machine("network", "disconnect", "kept", "web")
    machine("volume", "rm", "gone")
    machine("network", "rm", "gone")
    found = after_a_cut()
    assert set(found("volume", "ls", "-q").split()) == {"kept", "filled"}
    assert found("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}") == "kept"
    assert found.joined() == set()


def test_images_are_kept_and_removed(machine, after_a_cut):
    machine("run", "--network", "none", "--name", "web", "base", "sh", "-c", "echo content >/file")
    machine("commit", "web", "app")
    machine("tag", "app", "other")
    found = after_a_cut()
    assert {"app", "other", "base"} == set(found("images", "--format", "{{.Repository}}").split())
    assert found("run", "--rm", "--network", "none", "app", "cat", "/file") == "content"
    machine("rmi", "other")
    assert {"app", "base"} == set(after_a_cut()("images", "--format", "{{.Repository}}").split())
    machine("rmi", "-f", "app")
    assert after_a_cut()("images", "--format", "{{.Repository}}") == "base"


@requires("command:strace")
def test_a_run_that_leaves_nothing_syncs_nothing(machine, minibox_command, environment, tmp_path):
    machine("run", "--rm", "--network", "none", "base", "true")
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,sync,syncfs,sync_file_range"
    subprocess.run(
        ["strace", "-f", "-e", calls, "-o", str(trace), *minibox_command, "run", "--rm", "--network", "none", "base", "true"],
        check=True, env={**environment, **machine.variables},
    )  # fmt: skip
    assert [line for line in trace.read_text().splitlines() if "sync" in line] == []
