"""All that runs is killed at once, as by a power loss or a reboot; pids that mean another; files that are damaged."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from minibox.engine.state import claim as ownership
from minibox.linux import cgroup
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")
FOREVER = ("base", "sleep", "1000")


@pytest.fixture
def run(minibox):
    """`run --network none`, which has to succeed; what it printed."""

    def start(*words):
        done = minibox("run", "--network", "none", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return start


def rows(minibox):
    """What `ps -a` shows, by name."""
    done = minibox("ps", "-a", "--format", "{{.Names}}\t{{.State}}\t{{.Status}}")
    assert done.returncode == 0, done.stderr
    return {line.split("\t")[0]: line.split("\t")[1:] for line in done.stdout.splitlines()}


def lose_power(root: str, *container_ids: str) -> None:
    """SIGKILL for the supervisors, all at once, and no word of any; then until nobody holds a lock."""
    found = [ownership.read_owner(root, each) for each in container_ids]
    for live in found:
        assert live
        os.kill(live.supervisor, signal.SIGKILL)
    deadline = time.monotonic() + 10 * SLOWNESS
    while any(ownership.is_live(root, each) for each in container_ids):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for each in container_ids:
        group = cgroup.find(cgroup.detect(), f"minibox-{each}")
        group.kill()
        group.remove()


def test_after_a_reboot_all_have_ended_and_can_be_started(minibox, run, state):
    root = f"{state}/root"
    web, gone = run("-d", "--name", "web", *FOREVER), run("-d", "--rm", "--name", "gone", *FOREVER)
    twice = run("-d", "--name", "twice", "--restart", "always", *FOREVER)
    lose_power(root, web, gone, twice)
    shutil.rmtree(state / "run")  # a file system in memory
    found = rows(minibox)
    assert set(found) == {"web", "twice"}
    assert all(status.startswith("Exited (137)") for _, status in found.values())
    assert os.listdir(f"{root}/live") == [] and os.listdir(f"{root}/ids") == []
    assert minibox("start", "web").returncode == 0
    assert rows(minibox)["web"][0] == "running"
    assert minibox("rm", "-f", "web", "twice").returncode == 0
    assert minibox("system", "check", "--quick").stdout.endswith("nothing damaged, nothing left over\n")


def test_after_a_reboot_policies_start_what_should_run(minibox, run, state):
    root = f"{state}/root"
    policies = {
        "always": "always",
        "stopped": "unless-stopped",
        "ran": "unless-stopped",
        "failing": "on-failure",
        "no": "no",
    }
    ids = {name: run("-d", "--name", name, "--restart", policy, *FOREVER) for name, policy in policies.items()}
    assert minibox("create", "--network", "none", "--name", "made", "--restart", "always", *FOREVER).returncode == 0
    assert minibox("stop", "-t", "0", "always", "stopped").returncode == 0
    lose_power(root, *(ids[name] for name in ("ran", "failing", "no")))
    booted = minibox("system", "boot")
    assert booted.returncode == 0 and booted.stdout == "always\nran\n", booted.stderr
    assert {name for name, (status, _) in rows(minibox).items() if status == "running"} == {"always", "ran"}
    assert minibox("system", "boot").stdout == ""
    assert minibox("rm", "-f", "always", "ran").returncode == 0


def test_what_was_not_synced_is_lost_and_the_rest_is_true(minibox, run, state):
    """The files of owners never reached the disk, or without their content."""
    root = f"{state}/root"
    names = ("none", "empty", "zeros", "rm")
    ids = {name: run("-d", "--name", name, *(["--rm"] if name == "rm" else []), *FOREVER) for name in names}
    lose_power(root, *ids.values())
    os.unlink(f"{root}/live/{ids['none']}")
    Path(f"{root}/live/{ids['empty']}").write_bytes(b"")
    Path(f"{root}/live/{ids['zeros']}").write_bytes(bytes(200))
    Path(f"{root}/live/{ids['rm']}").write_bytes(b"")
    assert {name: status for name, (status, _) in rows(minibox).items()} == dict.fromkeys(names[:3], "exited")
    for name in names[:3]:
        assert minibox("inspect", "-f", "{{.State.Running}} {{.State.ExitCode}}", name).stdout == "false 137\n"
        assert minibox("stop", name).returncode == 0
        assert minibox("start", name).returncode == 0
    assert minibox("rm", "-f", *names[:3]).returncode == 0


@pytest.mark.parametrize("text", ["", '{"Id": "', "\0" * 100], ids=["empty", "half", "zeros"])
def test_a_damaged_state_costs_one_container(minibox, run, state, text):
    web = run("-d", "--name", "web", "base", "sh", "-c", "echo hello; echo data >/file")
    run("--name", "other", "base", "true")
    assert minibox("wait", "web").stdout == "0\n"
    Path(f"{state}/root/containers/{web}/state.json").write_text(text)
    found = rows(minibox)
    assert found["other"][0] == "exited" and found["web"][1].lower().startswith(("damaged", "dead"))
    for command in ("start", "inspect", "stop", "logs", "diff", "rm"):
        done = minibox(command, "web")
        assert "Traceback" not in done.stderr, done.stderr
    assert "other" in rows(minibox) and "web" not in rows(minibox)
    checked = minibox("system", "check", "--quick")
    assert checked.returncode == 0, checked.stdout


def test_a_damaged_container_says_what_to_do(minibox, run, state):
    web = run("-d", "--name", "web", "base", "sh", "-c", "echo data >/file")
    minibox("wait", "web")
    Path(f"{state}/root/containers/{web}/state.json").write_text("{")
    refused = minibox("start", "web")
    assert refused.returncode == 125 and "its state is damaged" in refused.stderr and "minibox rm" in refused.stderr
    checked = minibox("system", "check", "--quick")
    assert checked.returncode == 1 and "container web: its state.json can't be read" in checked.stdout
    waited = minibox("wait", "web")
    assert waited.returncode == 125 and "its state.json can't be read" in waited.stderr and waited.stdout == ""
    assert "data" in minibox("cp", "web:/file", "-").stdout
    assert minibox("rm", "web").returncode == 0


def test_half_a_log_costs_the_half_line(minibox, run, state):
    web = run("-d", "--name", "web", "base", "sh", "-c", "echo one; echo two")
    minibox("wait", "web")
    log = Path(f"{state}/root/containers/{web}/log")
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0] + b'{"log":"tw' + bytes(50))
    assert minibox("logs", "web").stdout == "one\n"
    assert minibox("start", "web").returncode == 0
    minibox("wait", "web")
    assert minibox("logs", "web").stdout.startswith("one\n") and minibox("logs", "web").stdout.endswith("two\n")


def test_the_record_of_layers_is_restored(minibox, state):
    script = "echo x >>/file; cat /file"
    run = ("run", "-d", "--network", "none", "--name", "web")
    made = minibox("--storage-driver", "copy", *run, "base", "sh", "-c", script)
    assert made.returncode == 0, made.stderr
    minibox("wait", "web")
    record = Path(f"{state}/root/containers/{made.stdout.strip()}/snapshot")
    before = record.read_bytes()
    record.write_bytes(b"")
    assert minibox("image", "prune", "--all", "--force").returncode == 0
    started = minibox("start", "web")
    assert started.returncode == 0, started.stderr
    minibox("wait", "web")
    assert minibox("logs", "web").stdout == "x\nx\nx\n" and record.read_bytes() == before


@pytest.fixture
def bystander():
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        assert process.poll() is None, "it was signalled"
        process.kill()


@pytest.mark.parametrize("held", [False, True])
def test_a_pid_that_means_another_is_never_signalled(minibox, run, state, bystander, held):
    """After a reboot; and between the end of a container and its owner's word of it."""
    root = f"{state}/root"
    web = run("-d", "--name", "web", *FOREVER)
    lose_power(root, web)
    path = Path(f"{root}/live/{web}")
    image = path.read_bytes().partition(b"\n")[0]
    supervisor = os.getppid() if held else bystander.pid
    path.write_bytes(image + b"\n%d %d 0\nsleep" % (bystander.pid, supervisor))
    if not held:
        assert rows(minibox)["web"][0] == "exited"
        assert minibox("rm", "-f", "web").returncode == 0
        return
    claim = os.open(path, os.O_RDWR)
    fcntl.flock(claim, fcntl.LOCK_EX)
    for command in ("kill", "pause", "exec"):
        done = minibox(command, "web", *(["true"] if command == "exec" else []))
        assert done.returncode != 0 and "not running" in done.stderr
    os.close(claim)
    assert minibox("rm", "-f", "web").returncode == 0


