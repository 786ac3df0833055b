"""Published ports, as a user of the command and a client see them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

import minibox as minibox_api
from minibox.network import firewall, lease, rtnetlink
from tests.leaks import SLOWNESS
from tests.probes import requires
from tests.running_container import running

pytestmark = requires("root", "command:nft", "command:ip", "command:unshare")

HOST, OUTSIDE = "203.0.113.1", "203.0.113.2"
# What a container serves: its client's address.
SERVE = "while :; do nc -l -p 80 -e sh -c 'netstat -tn | grep :80 | grep EST'; done"


@pytest.fixture
def boxes(minibox):
    """Runs detached containers, and removes them afterwards."""

    def run(name: str, *options: str, script: str = "httpd -f -h /etc") -> str:
        done = minibox("run", "-d", "--name", name, *options, "base", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    yield run
    if left := minibox("ps", "-aq").stdout.split():
        minibox("rm", "-f", *left)


@pytest.fixture
def outside() -> Iterator[int]:
    """A neighbour on the network of this host, HOST: a network namespace with the address OUTSIDE."""
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as process:
        try:
            own = os.readlink("/proc/self/ns/net")
            eventually(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != own)
            netns = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            ip("link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
            ip("address", "add", f"{HOST}/24", "dev", "up0")
            ip("link", "set", "up0", "up")
            rtnetlink.in_netns(netns, set_up)
            eventually(lambda: b"state UP" in subprocess.check_output(["ip", "link", "show", "up0"]))
            yield netns
            os.close(netns)
        finally:
            subprocess.run(["ip", "link", "delete", "up0"], check=False)
            process.kill()


def set_up() -> None:
    ip("link", "set", "lo", "up")
    ip("address", "add", f"{OUTSIDE}/24", "dev", "eth0")
    ip("link", "set", "eth0", "up")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def eventually(happened) -> None:
    deadline = time.monotonic() + 30 * SLOWNESS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def get(address: str, port: int, path: str = "/hostname", timeout_s: float = 20 * SLOWNESS) -> str:
    """What an HTTP server sends; "" when there is none."""
    try:
        with socket.create_connection((address, port), timeout=timeout_s) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError:
        return ""
    return answer.partition(b"\r\n\r\n")[2].decode().strip()


def answers(address: str, port: int) -> bool:
    """One that was just started may take a moment."""
    eventually(lambda: get(address, port))
    return True


def inside(minibox, name: str, kind: int) -> socket.socket:
    """A socket of a container's network."""
    pid = minibox("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
    netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        made = rtnetlink.in_netns(netns, lambda: socket.socket(socket.AF_INET, kind))
    finally:
        os.close(netns)
    made.settimeout(20 * SLOWNESS)
    return made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Its rules go before it is: who is killed closes one descriptor after the other."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
        return "table ip" not in tables()


def tables() -> str:
    return subprocess.check_output(["nft", "list", "tables"], text=True)


@pytest.mark.kernel
def test_reached_from_this_host_and_from_elsewhere(boxes, minibox, outside):
    port = free_port()
    boxes("web", "-p", f"{port}:80", "--hostname", "here")
    assert answers("127.0.0.1", port)
    assert {get(address, port) for address in ("127.0.0.1", "127.0.0.2", HOST)} == {"here"}
    assert rtnetlink.in_netns(outside, lambda: get(HOST, port)) == "here"
    assert minibox("port", "web").stdout == f"80/tcp -> 0.0.0.0:{port}\n"
    assert minibox("port", "web", "80").stdout == f"0.0.0.0:{port}\n"
    assert "container web does not publish port 81/tcp" in minibox("port", "web", "81").stderr


def test_a_client_elsewhere_keeps_its_address(boxes, outside):
    port = free_port()
    boxes("web", "-p", f"{port}:80", script=SERVE)

    def seen(address: str) -> str:
        try:
            with socket.create_connection((address, port), timeout=3) as connection:
                # To its end: with nobody to answer it, the kernel would keep it, its namespace and the link for minutes.
                return b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        except OSError:
            return ""

    eventually(lambda: OUTSIDE in rtnetlink.in_netns(outside, lambda: seen(HOST)))


def test_a_container_reaches_published_ports_its_own_too(boxes, minibox):
    port = free_port()
    minibox("network", "create", "other")
    try:
        boxes("web", "-p", f"{port}:80", "--hostname", "here")
        gateway = minibox("inspect", "-f", "{{.NetworkSettings.Gateway}}", "web").stdout.strip()
        assert answers("127.0.0.1", port)
        look = ("timeout", str(20 * SLOWNESS), "wget", "-qO-", f"http://{gateway}:{port}/hostname")
        assert minibox("exec", "web", *look).stdout == "here\n"
        assert minibox("run", "--rm", "base", *look).stdout == "here\n"
        assert minibox("run", "--rm", "--network", "other", "base", *look).stdout == "here\n"
    finally:
        minibox("rm", "-f", "web")
        minibox("network", "rm", "other")


def test_udp(boxes, minibox):
    port = free_port()
    boxes("sink", "-p", f"127.0.0.1:{port}:514/udp", script="sleep 1000")
    with inside(minibox, "sink", socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 514))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20 * SLOWNESS)
            client.connect(("127.0.0.1", port))
            client.send(b"there")
            server.sendto(b"and back", server.recvfrom(99)[1])
            assert client.recv(99) == b"and back"
    assert minibox("port", "sink").stdout == f"514/udp -> 127.0.0.1:{port}\n"


