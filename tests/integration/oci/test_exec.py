"""`minibox-oci exec`: another process in a container, by arguments or by process.json."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.leaks import SLOWNESS
from tests.oci_runtime import Runtime, console
from tests.probes import requires

pytestmark = [requires("root", "command:busybox")]
CAPS = {name: ["CAP_KILL", "CAP_CHOWN"] for name in ("bounding", "effective", "permitted")}


@pytest.fixture
def runtime(state: Path, minibox: Run) -> Iterator[Runtime]:
    """With a container c1 that runs."""
    runtime = Runtime(state)
    spec = runtime.bundle.spec("sleep", "1000")
    spec["process"] |= {"env": ["PATH=/bin", "A=1"], "capabilities": CAPS, "noNewPrivileges": True}
    runtime.create("c1", spec)
    runtime.ok("start", "c1")
    yield runtime
    runtime.remove_all()
    assert runtime.left() == []


def test_exit_status_and_streams(runtime):
    done = runtime.run("exec", "c1", "sh", "-c", "cat; echo err >&2; exit 7", stdin=None, input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "err\n")
    assert runtime.run("exec", "c1", "sh", "-c", "kill -9 $$").returncode == 137


def test_it_is_as_the_containers_first_process_but_for_the_options(runtime):
    assert runtime.ok("exec", "c1", "sh", "-c", "echo $A; pwd; id") == "1\n/\nuid=0 gid=0\n"
    words = ("--env", "A=2", "-e", "B=3", "--user", "5:6", "-g", "7", "--cwd", "/bin")
    assert runtime.ok("exec", *words, "c1", "sh", "-c", "echo $A $B; pwd; id") == "2 3\n/bin\nuid=5 gid=6 groups=7\n"


def status_of(runtime, *words):
    text = runtime.ok("exec", *words, "c1", "grep", "-E", "^(CapEff|NoNewPrivs|NSpid)", "/proc/self/status")
    return dict(line.split(":\t") for line in text.splitlines())


def test_capabilities_are_the_containers_and_those_that_are_added(runtime):
    assert int(status_of(runtime)["CapEff"], 16) == 1 << 5 | 1 << 0
    assert int(status_of(runtime, "--cap", "CAP_NET_RAW")["CapEff"], 16) == 1 << 13 | 1 << 5 | 1 << 0
    assert status_of(runtime)["NoNewPrivs"] == "1"


def test_namespaces_and_cgroup_are_the_containers(runtime):
    pid = runtime.state("c1")["pid"]
    script = "for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup"
    lines = runtime.ok("exec", "c1", "sh", "-c", script).splitlines()
    assert lines[:5] == [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid", "net", "ipc", "uts", "mnt")]
    assert sorted(lines[5:]) == sorted(Path(f"/proc/{pid}/cgroup").read_text().splitlines())


def test_a_process_from_a_file(runtime, tmp_path):
    path = tmp_path / "process.json"
    process = {"cwd": "/bin", "args": ["sh", "-c", "pwd; id -u; echo $C"], "env": ["PATH=/bin", "C=3"]}
    path.write_text(json.dumps(process | {"user": {"uid": 9, "gid": 9}, "terminal": False, "selinuxLabel": None}))
    assert runtime.ok("exec", "--process", str(path), "c1") == "/bin\n9\n3\n"
    path.write_text(json.dumps({name: value for name, value in process.items() if name != "cwd"}))
    assert "the field cwd is missing" in runtime.error("exec", "-p", str(path), "c1", status=255)
    assert "No such file" in runtime.error("exec", "-p", "/none", "c1", status=255)


def test_detached_with_a_pid_file(runtime, tmp_path):
    """As conmon and containerd's shim do it: the process becomes theirs."""
    runtime.ok("exec", "--detach", "--pid-file", str(tmp_path / "pid"), "c1", "sleep", "500", stdout=None, stderr=None)
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\0" + b"500\0"
    assert pid in json.loads(runtime.ok("ps", "-f", "json", "c1"))
    os.kill(pid, 9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9


@pytest.mark.parametrize("way", ["exec", "run"])
def test_however_soon_it_ends_the_caller_hears_it(runtime, tmp_path, way):
    for _ in range(5):
        if way == "exec":
            words = ["exec", "--detach", "--pid-file", str(tmp_path / "pid"), "c1", "sh", "-c", "exit 9"]
        else:
            runtime.write(runtime.bundle.shell("exit 9"))
            words = ["run", "--detach", "--pid-file", str(tmp_path / "pid"), "-b", str(runtime.bundle.path), "c2"]
        runtime.ok(*words, stdout=None, stderr=None)
        assert os.waitstatus_to_exitcode(os.waitpid(int((tmp_path / "pid").read_text()), 0)[1]) == 9
        if way == "run":
            runtime.ok("delete", "c2")


def test_detached_with_a_command_that_cannot_be(runtime, tmp_path):
    (runtime.bundle.rootfs / "garbage").write_bytes(b"\1\2\3")
    (runtime.bundle.rootfs / "garbage").chmod(0o755)
    words = ("exec", "--detach", "--pid-file", str(tmp_path / "pid"), "c1")
    assert "exec format error" in runtime.error(*words, "/garbage", status=255)
    os.waitpid(-1, 0)  # a process of the container's pid namespace that nobody waited for would hold up its end
    assert "executable file not found in $PATH" in runtime.error(*words, "none", status=255)
    assert not (tmp_path / "pid").exists()
    assert sorted(os.listdir(runtime.root / "c1")) == ["gate.report", "spec", "state.json"]


def test_a_terminal_by_console_socket(runtime, tmp_path):
    with console(tmp_path / "console") as receive:
        words = (
            "--tty",
            "--detach",
            "--console-socket",
            str(tmp_path / "console"),
            "--pid-file",
            str(tmp_path / "pid"),
        )
        runtime.ok("exec", *words, "c1", "sh", "-c", "tty; read line; echo got $line")
        master, _ = receive()
        os.write(master, b"words\n")
        shown = b""
        while b"got words" not in shown:
            shown += os.read(master, 4096)
        assert b"/dev/pts/" in shown
    os.waitpid(int((tmp_path / "pid").read_text()), 0)
    assert "cannot allocate tty" in runtime.error("exec", "-t", "-d", "c1", "true", status=255)


def test_what_cannot_be(runtime):
    assert "process args cannot be empty" in runtime.error("exec", "c1", status=255)
    assert "no such cgroup" in runtime.error("exec", "--cgroup", "/none", "c1", "true", status=255)
    assert "leads out" in runtime.error("exec", "--cgroup", "../..", "c1", "true", status=255)
    assert "is not a number" in runtime.error("exec", "--user", "root", "c1", "true", status=255)
    runtime.ok("kill", "c1", "KILL")
    runtime.wait_for("c1", "stopped")
    assert runtime.error("exec", "c1", "true", status=255) == "exec failed: cannot exec in a stopped container"


def test_in_a_paused_one_it_waits(runtime):
    runtime.ok("pause", "c1")
    assert "paused" in runtime.error("exec", "c1", "true", status=255)
    argv = runtime.argv("exec", "--ignore-paused", "c1", "echo", "late")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        time.sleep(0.5)
        assert process.poll() is None
        runtime.ok("resume", "c1")
        assert process.communicate(timeout=60 * SLOWNESS)[0] == "late\n"


def test_its_end_is_not_the_containers(runtime):
    for _ in range(3):
        assert runtime.run("exec", "c1", "false").returncode == 1
        time.sleep(0.05)
    assert runtime.state("c1")["status"] == "running"
