"""Debian's podman with minibox-oci as its runtime, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests import isolation
from tests.conftest import AS_USER
from tests.engines import (
    IMAGE,
    Client,
    busybox_archive,
    engine_environment,
    processes_of,
    remove_cgroups,
    runtime,
    unmount_below,
    wait_until,
)
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root", "command:podman", "command:conmon", "command:busybox")
SLEEP = ("sleep", "1000")
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
apparmor_profile = ""
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
infra_image = "localhost/pause:latest"
tmp_dir = "{place}/tmp"
[network]
network_config_dir = "{place}/networks"
"""
CGROUP = f"mbengine-podman-{os.getpid()}"


@pytest.fixture(scope="module")
def archive(session_directory: Path) -> Path:
    return busybox_archive(session_directory / "podman.tar")


def podman(place: Path, archive: Path, driver: str, runtime_path: str = "", **identity: object) -> Client:
    """podman with its state in a place of its own, and with `IMAGE`."""
    (place / "containers.conf").write_text(CONFIGURATION.format(place=place))
    environment = engine_environment(
        CONTAINERS_CONF=f"{place}/containers.conf", HOME=str(place), XDG_RUNTIME_DIR=f"{place}/run", TMPDIR=str(place)
    )
    storage = ["--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", driver]
    command = ["podman", *storage, "--runtime", runtime_path or runtime()]
    client = Client(command, environment, **{"cwd": place, **identity})  # conmon may leave a file there
    client("import", "--change", 'CMD ["sh"]', archive, IMAGE)
    return client


@pytest.fixture(scope="module")
def engine(session_directory: Path, archive: Path) -> Iterator[Client]:
    place = session_directory / "podman"
    place.mkdir()
    client = podman(place, archive, "overlay")
    try:
        run(client, command=("true",))  # what is made for the first one stays
        yield client
    finally:
        unmount_below(place)
        remove_cgroups(CGROUP)


@pytest.fixture
def asked(engine: Client) -> Iterator[Client]:
    """The engine, with everything removed that the test makes."""
    yield engine
    engine("pod", "rm", "--all", "--force", "--time", "0")
    engine("rm", "--all", "--force", "--time", "0", "--volumes")
    settle(engine)


def settle(engine: Client) -> None:
    """Wait for the podman that conmon starts when a container has ended, which may leave its storage mounted."""
    root = engine.command[2]
    wait_until(lambda: not processes_of(root), "podman has cleaned up")
    unmount_below(Path(root))


def start(engine: Client, *options: str, name: str = "one", command: tuple[str, ...] = SLEEP) -> None:
    engine(
        "run",
        "--detach",
        "--name",
        name,
        "--cgroup-parent",
        f"/{CGROUP}",
        "--network",
        "none",
        *options,
        IMAGE,
        *command,
    )


def run(engine: Client, *options: str, command: tuple[str, ...], **more: object) -> subprocess.CompletedProcess[str]:
    words = ("run", "--rm", "--cgroup-parent", f"/{CGROUP}", "--network", "none", *options, IMAGE, *command)
    return engine(*words, **more)  # type: ignore[arg-type]


def inspect(engine: Client, form: str, name: str = "one") -> str:
    return engine.out("inspect", "--format", form, name)


