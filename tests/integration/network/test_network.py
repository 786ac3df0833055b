"""`minibox run` and networks: what a container has of them, and that it is given back."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from tests import isolation
from tests.conftest import Run
from tests.leaks import SLOWNESS
from tests.probes import requires
from tests.running_container import running

pytestmark = requires("root")
ELSEWHERE = "198.51.100.7"

on_a_bridge = requires("command:nft")


def run(minibox: Run, *words: str) -> str:
    done = minibox("run", "--rm", *words)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_none_has_the_loopback_only(minibox: Run) -> None:
    script = "ls /sys/class/net; ip -o addr; ip route; ping -c 1 -W 30 127.0.0.1 >/dev/null && echo pong"
    lines = run(minibox, "--network", "none", "base", "sh", "-c", script).splitlines()
    assert lines[0] == "lo" and lines[-1] == "pong"
    assert all(" lo " in line for line in lines[1:-1])
    assert any("127.0.0.1/8" in line for line in lines)


def test_host_is_the_callers(minibox: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=lambda: listener.accept()[0].close()).start()
        script = f"readlink /proc/self/ns/net; hostname; nc -w 30 127.0.0.1 {port} </dev/null && echo reached"
        lines = run(minibox, "--network", "host", "base", "sh", "-c", script).splitlines()
    assert lines == [os.readlink("/proc/self/ns/net"), socket.gethostname(), "reached"]


def test_files_of_a_container_without_network(minibox: Run) -> None:
    words = ("--network", "none", "--hostname", "box", "--add-host", "db:192.0.2.1", "--dns", "192.0.2.53", "base")
    out = run(minibox, *words, "sh", "-c", "cat /etc/hostname; hostname; cat /etc/resolv.conf; echo ==; cat /etc/hosts")
    before, _, hosts = out.partition("==\n")
    assert before.splitlines()[:2] == ["box", "box"]
    assert "nameserver 192.0.2.53" in before.splitlines()
    entries = [line.split() for line in hosts.splitlines()]
    assert ["192.0.2.1", "db"] in entries
    assert any(entry[0] == "127.0.0.1" and "localhost" in entry for entry in entries)


@pytest.mark.kernel
@on_a_bridge
def test_a_bridge_gives_an_address_and_a_way_out(minibox: Run) -> None:
    script = "hostname; ip -o -4 addr show dev eth0; ip route; cat /etc/hosts; cat /etc/resolv.conf"
    lines = run(minibox, "base", "sh", "-c", script).splitlines()
    name, shown, *rest = lines
    interface = ip_interface(shown.split("inet ")[1].split()[0])
    address = str(interface.ip)
    gateway = next(line.split()[2] for line in rest if line.startswith("default via "))
    assert ip_address(gateway) in interface.network
    assert [address, name] in [line.split() for line in rest]
    assert any(line.startswith("nameserver ") for line in rest)


@pytest.mark.kernel
@on_a_bridge
def test_two_containers_reach_each_other(
    minibox: Run, minibox_command: list[str], environment: dict[str, str], state: Path
) -> None:
    # From a file: what a pipe is yet to bring would be lost when the client has no more to say.
    server = "echo hello >/said; ip -o -4 addr show dev eth0 | sed 's/.*inet //; s|/.*||'; nc -l -p 8000 </said & :"
    with running(minibox_command, environment, script=server) as first:
        address = first.first_line.strip()
        script = f"ip -o -4 addr show dev eth0; until nc {address} 8000 </dev/null; do sleep 0.1; done"
        mine, said = run(minibox, "base", "sh", "-c", script).splitlines()
        assert said == "hello"
        assert address not in mine
        assert len([link for _, link in socket.if_nameindex() if link.startswith("mb")]) >= 1
        assert address in _leases(state)
    assert address not in _leases(state), "the address was not given back"


def _leases(state: Path) -> list[str]:
    return [path.name for path in (state / "run" / "network").glob("*/leases/*")]


@on_a_bridge
def test_a_bridge_with_the_hosts_ids(minibox: Run) -> None:
    assert "default via" in run(minibox, "--userns", "host", "base", "ip", "route")


def test_an_unknown_network(minibox: Run) -> None:
    done = minibox("run", "--rm", "--network", "nowhere", "base", "true")
    assert done.returncode == 125
    assert done.stderr == (
        "minibox: there is no network 'nowhere'\nhint: use none, host, bridge, or a network of minibox network ls\n"
    )


@requires("user")
class TestOrdinaryUser:
    """pasta or slirp4netns, where /dev/net/tun lets a user in; else none, and a note."""

    @pytest.mark.kernel
    def test_default(self, minibox_user: Run, user_can_tun: bool) -> None:
        done = minibox_user("run", "--rm", "base", "ls", "/sys/class/net")
        assert done.returncode == 0, done.stderr
        if user_can_tun:
            assert len(done.stdout.split()) == 2 and done.stderr == ""
        else:
            assert done.stdout == "lo\n"
            assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("minibox: ")

    @pytest.mark.parametrize(
        "only",
        [pytest.param(name, marks=requires(f"command:{name}")) for name in ("pasta", "slirp4netns")],
        indirect=True,
    )
    @pytest.mark.kernel
    def test_with_a_tap_device(
        self, minibox_user: Run, user_state: Path, uplink: None, open_tun: None, only: str
    ) -> None:
        with socket.create_server((ELSEWHERE, 0)) as listener:
            port = listener.getsockname()[1]
            thread = threading.Thread(target=_greet, args=(listener,), daemon=True)
            thread.start()
            # pasta of 2023 loses the end of a connection now and then: what was said counts.
            said = (
                f"nc {ELSEWHERE} {port} </dev/null >/said 2>/dev/null & until grep -s hello /said; do sleep 0.05; done"
            )
            script = f"ls /sys/class/net | xargs echo; {said}; cat /etc/resolv.conf"
            done = minibox_user("run", "--rm", "base", "sh", "-c", script)
            thread.join(60 * SLOWNESS)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        links, greeting, *_ = done.stdout.splitlines()
        assert links == "eth0 lo" and greeting == "hello"

    def test_no_note_when_none_is_asked_for(self, minibox_user: Run) -> None:
        done = minibox_user("run", "--rm", "--network", "none", "base", "ls", "/sys/class/net")
        assert (done.stdout, done.stderr) == ("lo\n", "")

    def test_no_bridge(self, minibox_user: Run) -> None:
        done = minibox_user("run", "--rm", "--network", "bridge", "base", "true")
        assert done.returncode == 125
        assert done.stderr.startswith("minibox: an ordinary user can't add links to a bridge")


@pytest.fixture(scope="module")
def user_can_tun() -> bool:
    done = subprocess.run(
        ["python3", "-c", "import os; os.open('/dev/net/tun', os.O_RDWR)"], user=isolation.USER_ID, capture_output=True
    )
    return done.returncode == 0


def _greet(listener: socket.socket) -> None:
    listener.settimeout(60 * SLOWNESS)
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"hello\n")


@pytest.fixture
def uplink() -> Iterator[None]:
    """An address of ours on a link with a default route, as the tools want to see it, and one elsewhere."""
    commands = """ip link add uplink type veth peer name uplink-peer; ip link set uplink-peer up; ip addr add 203.0.113.9/24 dev uplink; ip link set uplink up;
                  ip route add default via 203.0.113.1"""
    subprocess.run(["sh", "-ec", commands], check=True)
    subprocess.run(["ip", "addr", "add", f"{ELSEWHERE}/32", "dev", "lo"], check=True)
    yield
    subprocess.run(["ip", "addr", "delete", f"{ELSEWHERE}/32", "dev", "lo"], check=True)
    subprocess.run(["ip", "link", "delete", "uplink"], check=True)


@pytest.fixture
def only(request: pytest.FixtureRequest) -> Iterator[str]:
    """The one of the tools that can be found: the other is covered by what can't be executed."""
    other = shutil.which({"pasta": "slirp4netns", "slirp4netns": "pasta"}[request.param])
    if other:
        subprocess.run(["mount", "--bind", "/dev/null", os.path.realpath(other)], check=True)
    yield request.param
    if other:
        subprocess.run(["umount", os.path.realpath(other)], check=True)


@pytest.fixture
def open_tun() -> Iterator[None]:
    """A /dev/net/tun that ordinary users may open, as Debian's; in the tests' own mount namespace."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", place], check=True)
        os.mknod(f"{place}/tun", 0o020666, os.makedev(10, 200))
        os.chmod(f"{place}/tun", 0o666)
        subprocess.run(["mount", "--bind", f"{place}/tun", "/dev/net/tun"], check=True)
        yield
        subprocess.run(["umount", "--lazy", "/dev/net/tun", place], check=True)  # who had it open may be ending
