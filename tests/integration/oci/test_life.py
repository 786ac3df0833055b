"""Containers of `minibox-oci` from create to delete, as an engine drives them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from minibox.engine.oci import state
from tests.leaks import SLOWNESS
from tests.oci_runtime import TIMEOUT_S, Runtime, console
from tests.probes import requires

pytestmark = [requires("root", "command:busybox")]


def sleeper(runtime: Runtime):
    """A container that runs until it is told to end; SIGTERM, which a first process ignores, it hears once it is ready."""
    return runtime.bundle.shell("trap 'exit 3' TERM; echo ready; sleep 1000 & wait")


def test_the_life_of_a_container(runtime, tmp_path):
    spec = runtime.bundle.shell("echo hello; exit 5") | {"annotations": {"a": "b"}}
    runtime.create("c1", spec, "--pid-file", str(tmp_path / "pid"))
    state = runtime.state("c1")
    assert state["status"] == "created" and state["annotations"] == {"a": "b"}
    assert state["bundle"] == str(runtime.bundle.path) and state["rootfs"] == str(runtime.bundle.rootfs)
    assert state["pid"] == int((tmp_path / "pid").read_text())
    assert runtime.output("c1").read_text() == ""
    runtime.ok("start", "c1")
    assert runtime.wait_for("c1", "stopped")["pid"] == 0
    assert runtime.output("c1").read_text() == "hello\n"
    assert "c1" in runtime.ok("list") and runtime.ok("list", "-q") == "c1\n"
    assert [each["status"] for each in json.loads(runtime.ok("list", "--format", "json"))] == ["stopped"]
    runtime.ok("delete", "c1")
    assert runtime.error("state", "c1") == "container does not exist"


def test_its_process_is_left_to_the_callers_subreaper(runtime):
    """conmon and containerd's shim wait for it: this session is one of them."""
    runtime.create("c1", runtime.bundle.shell("exit 5"))
    pid = runtime.state("c1")["pid"]
    runtime.ok("start", "c1")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5


def test_start_twice_and_after_the_end(runtime):
    runtime.create("c1", sleeper(runtime))
    runtime.ok("start", "c1")
    assert runtime.error("start", "c1") == "cannot start an already running container"
    runtime.ok("kill", "c1", "KILL")
    runtime.wait_for("c1", "stopped")
    assert runtime.error("start", "c1") == "cannot start a container that has stopped"
    assert runtime.error("kill", "c1", "KILL") == "container not running"
    assert runtime.error("kill", "--all", "none") == "container does not exist"


def test_kill_is_term_by_default_and_takes_names_and_numbers(runtime):
    runtime.create("c1", sleeper(runtime))
    pid = runtime.state("c1")["pid"]
    runtime.ok("start", "c1")
    runtime.until_written("c1", "ready")
    for words in (["0"], ["SIGCONT"], ["cont"], []):
        runtime.ok("kill", "c1", *words)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert "invalid signal" in runtime.error("kill", "c1", "FOO")