def test_inspect_of_a_container_that_lost_its_owner_is_json(minibox, run, state):
    web = run("-d", "--name", "web", *FOREVER)
    lose_power(f"{state}/root", web)
    (document,) = json.loads(minibox("inspect", "web").stdout)
    assert document["State"]["Status"] == "exited" and document["State"]["Pid"] == 0
    assert minibox("rm", "web").returncode == 0


def test_check_finds_and_repairs_what_nobody_holds(minibox, run, state):
    root, run_directory = state / "root", state / "run"
    web = run("-d", "--name", "web", "--memory", "64m", "base", "true")
    minibox("wait", "web")
    volume = minibox("volume", "create", "data").stdout.strip()
    ghost = "f" * 64
    (root / "ids").mkdir(exist_ok=True)
    (root / "ids/7").symlink_to(ghost)
    (root / "names/web").unlink()
    (root / "names/old").symlink_to("e" * 64)
    (root / "volumes" / volume / "_data.5.new").mkdir()
    (root / "volumes/.removed-x").mkdir()
    (root / "containers" / ghost).mkdir()
    bridge = run_directory / "network/mb-test/leases"
    bridge.mkdir(parents=True)
    (bridge.parent / "subnet").write_text("10.0.0.0/24")
    (bridge / "10.0.0.9").symlink_to(ghost)
    (run_directory / "attach").mkdir(exist_ok=True)
    (run_directory / "attach" / ghost).touch()
    cgroup.create(cgroup.detect(), f"minibox-{web}", {})
    checked = minibox("system", "check", "--quick")
    said = checked.stdout
    assert checked.returncode == 1 and "container web: its name is not registered" in said
    for what in (
        "ids/7: a range of ids", "name old: its container is gone", "volumes/data/_data.5.new: unfinished",
        "volumes/.removed-x: unfinished", "address 10.0.0.9: on mb-test", "attach/ffffffffffff: a socket",
        f"cgroup minibox-{web[:12]}: its container has ended",
    ):  # fmt: skip
        assert f"leftover  {what}" in said, said
    assert said.count("its minibox was killed") == 1
    repaired = minibox("system", "check", "--quick", "--repair")
    assert repaired.returncode == 0 and repaired.stdout.endswith("nothing damaged, nothing left over\n"), (
        repaired.stdout
    )
    assert minibox("volume", "ls", "-q").stdout == "data\n"
    assert minibox("rm", "web").returncode == 0


def test_check_leaves_what_is_held(minibox, run, state):
    run("-d", "--name", "web", "-v", "data:/data", *FOREVER)
    for more in ([], ["--repair"]):
        assert "nothing damaged, nothing left over" in minibox("system", "check", "--quick", *more).stdout
    assert rows(minibox)["web"][0] == "running" and minibox("exec", "web", "true").returncode == 0
    assert minibox("rm", "-f", "web").returncode == 0
