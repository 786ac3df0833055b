"""Debian's containerd: its client `ctr`, and minibox-oci by the binary option of the runc v2 shim."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.engines import (
    Client,
    Daemon,
    engine_environment,
    remove_cgroups,
    runtime,
    unmount_below,
    wait_until,
)
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root", "command:containerd", "command:ctr", "command:containerd-shim-runc-v2")
IMAGE = "docker.io/library/base:latest"
CGROUP = f"mbengine-containerd-{os.getpid()}"
UNTIL_READ = "for i in $(seq 600); do [ -e /tmp/read ] && break; sleep 0.1; done"
RUNC_ROOT = f"/run/{CGROUP}"
CONFIGURATION = """
version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{place}/containerd.sock"
[plugins."io.containerd.runtime.v2.task"]
platforms = ["linux/amd64"]
"""


@pytest.fixture(scope="module")
def engine(session_directory: Path, seed: Path, minibox_command: list[str]) -> Iterator[Client]:
    """A containerd that has minibox's own `base`, and its client."""
    place = session_directory / "containerd"
    place.mkdir()
    (place / "config.toml").write_text(CONFIGURATION.format(place=place))
    environment = engine_environment(CONTAINERD_ADDRESS=f"{place}/containerd.sock")
    client = Client(["ctr"], environment)
    daemon = Daemon(
        ["containerd", "--config", f"{place}/config.toml"],
        place / "containerd.log",
        lambda: client("version", status=None).returncode == 0,
        env=environment,
    )
    own = {"MINIBOX_ROOT": str(seed), "MINIBOX_RUNROOT": f"{place}/run", "PATH": os.environ["PATH"]}
    subprocess.run([*minibox_command, "save", "--output", f"{place}/base.tar", "base"], env=own, check=True)
    try:
        daemon.start()
        client("images", "import", "--base-name", "base", f"{place}/base.tar")
        run(client, "first", "true")
        yield client
    finally:
        clear(client)
        daemon.stop()
        remove_cgroups(CGROUP)
        unmount_below(place)
        shutil.rmtree(RUNC_ROOT, ignore_errors=True)


@pytest.fixture
def asked(engine: Client) -> Iterator[Client]:
    """The engine, with everything removed that the test makes."""
    yield engine
    clear(engine)


def clear(engine: Client) -> None:
    for name in engine.out("tasks", "ls", "--quiet").split():
        engine("tasks", "rm", "--force", name, status=None)
    if names := engine.out("containers", "ls", "--quiet").split():
        engine("containers", "rm", *names)


def options(name: str) -> tuple[str, ...]:
    return ("--runc-binary", runtime(), "--runc-root", RUNC_ROOT, "--cgroup", f"/{CGROUP}/{name}")


def run(engine: Client, name: str, *command: str, more: tuple[str, ...] = (), **keywords: object):
    return engine("run", "--rm", *options(name), *more, IMAGE, name, *command, **keywords)  # type: ignore[arg-type]


def start(engine: Client, name: str, *command: str, more: tuple[str, ...] = ()) -> None:
    engine("run", "--detach", *options(name), *more, IMAGE, name, *(command or ("sleep", "1000")))


def tasks(engine: Client) -> dict[str, tuple[str, str]]:
    """Name -> (pid, status)."""
    lines = engine.out("tasks", "ls").splitlines()[1:]
    return {words[0]: (words[1], words[2]) for words in map(str.split, lines)}


def test_output_and_exit_status(asked):
    argv = ("run", "--rm", *options("one"), IMAGE, "one", "sh", "-c", f"echo out; echo err >&2; {UNTIL_READ}; exit 7")
    assert lines_of(asked, "one", argv, "stdout", "stderr", status=7) == ["out\n", "err\n"]
    assert "nothing" in run(asked, "two", "nothing", status=None).stderr
    assert asked.out("containers", "ls", "--quiet") in ("", "two")


def test_a_task_is_listed_and_is_where_it_was_asked_for(asked):
    start(asked, "one")
    pid, status = tasks(asked)["one"]
    assert status == "RUNNING"
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    own = {line.split(":")[1]: line.split(":", 2)[2] for line in lines}
    assert own["memory" if "memory" in own else ""] == f"/{CGROUP}/one"
    assert pid in asked.out("tasks", "ps", "one").split()