def test_output_input_and_exit_status(asked):
    done = run(asked, "-i", command=("sh", "-c", "cat; echo err >&2; exit 7"), status=7, input="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "err\n")
    run(asked, command=("nothing",), status=127)
    run(asked, command=("/etc",), status=126)
    run(asked, "--entrypoint", "/no/such", command=("x",), status=127)
    run(asked, "--no-such-option", command=("true",), status=125)
    assert asked.out("ps", "--all", "--quiet") == ""


def test_it_is_the_runtime_under_test(asked):
    start(asked)
    assert inspect(asked, "{{.OCIRuntime}}") == runtime()
    lines = Path(f"/proc/{inspect(asked, '{{.State.Pid}}')}/cgroup").read_text().splitlines()
    own = {line.split(":")[1]: line.split(":", 2)[2] for line in lines}
    assert own["memory" if "memory" in own else ""].startswith(f"/{CGROUP}/libpod-")


def test_exec(asked):
    start(asked, "--env", "A=1")
    words = ("--env", "B=2", "--workdir", "/tmp", "--user", "guest")
    assert asked.out("exec", *words, "one", "sh", "-c", "id -u; pwd; echo $A$B").split() == ["7", "/tmp", "12"]
    asked("exec", "one", "sh", "-c", "exit 9", status=9)
    assert asked.out("exec", "-i", "one", "cat", input="through") == "through"
    asked("exec", "one", "nothing", status=127)
    asked("exec", "one", "/etc", status=126)
    asked("exec", "--detach", "one", "sh", "-c", "echo x > /tmp/detached")
    wait_until(lambda: asked("exec", "one", "test", "-e", "/tmp/detached", status=None).returncode == 0, "it has run")


def test_a_terminal_of_the_size_that_it_has(asked):
    words = ["run", "--rm", "-it", "--cgroup-parent", f"/{CGROUP}", "--network", "none", IMAGE, "sh"]
    argv = [*asked.command[1:], *words]
    child = pexpect.spawn(
        "podman", argv, env=asked.environment, dimensions=(33, 99), encoding="utf-8", timeout=30 * SLOWNESS
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


def test_stop_kill_wait_and_logs(asked):
    script = "trap 'echo bye; exit 3' TERM; echo hi; while :; do sleep .1; done"
    start(asked, name="kind", command=("sh", "-c", script))
    wait_until(lambda: asked.out("logs", "kind") == "hi", "it has begun")
    asked("stop", "kind")
    assert asked.out("logs", "kind") == "hi\nbye"
    assert asked.out("wait", "kind") == "3"
    start(asked, name="deaf")
    asked("stop", "--time", "0", "deaf")
    assert inspect(asked, "{{.State.ExitCode}}", "deaf") == "137"
    asked("start", "kind")
    asked("kill", "--signal", "KILL", "kind")
    assert asked.out("wait", "kind") == "137"


def test_pause_top_and_stats(asked):
    # It forks nothing: podman top fails when a process ends while it looks.
    start(asked, command=("sh", "-c", "while :; do echo x > /tmp/now; done"))
    assert "echo x > /tmp/now" in asked.out("top", "one", "args")
    mount = Path(inspect(asked, "{{.GraphDriver.Data.MergedDir}}"))
    wait_until((mount / "tmp/now").exists, "it writes")
    asked("pause", "one")
    assert inspect(asked, "{{.State.Status}}") == "paused"
    before = (mount / "tmp/now").stat().st_mtime_ns
    time.sleep(0.3)
    assert (mount / "tmp/now").stat().st_mtime_ns == before
    asked("unpause", "one")
    wait_until(lambda: (mount / "tmp/now").stat().st_mtime_ns != before, "it goes on")
    found = json.loads(asked.out("stats", "--no-stream", "--format", "json", "one"))[0]
    assert found["name"] == "one"
    assert float(found["cpu_percent"].rstrip("%")) > 0
    assert not found["mem_usage"].startswith("0B")
    assert int(found["pids"]) >= 1


def test_limits_hold(asked):
    start(asked, "--memory", "64m", "--pids-limit", "30", "--cpus", "0.5", "--cpu-shares", "512")
    pid = inspect(asked, "{{.State.Pid}}")
    own = {line.split(":")[1]: line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}
    for controller, v1, v2, value in (
        ("memory", "memory.limit_in_bytes", "memory.max", str(64 << 20)),
        ("pids", "pids.max", "pids.max", "30"),
        ("cpu", "cpu.cfs_quota_us", "cpu.max", "50000"),
    ):
        place = f"{controller}{own[controller]}/{v1}" if controller in own else f"{own['']}/{v2}"
        assert Path(f"/sys/fs/cgroup/{place}").read_text().split()[0] == value
    script = "for i in $(seq 40); do sleep 1000 & done; echo all"
    forked = run(asked, "--pids-limit", "10", command=("sh", "-c", script), status=None)
    assert "all" not in forked.stdout


def test_a_container_over_its_memory_is_killed(asked):
    options = ("--memory", "24m", "--memory-swap", "24m")
    run(asked, *options, command=("sh", "-c", "exec dd if=/dev/zero of=/dev/shm/x bs=1M count=60"), status=137)


def test_what_a_container_may_and_sees(asked, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("outside\n")
    options: tuple[str, ...] = (
        "--read-only",
        "--tmpfs",
        "/scratch:size=1m",
        "--volume",
        f"{tmp_path}:/data",
        "--user",
        "guest",
    )
    options += ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--hostname", "box")
    script = """
    cat /data/file; touch /x 2>&1 | grep -o 'Read-only'; touch /scratch/x && echo scratch; hostname
    grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr '\t' ' '
    """
    assert run(asked, *options, command=("sh", "-c", script)).stdout.splitlines() == [
        *("outside", "Read-only", "scratch", "box", "CapEff: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2"),
    ]
    mapped = ("--uidmap", "0:200000:1000", "--gidmap", "0:200000:1000")
    uid_map = run(asked, *mapped, command=("cat", "/proc/self/uid_map")).stdout.split()
    assert uid_map == ["0", "200000", "1000"]


def test_health(asked):
    start(asked, "--health-cmd", "test -e /tmp/well", "--health-interval", "disable")
    asked("healthcheck", "run", "one", status=1)
    asked("exec", "one", "touch", "/tmp/well")
    asked("healthcheck", "run", "one")
    assert inspect(asked, "{{.State.Health.Status}}") == "healthy"


def test_a_pod_shares_its_namespaces(asked, engine, archive, tmp_path):
    """With an infrastructure container of an image that is built here: there is no registry."""
    infra = ("--infra-image", IMAGE, "--infra-command", "sleep 1000")
    asked(
        "pod",
        "create",
        "--name",
        "pod",
        "--share",
        "net,ipc,uts,pid",
        "--network",
        "none",
        *infra,
        "--cgroup-parent",
        f"/{CGROUP}",
    )
    asked(
        "run",
        "-d",
        "--pod",
        "pod",
        "--name",
        "web",
        IMAGE,
        "sh",
        "-c",
        "echo of the pod > /tmp/index.html; httpd -f -h /tmp",
    )
    fetch = ("run", "--rm", "--pod", "pod", IMAGE, "wget", "-qO-", "http://127.0.0.1/")
    wait_until(lambda: asked(*fetch, status=None).stdout == "of the pod\n", "web answers on the shared loopback")
    links = {
        kind: {
            os.readlink(f"/proc/{asked.out('inspect', '--format', '{{.State.Pid}}', name)}/ns/{kind}")
            for name in ("web", asked.out("pod", "inspect", "--format", "{{.InfraContainerID}}", "pod"))
        }
        for kind in ("net", "ipc", "uts", "pid", "mnt")
    }
    assert {kind for kind, found in links.items() if len(found) == 1} == {"net", "ipc", "uts", "pid"}
    assert "sleep" in asked.out("exec", "web", "sh", "-c", "cat /proc/1/cmdline")
    asked("pod", "stop", "--time", "0", "pod")
    wait_until(lambda: "Exited" in asked.out("pod", "ps", "--format", "{{.Status}}"), "all of it has ended")


def test_removal_by_force_ends_all_of_a_container(asked):
    start(asked, command=("sh", "-c", "(trap '' TERM; sleep 1000) & sleep 1000"))
    pid = inspect(asked, "{{.State.Pid}}")
    asked("rm", "--force", "--time", "0", "one")
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "its parent, too, knows that it has ended")
    assert asked.out("ps", "--all", "--quiet") == ""


@requires("user")
def test_an_ordinary_user(session_directory, archive, user_command):
    """Rootless: in a user namespace of podman's, without cgroups of its own."""
    place = session_directory / "podman-user"
    (place / "run").mkdir(parents=True, mode=0o700)
    for each in (place, place / "run"):
        os.chown(each, isolation.USER_ID, isolation.USER_ID)
    client = podman(place, archive, "vfs", runtime_path=_reachable(place, user_command), **AS_USER)
    words = ("--network", "none", "--hostname", "box")
    try:
        done = client("run", "--rm", *words, IMAGE, "sh", "-c", "id -u; cat /proc/self/uid_map | wc -l; hostname")
        assert done.stdout.split() == ["0", "2", "box"]
        client("run", "--rm", *words, IMAGE, "sh", "-c", "exit 7", status=7)
        client("run", "--rm", *words, IMAGE, "nothing", status=127)
        owner = client.out(
            "run", "--rm", "-v", f"{place}:/outside", "--user", "guest", *words, IMAGE, "stat", "-c", "%u", "/outside"
        )
        assert owner == "0"
        client("run", "-d", "--name", "one", *words, IMAGE, *SLEEP)
        assert client.out("exec", "one", "id", "-u") == "0"
        client("kill", "one")
        assert client.out("wait", "one") == "137"
        client("rm", "one")
    finally:
        client("rm", "--all", "--force", "--time", "0", status=None)
        client("system", "migrate", status=None)  # ends the process that keeps podman's user namespace
        unmount_below(place)
        shutil.rmtree(place, ignore_errors=True)


def _reachable(place: Path, user_command: list[str]) -> str:
    """The runtime under test, or one that starts the copy of minibox that an ordinary user may read."""
    if len(user_command) == 1 or "MINIBOX_TEST_RUNTIME" in os.environ:
        return runtime()
    script = place / "minibox-oci"
    python = shlex.join(user_command[:-2])
    script.write_text(f"#!/bin/sh\nexec {python} -c 'from minibox.oci_cli.main import program; program()' \"$@\"\n")
    script.chmod(0o755)
    return str(script)