def test_datagrams_of_a_client_that_never_stops_are_led_to_who_publishes_now(boxes, minibox):
    """They are one connection for the kernel, which would go on to where the first went."""
    boxes("other")  # else the kernel doesn't remember connections yet
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        for _ in range(2):
            client.sendto(b"too early, or too late", ("127.0.0.1", port))
            boxes("sink", "-p", f"{port}:514/udp", script="sleep 1000")
            with inside(minibox, "sink", socket.SOCK_DGRAM) as server:
                server.bind(("0.0.0.0", 514))
                client.sendto(b"there", ("127.0.0.1", port))
                assert server.recv(99) == b"there"
            minibox("rm", "-f", "sink")


def test_one_of_127_0_0_1_is_for_this_host_alone(boxes, minibox, outside):
    port = free_port()
    boxes("web", "-p", f"127.0.0.1:{port}:80")
    assert answers("127.0.0.1", port)
    assert not get(HOST, port)

    def intrude() -> str:
        subprocess.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet"], check=True)
        ip("address", "del", "127.0.0.1/8", "dev", "lo")
        ip("route", "add", "127.0.0.1/32", "via", HOST, "src", OUTSIDE)
        return get("127.0.0.1", port, timeout_s=3 * SLOWNESS)

    assert not rtnetlink.in_netns(outside, intrude)  # a neighbour that sends packets for 127.0.0.1 here


@pytest.mark.parametrize("publishes", [True, False], ids=["running", "ended"])
def test_containers_cant_reach_this_hosts_loopback_by_the_bridge(boxes, minibox, publishes):
    boxes("web", "-p", f"{free_port()}:80")
    gateway = minibox("inspect", "-f", "{{.NetworkSettings.Gateway}}", "web").stdout.strip()
    (bridge,) = (name for _, name in socket.if_nameindex() if name.startswith("mb-"))
    with open(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet") as file:
        assert file.read() == "1\n"  # which is what makes it an issue
    if not publishes:
        minibox("rm", "-f", "web")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        script = (
            f"ip address del 127.0.0.1/8 dev lo; ip route add 127.0.0.1/32 via {gateway}; "
            f"timeout 1 nc 127.0.0.1 {server.getsockname()[1]} </dev/null"
        )

        def is_reached() -> bool:
            minibox("exec", "--privileged", "spy", "sh", "-c", script)
            try:
                server.accept()[0].close()
            except TimeoutError:
                return False
            return True

        boxes("spy", "--sysctl", "net.ipv4.conf.all.route_localnet=1", script="sleep 1000")
        assert not is_reached()
        if not publishes:  # it is the rule
            subprocess.run(["nft", "flush", "chain", "inet", "minibox", "guard"], check=True)
            eventually(is_reached)  # a second may be too short for a client


def test_a_taken_port_is_refused_and_its_holder_named(boxes, minibox, state):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = minibox("run", "-d", "-p", f"{port}:80", "base", "sleep", "1000")
        assert done.returncode == 125
        said = f"minibox: publish 0.0.0.0:{port}->80/tcp: the port is taken by "
        assert re.match(rf"{re.escape(said)}\S+ \(process {os.getpid()}\)\n", done.stderr), done.stderr
    boxes("web", "-p", f"{port}:80")
    done = minibox("run", "--rm", "-p", f"{port}:80", "base", "true")
    assert "the port is taken by container web" in done.stderr
    assert minibox("run", "--rm", "-p", f"127.0.0.9:{port}:80", "base", "true").returncode == 125
    twice = minibox("run", "--rm", "-p", f"127.0.0.1:{port + 1}:80", "-p", f"127.0.0.1:{port + 1}:81", "base", "true")
    assert "it is published twice" in twice.stderr
    assert "(EADDRNOTAVAIL" in minibox("run", "--rm", "-p", "203.0.113.77:8080:80", "base", "true").stderr
    assert [each.name for each in (state / "root/containers").iterdir()] == [
        minibox("ps", "-q", "--no-trunc").stdout.strip()
    ]
    with pytest.raises(OSError, match="in use"), socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("0.0.0.0", port))