def test_exec_kill_and_rm(asked):
    start(asked, "one", more=("--env", "A=1", "--cwd", "/tmp"))
    assert output_of_exec(asked, "one", "echo $A $PWD") == "1 /tmp\n"
    asked("tasks", "exec", "--exec-id", "b", "one", "sh", "-c", "exit 9", status=9)
    asked("tasks", "exec", "--exec-id", "c", "--detach", "one", "sleep", "1000")
    asked("tasks", "kill", "--exec-id", "c", "one")
    asked("tasks", "kill", "--signal", "SIGKILL", "one")
    wait_until(lambda: tasks(asked)["one"][1] == "STOPPED", "it has ended")
    assert "exit code 137" in asked("tasks", "rm", "one", status=None).stderr
    assert "one" not in tasks(asked)
    asked("containers", "rm", "one")


def output_of_exec(engine: Client, name: str, script: str) -> str:
    """The line that a shell script writes."""
    words = ("tasks", "exec", "--exec-id", "a", name, "sh", "-c", f"{script}; {UNTIL_READ}; exit 0")
    return lines_of(engine, name, words, "stdout")[0]


def lines_of(engine: Client, name: str, words: tuple[str, ...], *streams: str, status: int = 0) -> list[str]:
    """The line that a process writes to each of its streams in a container whose /tmp can be written to.

    It goes on until they are here, by `UNTIL_READ`: of a process that has ended ctr gives up the FIFO that it is still
    opening, and with it what was written, on a busy machine once in a hundred times; under runc too.
    """
    options: dict[str, Any] = {"env": engine.environment, "stdin": subprocess.DEVNULL, "text": True}
    options |= dict.fromkeys(streams, subprocess.PIPE)
    with subprocess.Popen([*engine.command, *words], **options) as process:
        lines: list[str] = [getattr(process, stream).readline() for stream in streams]
        Path(f"/proc/{tasks(engine)[name][0]}/root/tmp/read").touch()
    assert process.returncode == status
    return lines


def test_all_of_it_ends_with_its_first_process(asked):
    """In the host's pid namespace the kernel doesn't see to that: the shim has the runtime kill all."""
    start(asked, "one", "sh", "-c", "sleep 1000 & sleep 1000", more=("--with-ns", f"pid:/proc/{os.getpid()}/ns/pid"))
    pids = wait_until(lambda: (found := pids_of(asked, "one")) and len(found) >= 2 and found, "it has forked")
    os.kill(int(tasks(asked)["one"][0]), signal.SIGKILL)
    wait_until(lambda: tasks(asked)["one"][1] == "STOPPED", "it has ended")
    wait_until(lambda: not any(map(is_alive, pids)), "all have ended")


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids_of(engine: Client, name: str) -> list[str]:
    return [line.split()[0] for line in engine.out("tasks", "ps", name).splitlines()[1:]]


def test_pause_metrics_and_limits(asked):
    more = ("--memory-limit", str(64 << 20), "--cpus", "0.5")
    start(asked, "one", "sh", "-c", "while :; do :; done", more=more)
    asked("tasks", "pause", "one")
    assert tasks(asked)["one"][1] == "PAUSED"
    pid = tasks(asked)["one"][0]
    before = ticks(pid)
    found = asked.out("tasks", "metrics", "one")
    assert ticks(pid) == before
    asked("tasks", "resume", "one")
    assert tasks(asked)["one"][1] == "RUNNING"
    wait_until(lambda: ticks(pid) > before, "it goes on")
    words = dict(words for line in found.splitlines() if len(words := line.split()) == 2)
    assert int(words["memory.usage_in_bytes" if "memory.usage_in_bytes" in words else "memory.usage"]) > 0
    limit = [
        value for key, value in words.items() if key in ("memory.stat.hierarchical_memory_limit", "memory.usage_limit")
    ]
    assert limit in ([str(64 << 20)], [])


def ticks(pid: str) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_a_terminal(asked):
    argv = ["run", "--rm", "--tty", *options("term"), IMAGE, "term", "sh"]
    child = pexpect.spawn(
        "ctr", argv, env=asked.environment, dimensions=(33, 99), encoding="utf-8", timeout=30 * SLOWNESS
    )
    child.expect("# ")
    child.sendline("until stty size | grep '33 9''9'; do sleep 0.1; done; test -t 0 && echo is a terminal")
    child.expect("33 99")
    child.expect("is a terminal")
    child.sendline("exit 5")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 5


def test_host_network_mounts_and_privileges(asked, tmp_path):
    (tmp_path / "file").write_text("outside\n")
    more = (
        "--net-host",
        "--read-only",
        "--mount",
        f"type=bind,src={tmp_path},dst=/mnt,options=rbind:ro",
    )
    script = "cat /mnt/file; touch /mnt/x /x 2>&1 | grep -c 'Read-only'; readlink /proc/self/ns/net"
    done = run(asked, "one", "sh", "-c", script, more=more)
    assert done.stdout.split() == ["outside", "2", os.readlink("/proc/self/ns/net")]