def test_kill_all_reaches_every_process(runtime):
    spec = sleeper(runtime)
    spec["linux"]["namespaces"] = [each for each in spec["linux"]["namespaces"] if each["type"] != "pid"]
    runtime.create("c1", spec)
    runtime.ok("start", "c1")
    pids = json.loads(runtime.ok("ps", "--format", "json", "c1"))
    runtime.ok("kill", "--all", "c1", "KILL")
    runtime.wait_for("c1", "stopped")
    deadline = time.monotonic() + 20 * SLOWNESS
    while json.loads(runtime.ok("ps", "--format", "json", "c1")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(pids) >= 1 and json.loads(runtime.ok("ps", "--format", "json", "c1")) == []


def test_delete_wants_force_for_one_that_runs_and_takes_all_with_it(runtime):
    spec = sleeper(runtime)
    spec["linux"]["namespaces"] = [each for each in spec["linux"]["namespaces"] if each["type"] != "pid"]
    runtime.create("c1", spec)
    runtime.ok("start", "c1")
    assert runtime.error("delete", "c1") == "cannot delete container c1 that is not stopped: running"
    pids = json.loads(runtime.ok("ps", "--format", "json", "c1"))
    runtime.ok("delete", "--force", "c1")
    assert not any(os.path.exists(f"/proc/{pid}/exe") and _lives(pid) for pid in pids)
    assert runtime.error("delete", "c1") == "container does not exist"
    runtime.ok("delete", "--force", "c1")


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_delete_of_one_that_was_never_started(runtime):
    runtime.create("c1", sleeper(runtime))
    runtime.ok("delete", "c1")
    assert runtime.left() == []


def test_pause_and_resume(runtime):
    runtime.create("c1", sleeper(runtime))
    runtime.ok("start", "c1")
    runtime.ok("pause", "c1")
    assert runtime.state("c1")["status"] == "paused"
    assert "paused" in runtime.error("exec", "c1", "true", status=255)
    runtime.ok("resume", "c1")
    assert runtime.state("c1")["status"] == "running"
    assert runtime.error("resume", "c1") == "container not paused"
    runtime.ok("pause", "c1")
    runtime.ok("delete", "--force", "c1")


def test_run_in_the_foreground_and_detached(runtime):
    runtime.write(runtime.bundle.shell("cat; echo $A >&2; exit 7"))
    done = runtime.run("run", "--bundle", str(runtime.bundle.path), "c1", stdin=None, input="in\n")
    assert (done.returncode, done.stdout) == (7, "in\n") and runtime.left() == []
    assert runtime.run("run", "-b", str(runtime.bundle.path), "--keep", "c1").returncode == 7
    assert runtime.state("c1")["status"] == "stopped"
    runtime.write(sleeper(runtime))
    null = subprocess.DEVNULL
    runtime.ok("run", "-b", str(runtime.bundle.path), "--detach", "c2", stdout=null, stderr=null)
    assert runtime.state("c2")["status"] == "running"


def test_run_passes_signals_on(runtime):
    runtime.write(sleeper(runtime))
    argv = runtime.argv("run", "-b", str(runtime.bundle.path), "c1")
    with subprocess.Popen(argv, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 3 and runtime.left() == []


def test_a_terminal_is_sent_to_the_console_socket(runtime, tmp_path):
    spec = runtime.bundle.shell("tty; stty size; read line; echo got $line")
    spec["process"] |= {"terminal": True, "consoleSize": {"height": 11, "width": 22}}
    with console(tmp_path / "console") as receive:
        runtime.create("c1", spec, "--console-socket", str(tmp_path / "console"))
        master, name = receive()
        assert name
        runtime.ok("start", "c1")
        os.write(master, b"words\n")
        shown = b""
        while b"got words" not in shown:
            shown += os.read(master, 4096)
        assert b"/dev/pts/0" in shown and b"11 22" in shown


def test_descriptors_are_passed_on(runtime):
    reader, writer = os.pipe()
    try:
        script = "cat <&3; ls /proc/self/fd; echo $LISTEN_FDS"
        runtime.create(
            "c1",
            runtime.bundle.shell(script),
            "--preserve-fds",
            "1",
            close_fds=False,
            preexec_fn=lambda: os.dup2(reader, 3),
        )
        os.write(writer, b"by descriptor\n")
        os.close(writer)
        writer = -1
        runtime.ok("start", "c1")
        runtime.wait_for("c1", "stopped")
        assert runtime.output("c1").read_text().splitlines()[0] == "by descriptor"
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    assert "is not open" in runtime.error("create", "--preserve-fds", "99", "-b", str(runtime.bundle.path), "c2")


def test_update_and_events(runtime):
    runtime.create("c1", sleeper(runtime))
    runtime.ok("start", "c1")
    runtime.ok("update", "--memory", "64m", "--pids-limit", "20", "c1")
    runtime.ok("update", "--resources", "-", "c1", stdin=None, input='{"cpu": {"shares": 512}}')
    event = json.loads(runtime.ok("events", "--stats", "c1"))
    assert (event["type"], event["id"]) == ("stats", "c1")
    assert event["data"]["memory"]["usage"]["limit"] == 64 << 20 and event["data"]["pids"]["limit"] == 20
    assert "resources is not JSON" in runtime.error("update", "-r", "-", "c1", stdin=None, input="{")
    assert "invalid value for memory" in runtime.error("update", "--memory", "lots", "c1")


def test_ps_in_both_forms(runtime):
    runtime.create("c1", sleeper(runtime))
    runtime.ok("start", "c1")
    pid = runtime.state("c1")["pid"]
    assert pid in json.loads(runtime.ok("ps", "-f", "json", "c1"))
    table = runtime.ok("ps", "c1", "-o", "pid,args").splitlines()
    assert table[0].split() == ["PID", "COMMAND"] and any(line.split()[0] == str(pid) for line in table[1:])


def test_what_it_can_do_is_json(runtime):
    found = json.loads(runtime.ok("features"))
    assert found["ociVersionMax"].startswith("1.3") and "user" in found["linux"]["namespaces"]
    assert "SCMP_ACT_ERRNO" in found["linux"]["seccomp"]["actions"] and "rro" in found["mountOptions"]


def test_its_own_config_json_runs(runtime, tmp_path):
    runtime.ok("spec", "--bundle", str(runtime.bundle.path))
    assert "exists" in runtime.error("spec", "--bundle", str(runtime.bundle.path))
    spec = json.loads((runtime.bundle.path / "config.json").read_text())
    for name in ("sys",):
        (runtime.bundle.rootfs / name).mkdir()
    spec["process"] |= {"args": ["hostname"], "terminal": False}
    runtime.write(spec)
    assert runtime.ok("run", "-b", str(runtime.bundle.path), "c1") == "minibox\n"


@pytest.mark.parametrize("way", ["start", "run"])
def test_a_service_manager_hears_when_it_is_ready(runtime, tmp_path, way):
    """By a message of ours: it takes none of the container's processes."""
    (runtime.bundle.rootfs / "run").mkdir()
    spec = runtime.bundle.shell("test -S $NOTIFY_SOCKET && echo $NOTIFY_SOCKET; sleep 1000")
    path = str(tmp_path / "notify")
    environment = {**os.environ, "NOTIFY_SOCKET": path, "MINIBOX_ROOT": str(runtime.directory / "root")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(TIMEOUT_S)
        if way == "start":
            runtime.create("c1", spec, env=environment)
            words = ["start", "c1"]
        else:
            runtime.write(spec)
            words = ["run", "--bundle", str(runtime.bundle.path), "--detach", "c1"]
        with open(runtime.output("c1"), "ab") as file:
            process = subprocess.Popen(runtime.argv(*words), env=environment, stdin=subprocess.DEVNULL, stdout=file)
        state = runtime.wait_for("c1", "running")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inside:
            inside.sendto(b"STATUS=soon", f"/proc/{state['pid']}/root/run/notify/notify.sock")
            assert process.poll() is None
            inside.sendto(b"READY=1\nSTATUS=up", f"/proc/{state['pid']}/root/run/notify/notify.sock")
        assert process.wait(TIMEOUT_S) == 0
        assert manager.recv(4096) == b"READY=1\nMAINPID=%d\n" % state["pid"]
    runtime.until_written("c1", "\n")
    assert runtime.output("c1").read_text() == "/run/notify/notify.sock\n"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1e999}', "\xff", "directory", "fifo"])
def test_a_damaged_state_costs_its_container_alone(runtime: Runtime, text: str) -> None:
    """And `delete --force` ends it, by the cgroup that is noted elsewhere too."""
    for name in ("bad", "good"):
        runtime.create(name, runtime.bundle.shell("echo up; exec sleep 1000"))
        runtime.ok("start", name)
        runtime.until_written(name, "up")
    pid = runtime.state("bad")["pid"]
    path = runtime.root / "bad/state.json"
    path.unlink()
    if text == "directory":
        path.mkdir()
    elif text == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(text.encode("latin-1"))
    listed = runtime.run("list", "-q")
    assert (listed.returncode, listed.stdout) == (0, "good\n")
    assert str(path) in runtime.log.read_text() and "delete --force bad" in runtime.log.read_text()
    for words in (("state", "bad"), ("kill", "bad"), ("exec", "bad", "true"), ("delete", "bad")):
        assert "is damaged" in runtime.error(*words, status=255 if words[0] == "exec" else 1)
    runtime.ok("delete", "--force", "bad")
    assert state.start_time(pid) == 0  # it has ended, though nobody may have reaped it
    assert runtime.left() == ["good"] and runtime.state("good")["status"] == "running"


@pytest.mark.parametrize("text", ["", "{", '{"Kind": "spec", "Format": 2, "Spec": {}, "Cgroups": {}}'])
def test_a_damaged_spec_keeps_nobody_from_ending_it(runtime: Runtime, text: str) -> None:
    runtime.create("c1", runtime.bundle.shell("exec sleep 1000"))
    runtime.ok("start", "c1")
    (runtime.root / "c1/spec").write_text(text)
    said = runtime.error("exec", "c1", "true", status=255)
    assert "was written by a newer minibox (format 2" in said if "Kind" in text else "is damaged" in said
    assert runtime.state("c1")["status"] == "running"
    runtime.ok("delete", "--force", "c1")
    assert runtime.left() == []