def test_stop_frees_ports_and_start_takes_them_again(boxes, minibox):
    port = free_port()
    boxes("web", "-p", f"{port}:80", "-p", "81")
    assert answers("127.0.0.1", port)
    assert minibox("stop", "-t0", "web").returncode == 0
    assert minibox("port", "web").stdout == ""
    assert minibox("ps", "-a", "--format", "{{.Ports}}").stdout.strip() == ""
    assert "table ip" not in tables()
    with socket.create_server(("0.0.0.0", port)):
        done = minibox("start", "web")
        assert done.returncode == 125 and f"0.0.0.0:{port}->80/tcp: the port is taken by" in done.stderr
    assert minibox("start", "web").returncode == 0
    assert answers("127.0.0.1", port)
    done = minibox("restart", "-t0", "web")
    assert done.returncode == 0, done.stderr
    assert answers("127.0.0.1", port)


def test_a_restart_policy_takes_them_again(boxes, minibox):
    port = free_port()
    boxes("web", "-p", f"{port}:80", "--restart", "always")
    assert answers("127.0.0.1", port)
    os.kill(int(minibox("inspect", "-f", "{{.State.Pid}}", "web").stdout), signal.SIGKILL)
    eventually(lambda: minibox("inspect", "-f", "{{.RestartCount}}", "web").stdout == "1\n")
    assert answers("127.0.0.1", port)


@pytest.mark.kernel
def test_kill_of_the_supervisor_leaves_nothing_at_once(boxes, minibox):
    """Not only when the next command comes: who takes the port meanwhile must get its packets."""
    port = free_port()
    boxes("web", "-p", f"{port}:80", "--hostname", "here")
    assert answers("127.0.0.1", port)
    pid = int(minibox("inspect", "-f", "{{.State.Pid}}", "web").stdout)
    with open(f"/proc/{pid}/stat") as file:
        supervisor = int(file.read().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: is_free(port))
    with socket.create_server(("0.0.0.0", port)) as server, socket.create_connection(("127.0.0.1", port)):
        server.settimeout(20 * SLOWNESS)
        server.accept()[0].close()
    ends = ("ps", "-a", "--format", "{{.Ports}}|{{.Status}}")
    eventually(lambda: minibox(*ends).stdout.startswith("|Exited (137)"))  # its lock goes with another descriptor


def test_kill_of_the_command_in_the_foreground_leaves_nothing(minibox, minibox_command, environment):
    port = free_port()
    with running(minibox_command, environment, "-p", f"{port}:80", "--name", "box") as box:
        assert minibox("port", "box").stdout == f"80/tcp -> 0.0.0.0:{port}\n"
        assert minibox("ps", "--format", "{{.Ports}}").stdout == f"0.0.0.0:{port}->80/tcp\n"
        box.process.kill()
        eventually(lambda: is_free(port))
        box.process.wait()
    assert minibox("ps", "-aq").stdout == ""


def test_rules_outlive_a_flush(boxes, minibox):
    port = free_port()
    boxes("web", "-p", f"{port}:80")
    assert answers("127.0.0.1", port)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    assert get("127.0.0.1", port)


