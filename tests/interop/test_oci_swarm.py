"""A Docker Swarm of two dockerds with minibox-oci, each in a network namespace of its own.

Its overlay networks have names by DNS round robin: addresses of services are IPVS's work, which a kernel may lack.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.engines import IMAGE, Docker, busybox_archive, docker, wait_until
from tests.probes import requires

pytestmark = requires("root", "command:dockerd", "command:iptables", "command:ip", "command:busybox")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
WEB = "echo $VERSION $HOSTNAME > /tmp/index.html; exec httpd -f -p 80 -h /tmp"


@contextmanager
def machine(name: str) -> Iterator[int]:
    """The process that holds a network and a host name of its own."""
    words = [
        "unshare",
        "--net",
        "--uts",
        "sh",
        "-c",
        f"hostname {name} && ip link set lo up && echo && exec sleep 10000",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.read(1)
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def archive(session_directory: Path) -> Path:
    return busybox_archive(session_directory / "swarm.tar")


@pytest.fixture
def engine(session_directory: Path, archive: Path) -> Iterator[tuple[Docker, Docker]]:
    """Two nodes, the first of which manages."""
    with ExitStack() as stack:
        pids = [stack.enter_context(machine(name)) for name in ("first", "second")]
        links = [f"mbsw{number}" for number in (0, 1)]
        subprocess.run(["ip", "link", "add", links[0], "type", "veth", "peer", "name", links[1]], check=True)
        nodes = []
        for pid, name, address in zip(pids, links, ADDRESSES, strict=True):
            subprocess.run(["ip", "link", "set", name, "netns", str(pid)], check=True)
            enter = ("nsenter", f"--net=/proc/{pid}/ns/net", f"--uts=/proc/{pid}/ns/uts")
            for words in (["address", "add", f"{address}/24", "dev", name], ["link", "set", name, "up"]):
                subprocess.run([*enter, "ip", *words], check=True)
            nodes.append(stack.enter_context(docker(session_directory / f"swarm{address}", archive, enter=enter)))
        first, second = nodes
        first("swarm", "init", "--advertise-addr", ADDRESSES[0], "--dispatcher-heartbeat", "1s")
        token = first.out("swarm", "join-token", "--quiet", "worker")
        second("swarm", "join", "--advertise-addr", ADDRESSES[1], "--token", token, f"{ADDRESSES[0]}:2377")
        yield first, second


def containers(node: Docker) -> list[str]:
    return node.out("ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=web").split()


def versions(node: Docker) -> list[str]:
    """What runs on a node."""
    words = ("inspect", "--format", "{{range .Config.Env}}{{println .}}{{end}}", *containers(node))
    return sorted(line for line in node.out(*words, status=None).split() if line.startswith("VERSION="))


def test_a_service_on_two_nodes_its_update_and_the_loss_of_one(engine):
    first, second = engine
    first("network", "create", "--driver", "overlay", "--attachable", "between")
    first(
        "service", "create", "--detach", "--name", "web", "--replicas", "4", "--env", "VERSION=1", "--no-resolve-image",
        "--network", "between", "--endpoint-mode", "dnsrr", "--stop-grace-period", "1s", IMAGE, "sh", "-c", WEB,
    )  # fmt: skip
    wait_until(lambda: versions(first) == versions(second) == ["VERSION=1"] * 2, "two tasks on each node", 60)

    inside = containers(first)[0]

    def are_named() -> bool:
        words = first.out("exec", inside, "nslookup", "-type=a", "tasks.web", status=None).split()
        return len({word for word in words if word.startswith("10.") and not word.startswith("10.77.")}) >= 4

    wait_until(are_named, "the addresses of all tasks are known")
    far = second.out("inspect", "--format", "{{.NetworkSettings.Networks.between.IPAddress}}", containers(second)[0])
    fetch = ("exec", inside, "wget", "-qO-", f"http://{far}/")
    there = wait_until(lambda: first(*fetch, status=None).stdout.split(), "a task answers from the other node")
    assert there == ["1", containers(second)[0]]

    update = (
        "service",
        "update",
        "--detach",
        "--no-resolve-image",
        "--env-add",
        "VERSION=2",
        "--update-parallelism",
        "1",
    )
    first(*update, "--update-delay", "100ms", "web")
    wait_until(lambda: versions(first) == versions(second) == ["VERSION=2"] * 2, "all are of the new version", 60)
    state = ("service", "inspect", "--format", "{{.UpdateStatus.State}}", "web")
    wait_until(lambda: first.out(*state) == "completed", "the update is done", 60)

    second.crash()
    wait_until(lambda: versions(first) == ["VERSION=2"] * 4, "the first node has all", 60)
    assert "Down" in first.out("node", "ls", "--format", "{{.Hostname}} {{.Status}}")
    first("service", "rm", "web")
    wait_until(lambda: not containers(first), "none is left")
