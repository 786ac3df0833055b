"""Debian's dockerd with minibox-oci as its default runtime."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.engines import IMAGE, Docker, busybox_archive, docker, wait_until
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root", "command:dockerd", "command:containerd", "command:iptables", "command:busybox")
SLEEP = ("sleep", "1000")


@pytest.fixture(scope="module")
def archive(session_directory: Path) -> Path:
    return busybox_archive(session_directory / "docker.tar")


@pytest.fixture(scope="module")
def engine(session_directory: Path, archive: Path) -> Iterator[Docker]:
    with docker(session_directory / "docker", archive) as engine:
        yield engine


@pytest.fixture
def asked(engine: Docker) -> Iterator[Docker]:
    """The engine, with everything removed that the test makes."""
    yield engine
    engine.clear()


def test_output_input_and_exit_status(asked):
    done = asked("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; echo err >&2; exit 7", status=7, input="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "err\n")
    assert "executable file not found" in asked("run", "--rm", IMAGE, "nothing", status=127).stderr
    assert "ermission denied" in asked("run", "--rm", IMAGE, "/etc", status=126).stderr
    assert asked.out("ps", "--all", "--quiet") == ""


def test_it_is_the_runtime_under_test(asked):
    asked("run", "--detach", "--name", "one", IMAGE, *SLEEP)
    assert asked.out("inspect", "--format", "{{.HostConfig.Runtime}}", "one") == "tested"
    pid = asked.out("inspect", "--format", "{{.State.Pid}}", "one")
    container = asked.out("inspect", "--format", "{{.Id}}", "one")
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    own = {line.split(":")[1]: line.split(":", 2)[2] for line in lines}
    assert own["memory" if "memory" in own else ""] == f"/{asked.cgroup}/{container}"


def test_exec(asked):
    asked("run", "--detach", "--name", "one", "--env", "A=1", IMAGE, *SLEEP)
    words = ("--env", "B=2", "--workdir", "/tmp", "--user", "guest")
    assert asked.out("exec", *words, "one", "sh", "-c", "id -u; pwd; echo $A$B").split() == ["7", "/tmp", "12"]
    assert asked("exec", "one", "sh", "-c", "exit 9", status=9)
    assert asked.out("exec", "-i", "one", "cat", input="through") == "through"
    assert asked("exec", "one", "nothing", status=None).returncode in (126, 127)


def test_a_terminal_of_the_size_that_it_has(asked):
    argv = ["run", "--rm", "-it", "--name", "term", IMAGE, "sh"]
    child = pexpect.spawn(
        "docker", argv, env=asked.environment, dimensions=(33, 99), encoding="utf-8", timeout=30 * SLOWNESS
    )
    child.expect("/ # ")
    child.sendline("until stty size | grep '33 9''9'; do sleep .1; done; test -t 0 && echo is a terminal")
    child.expect("33 99")
    child.expect("is a terminal")
    child.setwinsize(44, 88)
    child.sendline("until stty size | grep '44 8''8'; do sleep .1; done")
    child.expect("44 88")
    child.sendline("exit 5")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 5
    asked("run", "--detach", "--name", "one", IMAGE, *SLEEP)
    assert asked.out("exec", "-t", "one", "sh", "-c", "test -t 1 && echo yes") == "yes"


def test_stop_kill_wait_and_logs(asked):
    asked(
        "run",
        "-d",
        "--name",
        "kind",
        IMAGE,
        "sh",
        "-c",
        "trap 'echo bye; exit 3' TERM; echo hi; while :; do sleep .1; done",
    )
    wait_until(lambda: "hi" in asked.out("logs", "kind"), "it has begun")
    asked("stop", "kind")
    assert asked.out("logs", "kind") == "hi\nbye"
    assert asked.out("wait", "kind") == "3"
    asked("run", "--detach", "--name", "deaf", IMAGE, *SLEEP)
    asked("stop", "--time", "0", "deaf")
    assert asked.out("inspect", "--format", "{{.State.ExitCode}}", "deaf") == "137"
    asked("start", "kind")
    asked("kill", "--signal", "KILL", "kind")
    assert asked.out("wait", "kind") == "137"


def test_pause_top_and_stats(asked):
    asked("run", "-d", "--name", "one", IMAGE, "sh", "-c", "while :; do echo $((i+=1)) > /tmp/now; done")
    assert "> /tmp/now" in asked.out("top", "one")
    wait_until(lambda: asked("exec", "one", "test", "-s", "/tmp/now", status=None).returncode == 0, "it writes")
    asked("pause", "one")
    assert asked.out("inspect", "--format", "{{.State.Status}}", "one") == "paused"
    before = asked.out("cp", "one:/tmp/now", "-")
    time.sleep(1.1)
    assert asked.out("cp", "one:/tmp/now", "-") == before
    asked("unpause", "one")

    def busy() -> dict[str, str] | None:
        found: dict[str, str] = json.loads(asked.out("stats", "--no-stream", "--format", "{{json .}}", "one"))
        return found if float(found["CPUPerc"].rstrip("%")) > 1 else None

    found = wait_until(busy, "it uses the processor")
    assert not found["MemUsage"].startswith("0B")
    assert int(found["PIDs"]) >= 1


def test_limits_and_their_update(asked):
    asked("run", "-d", "--name", "one", "--memory", "64m", "--pids-limit", "30", "--cpus", "0.5", IMAGE, *SLEEP)
    pid = asked.out("inspect", "--format", "{{.State.Pid}}", "one")

    def limit(controller: str, v1: str, v2: str) -> str:
        own = {
            line.split(":")[1]: line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        }
        place = f"{controller}{own[controller]}/{v1}" if controller in own else f"{own['']}/{v2}"
        return Path(f"/sys/fs/cgroup/{place}").read_text().strip()

    assert limit("memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert limit("pids", "pids.max", "pids.max") == "30"
    assert limit("cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    asked("update", "--memory", "32m", "--memory-swap", "32m", "--pids-limit", "20", "one")
    assert limit("memory", "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert limit("pids", "pids.max", "pids.max") == "20"


def test_out_of_memory_is_told(asked):
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=60"
    asked("run", "--name", "big", "--memory", "24m", "--memory-swap", "24m", IMAGE, "sh", "-c", script, status=None)
    how = ("inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "big")
    wait_until(lambda: asked.out(*how) == "true 137", "it is told")  # by an event of its own, after the exit or before


def test_what_a_container_may_and_sees(asked, tmp_path):
    for each in (tmp_path, tmp_path.parent):
        each.chmod(0o755)
    (tmp_path / "file").write_text("outside\n")
    options: tuple[str, ...] = (
        "--read-only",
        "--tmpfs",
        "/scratch:size=1m",
        "--volume",
        f"{tmp_path}:/data",
        "--user",
        "guest",
        "--init",
    )
    options += (
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--hostname",
        "box",
        "--sysctl",
        "net.ipv4.ip_forward=0",
    )
    script = """
    cat /data/file; touch /x 2>&1 | grep -o 'Read-only'; touch /scratch/x && echo scratch; hostname
    grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr '\t' ' '; cat /proc/1/comm
    """
    assert asked.out("run", "--rm", *options, IMAGE, "sh", "-c", script).splitlines() == [
        *("outside", "Read-only", "scratch", "box"),
        *("CapEff: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2", "docker-init"),
    ]
    devices = asked.out("run", "--rm", "--device", "/dev/fuse:/dev/other:r", IMAGE, "ls", "-l", "/dev/other")
    assert "10, 229" in devices
    mounted = asked.out(
        "run", "--rm", "--cap-add", "SYS_ADMIN", IMAGE, "sh", "-c", "mount -t tmpfs x /tmp && df -P /tmp"
    )
    assert "/tmp" in mounted


def test_containers_of_one_network_find_each_other(asked):
    """A bridge of their own, names by dockerd's resolver, and a port that is published."""
    asked("network", "create", "between")
    serve = "echo over the bridge > /tmp/index.html; httpd -f -p 80 -h /tmp"
    asked(
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "between",
        "--publish",
        "127.0.0.1:18080:80",
        IMAGE,
        "sh",
        "-c",
        serve,
    )
    fetch = ("run", "--rm", "--network", "between", IMAGE, "wget", "-qO-", "http://web/index.html")
    wait_until(lambda: asked(*fetch, status=None).stdout == "over the bridge\n", "web answers")
    with_curl = os.popen("curl --silent --max-time 60 http://127.0.0.1:18080/index.html")
    assert with_curl.read() == "over the bridge\n"
    assert with_curl.close() is None
    joined = ("run", "--rm", "--network", "container:web", "--pid", "container:web", IMAGE)
    assert "httpd" in asked.out(*joined, "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; wget -qO- http://127.0.0.1/")