def test_free_ports_ranges_and_all_that_is_exposed(boxes, minibox):
    first = free_port()
    boxes("one", "-P", "--expose", "80", "--expose", "9000-9001/udp", "-p", "127.0.0.1::443")
    (found,) = json.loads(minibox("inspect", "one").stdout)
    ports = found["NetworkSettings"]["Ports"]
    assert list(ports) == ["80/tcp", "443/tcp", "9000/udp", "9001/udp"]
    assert [binding["HostIp"] for (binding,) in ports.values()] == ["0.0.0.0", "127.0.0.1", "0.0.0.0", "0.0.0.0"]
    assert answers("127.0.0.1", int(ports["80/tcp"][0]["HostPort"]))
    assert found["HostConfig"]["PublishAllPorts"] is True
    assert found["HostConfig"]["PortBindings"] == {"443/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    assert set(found["Config"]["ExposedPorts"]) == set(ports)
    with socket.create_server(("127.0.0.1", first)):  # of a range the first that is free
        boxes("two", "-p", f"127.0.0.1:{first}-{first + 50}:80")
    port = int(minibox("port", "two", "80/tcp").stdout.rpartition(":")[2])
    assert first < port <= first + 50


def test_a_large_range(boxes, minibox):
    """More than one message to the supervisor can carry."""
    boxes("many", "-p", "127.0.0.1:20000-20399:1000-1399")
    row = minibox("ps", "--format", "{{.Ports}}").stdout
    assert row.startswith("127.0.0.1:20000->1000/tcp, 127.0.0.1:20001->1001/tcp, ")
    for port in (20000, 20399):
        with pytest.raises(OSError, match="in use"), socket.create_server(("127.0.0.1", port)):
            pass


def test_filters(boxes, minibox):
    boxes("web", "-p", f"{free_port()}:80", "--expose", "9000/udp")
    boxes("none")

    def names(*filters: str) -> list[str]:
        words = [word for each in filters for word in ("--filter", each)]
        return minibox("ps", "--format", "{{.Names}}", *words).stdout.split()

    assert (
        names("publish=80") == names("publish=79-81/tcp") == names("expose=80") == names("expose=9000/udp") == ["web"]
    )
    assert names("publish=80/udp") == names("publish=9000/udp") == names("is-task=true") == []
    assert names("publish=1", "expose=9000/udp") == ["web"]
    assert sorted(names("is-task=false")) == ["none", "web"]
    assert "invalid port: http" in minibox("ps", "--filter", "publish=http").stderr


def test_where_ports_mean_nothing(boxes, minibox):
    done = minibox("run", "--rm", "--network", "host", "-p", "8080:80", "base", "echo", "hi")
    assert (done.stdout, done.stderr) == (
        "hi\n",
        "minibox: published ports are discarded: the container uses the host's network\n",
    )
    done = minibox("run", "--rm", "--network", "none", "-p", "8080:80", "base", "echo", "hi")
    assert (done.stdout, done.stderr) == ("hi\n", "")
    minibox("network", "create", "--internal", "lab")
    try:
        done = minibox("run", "--rm", "--network", "lab", "-p", "8080:80", "base", "true")
        assert "published ports are discarded: an internal network can't be reached from outside" in done.stderr
    finally:
        minibox("network", "rm", "lab")
    assert minibox("run", "--rm", "-p", "x:80", "base", "true").stderr.startswith("minibox: invalid hostPort: x\n")


def test_on_a_network_with_a_name(boxes, minibox):
    port = free_port()
    minibox("network", "create", "net")
    try:
        boxes("web", "--network", "net", "-p", f"{port}:80")
        assert answers("127.0.0.1", port)
    finally:
        minibox("rm", "-f", "web")
        minibox("network", "rm", "net")


def test_the_default_address_is_a_setting(boxes, minibox, environment, outside):
    port = free_port()
    environment["MINIBOX_PUBLISH_ADDRESS"] = "127.0.0.1"
    boxes("web", "-p", f"{port}:80")
    assert answers("127.0.0.1", port)
    assert not get(HOST, port)
    assert minibox("port", "web").stdout == f"80/tcp -> 127.0.0.1:{port}\n"
    del environment["MINIBOX_PUBLISH_ADDRESS"]
    minibox("restart", "-t0", "web")  # as it was made
    assert minibox("port", "web").stdout == f"80/tcp -> 127.0.0.1:{port}\n"


def test_a_start_without_ports_runs_no_nft_for_those_with(boxes, minibox, state):
    boxes("one", "-p", "80")
    boxes("two", "-p", "80")
    minibox("rm", "-f", "one")
    runroot = str(state / "run")
    bridge = lease.bridge_name(runroot)
    subnet = lease.recorded(lease.directory(runroot, bridge))
    assert firewall.begin(runroot, bridge, str(subnet)) is None


def test_of_a_program_and_not_of_its_forks(api):
    port = free_port()
    with minibox_api.Sandbox("base", network="bridge", ports={80: f"127.0.0.1:{port}"}, hostname="here") as box:
        process = box.popen(["httpd", "-f", "-h", "/etc"])
        assert answers("127.0.0.1", port)
        reader, writer = os.pipe()
        fork = os.fork()
        if fork == 0:
            os.close(writer)
            os.read(reader, 1)  # until its parent has done
            os._exit(0)
        os.close(reader)
        process.kill()
        process.wait()
    assert "table ip" not in tables()
    with socket.create_server(("127.0.0.1", port)):
        pass
    os.close(writer)
    os.waitpid(fork, 0)


def test_explain_shows_what_is_done_and_a_start_without_ports_has_none_of_it(minibox):
    text = minibox("explain", "run", "--rm", "-p", "8080:80", "base", "true").stdout
    words = " ".join(text.split())
    assert "bind the tcp port 0.0.0.0:8080 [bind(2)]" in words
    assert re.search(r"forward tcp port 0\.0\.0\.0:8080 to 10\.[0-9.]+:80 \[nft\(8\)\]", words)
    assert re.search(
        r'nft add rule ip minibox-[0-9a-f]{12} published "fib daddr type local tcp dport 8080 dnat to 10\.[0-9.]+:80"',
        text,
    )
    assert "published" not in minibox("explain", "run", "--rm", "base", "true").stdout