def test_health_and_restart(asked):
    asked(
        "run", "-d", "--name", "well", "--health-cmd", "test -e /tmp/well", "--health-interval", "300ms", IMAGE, *SLEEP
    )
    asked("exec", "well", "touch", "/tmp/well")
    status = ("inspect", "--format", "{{.State.Health.Status}}", "well")
    wait_until(lambda: asked.out(*status) == "healthy", "it is healthy")
    asked("run", "-d", "--name", "again", "--restart", "on-failure:2", IMAGE, "false")
    count = ("inspect", "--format", "{{.RestartCount}} {{.State.Running}}", "again")
    wait_until(lambda: asked.out(*count) == "2 false", "it was started three times")


@pytest.mark.parametrize("builder", ["0", "1"], ids=["legacy", "buildkit"])
def test_build_with_run_steps(asked, tmp_path, builder):
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGE}\nCOPY a /a\nRUN cat /a > /b && id -u >> /b && chown 7:8 /b\nUSER guest\nRUN id -u > /tmp/c\n"
        'WORKDIR /work\nCMD ["sh", "-c", "cat /b /tmp/c; pwd"]\n'
    )
    (tmp_path / "a").write_text("copied\n")
    environment = {**asked.environment, "DOCKER_BUILDKIT": builder}
    asked("build", "--network", "none", "--tag", "built", tmp_path, env=environment, timeout_s=120)
    try:
        assert asked.out("run", "--rm", "built").split() == ["copied", "0", "7", "/work"]
        (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo no >&2; exit 4\n")
        failed = asked("build", "--network", "none", tmp_path, env=environment, status=None)
        assert failed.returncode != 0
        assert "4" in failed.stderr + failed.stdout
    finally:
        asked("rmi", "--force", "built")


def test_a_container_outlives_its_dockerd(session_directory, archive):
    """live-restore: dockerd is killed and started again, and the container goes on."""
    with docker(
        session_directory / "live", archive, "--live-restore", "--bridge", "none", "--iptables=false"
    ) as engine:
        script = "i=0; while :; do i=$((i + 1)); echo $i; sleep .1; done"
        engine("run", "-d", "--name", "one", "--network", "none", IMAGE, "sh", "-c", script)
        pid = engine.out("inspect", "--format", "{{.State.Pid}}", "one")
        engine.daemon.stop()
        assert Path(f"/proc/{pid}/stat").exists()
        engine.daemon.start()
        assert engine.out("inspect", "--format", "{{.State.Pid}} {{.State.Running}}", "one") == f"{pid} true"
        count = len(engine.out("logs", "one").split())
        wait_until(lambda: len(engine.out("logs", "one").split()) > count, "it writes on")
        assert engine.out("exec", "one", "echo", "here") == "here"
        engine("stop", "--time", "0", "one")
        assert engine.out("wait", "one") == "137"
