"""The bridge, against the real kernel, in network namespaces that each test makes for itself.

The "host" is a namespace too: minibox's code runs in a thread inside it, as it would in any
process with several threads. The machine's own links and nftables never change.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from minibox.errors import NetworkError
from minibox.network import bridge, firewall, lease, rtnetlink
from minibox.network.lease import Lease
from tests import isolation
from tests.conftest import CHECKOUT
from tests.container_box import until
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root", "command:nft", "command:ip", "command:unshare")

T = TypeVar("T")
PATIENCE_S = 30 * SLOWNESS


class Namespace:
    """A network namespace that lives as long as a sleeping process in it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
        own = os.readlink("/proc/self/ns/net")
        until(lambda: os.readlink(f"/proc/{self.process.pid}/ns/net") != own)
        self.fd = os.open(f"/proc/{self.process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str) -> str:
        """What ``command`` prints inside."""
        done = self.act(lambda: subprocess.run(command, capture_output=True, text=True, check=True))
        return done.stdout

    def act(self, act: Callable[[], T]) -> T:
        """Call ``act`` in a thread inside."""
        return rtnetlink.in_netns(self.fd, act)

    def close(self) -> None:
        os.close(self.fd)
        self.process.kill()
        self.process.wait()


class Host:
    """A host of its own: a namespace and a state root."""

    def __init__(self, stack: ExitStack, runroot: str) -> None:
        self.stack = stack
        self.runroot = runroot
        self.namespace = self.new_namespace()
        self.leases: list[Lease] = []

    def new_namespace(self) -> Namespace:
        namespace = Namespace()
        self.stack.callback(namespace.close)
        return namespace

    def start(self, container_id: str, runroot: str = "") -> tuple[Lease, Namespace]:
        """A container's lease and its wired namespace."""
        inside = self.new_namespace()
        taken = self.namespace.act(lambda: lease.take(runroot or self.runroot, container_id))
        self.namespace.act(lambda: bridge.wire(taken, inside.fd))
        self.leases.append(taken)
        return taken, inside

    def ruleset(self) -> str:
        return self.namespace.run("nft", "list", "ruleset")

    def links(self) -> list[str]:
        return sorted(name for _, name in self.namespace.act(socket.if_nameindex))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with ExitStack() as stack:
        yield Host(stack, str(tmp_path))


def reach(source: Namespace, target: Namespace, address: str) -> str:
    """Connect by TCP from one namespace to another; the source's address as the target sees it."""
    listener = target.act(lambda: socket.create_server(("0.0.0.0", 0)))
    with listener:
        listener.settimeout(PATIENCE_S)
        port = listener.getsockname()[1]
        with source.act(lambda: socket.create_connection((address, port), timeout=PATIENCE_S)):
            connection, peer = listener.accept()
            connection.close()
    return str(peer[0])


def add_outside(host: Host) -> Namespace:
    """A namespace that the host reaches by 203.0.113.0/24, with no way back to the containers."""
    outside = host.new_namespace()
    pid = str(outside.process.pid)
    host.namespace.run("ip", "link", "add", "up0", "mtu", "1400", "type", "veth", "peer", "name", "eth0", "netns", pid)
    host.namespace.run("ip", "address", "add", "203.0.113.1/24", "dev", "up0")
    host.namespace.run("ip", "link", "set", "up0", "up")
    outside.run("ip", "address", "add", "203.0.113.2/24", "dev", "eth0")
    outside.run("ip", "link", "set", "eth0", "up")
    host.namespace.run("ip", "route", "add", "default", "via", "203.0.113.2")
    # The kernel may take a second to notice this link's carrier (both ends have the same index, so
    # linkwatch_urgent_event says no), and drops packets until then.
    until(lambda: "state UP" in host.namespace.run("ip", "link", "show", "up0"))
    until(lambda: "state UP" in outside.run("ip", "link", "show", "eth0"))
    return outside


@pytest.mark.kernel
def test_two_containers_reach_each_other_by_address(host: Host) -> None:
    first, first_inside = host.start("first")
    second, second_inside = host.start("second")
    assert reach(first_inside, second_inside, second.address) == first.address
    assert reach(second_inside, first_inside, first.address) == second.address


def test_a_container_reaches_the_host_and_the_host_the_container(host: Host) -> None:
    taken, inside = host.start("box")
    assert reach(inside, host.namespace, taken.gateway) == taken.address
    assert reach(host.namespace, inside, taken.address) == taken.gateway


def test_to_the_outside_a_container_speaks_with_the_hosts_address(host: Host) -> None:
    outside = add_outside(host)
    _, inside = host.start("box")
    assert reach(inside, outside, "203.0.113.2") == "203.0.113.1"


def test_a_neighbour_on_the_lan_cannot_route_to_a_container(host: Host) -> None:
    outside = add_outside(host)
    taken, inside = host.start("box")
    outside.run("ip", "route", "add", taken.subnet, "via", "203.0.113.1")
    listener = inside.act(lambda: socket.create_server(("0.0.0.0", 0)))
    with listener, pytest.raises(TimeoutError):
        outside.act(lambda: socket.create_connection((taken.address, listener.getsockname()[1]), timeout=0.5))
    # the route is right: without our rule the neighbour gets through
    host.namespace.run("nft", "flush", "chain", "inet", "minibox", "forward")
    assert reach(outside, inside, taken.address) == "203.0.113.2"


def test_a_container_has_no_address_of_ipv6_but_its_own_loopback(host: Host) -> None:
    _, one = host.start("box")
    assert "inet6" not in one.run("ip", "-6", "address", "show", "eth0")
    assert "::1/128" in one.run("ip", "-6", "address", "show", "lo")


def test_the_link_takes_the_mtu_of_the_way_out(host: Host) -> None:
    add_outside(host)
    _, inside = host.start("box")
    assert "mtu 1400" in inside.run("ip", "link", "show", "eth0")


SECOND_START = """
import os, sys
from minibox.network import bridge, lease
bridge.wire(lease.take(sys.argv[1], "second"), os.open(sys.argv[2], os.O_RDONLY))
print("pyroute2" in sys.modules)
"""


def test_a_second_start_changes_no_rule_and_loads_no_pyroute2(host: Host) -> None:
    first, _ = host.start("first")
    inside = host.new_namespace()
    before = host.namespace.act(firewall.generation)
    netns = f"/proc/{inside.process.pid}/ns/net"
    assert host.namespace.run(sys.executable, "-c", SECOND_START, host.runroot, netns) == "False\n"
    assert host.namespace.act(firewall.generation) == before
    assert reach(inside, host.namespace, first.gateway)


def test_rules_that_somebody_flushed_are_back_at_the_next_start(host: Host) -> None:
    outside = add_outside(host)
    host.start("first")
    rules = host.ruleset()
    for damage in (("flush", "ruleset"), ("flush", "chain", "inet", "minibox", "postrouting")):
        host.namespace.run("nft", *damage)
        assert host.ruleset() != rules
        _, inside = host.start(f"after {damage}")
        assert host.ruleset() == rules
        assert reach(inside, outside, "203.0.113.2") == "203.0.113.1"


def test_a_bridge_that_lost_its_address_is_mended(host: Host) -> None:
    taken, _ = host.start("first")
    host.namespace.run("ip", "address", "flush", "dev", taken.bridge)
    host.namespace.run("ip", "link", "set", taken.bridge, "down")
    second, inside = host.start("second")
    assert reach(inside, host.namespace, second.gateway) == second.address


def test_the_rules_of_others_stay_as_they_are(host: Host) -> None:
    host.namespace.run("nft", "add table ip other; add chain ip other c { type filter hook forward priority 0; }")
    theirs = host.ruleset()
    taken, _ = host.start("box")
    lease.release(taken)
    host.namespace.act(lambda: bridge.remove_bridge(host.runroot))
    assert host.ruleset() == theirs


def test_removing_the_bridge_leaves_nothing(host: Host) -> None:
    taken, inside = host.start("box")
    with pytest.raises(NetworkError, match="1 addresses are in use"):
        host.namespace.act(lambda: bridge.remove_bridge(host.runroot))
    lease.release(taken)
    host.namespace.act(lambda: bridge.unwire(taken))
    host.namespace.act(lambda: bridge.remove_bridge(host.runroot))
    host.namespace.act(lambda: bridge.remove_bridge(host.runroot))
    assert host.links() == ["lo"]
    assert host.ruleset() == ""
    assert "eth0" not in inside.run("ip", "link")
    assert os.listdir(f"{host.runroot}/network") == ["requests"]


def test_two_state_roots_share_the_table_and_not_the_bridge(host: Host, tmp_path: Path) -> None:
    outside = add_outside(host)
    other_root = str(tmp_path / "other")
    first, _ = host.start("first")
    other, other_inside = host.start("first", other_root)
    assert first.bridge != other.bridge
    assert first.subnet != other.subnet
    lease.release(first)
    host.namespace.act(lambda: bridge.remove_bridge(host.runroot))
    assert first.bridge not in host.ruleset()
    assert first.subnet not in host.ruleset()
    assert reach(other_inside, outside, "203.0.113.2") == "203.0.113.1"


def test_starts_at_the_same_time_all_get_a_network(host: Host) -> None:
    outside = add_outside(host)
    insides: list[Namespace] = []
    failures: list[BaseException] = []

    def start(number: int) -> None:
        try:
            insides.append(host.start(f"box {number}")[1])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len({taken.address for taken in host.leases}) == 8
    assert all(reach(inside, outside, "203.0.113.2") == "203.0.113.1" for inside in insides)


def test_the_calling_thread_stays_in_its_namespace(host: Host) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    host.start("box")
    assert os.readlink("/proc/thread-self/ns/net") == before


def test_a_veth_goes_with_its_namespace(host: Host) -> None:
    inside = Namespace()
    try:
        taken = host.namespace.act(lambda: lease.take(host.runroot, "short"))
        host.namespace.act(lambda: bridge.wire(taken, inside.fd))
        assert lease.veth_name(taken) in host.links()
    finally:
        inside.close()
    until(lambda: lease.veth_name(taken) not in host.links())


def test_a_start_before_the_kernel_has_freed_the_last_ones_namespace(host: Host) -> None:
    taken, _ = host.start("box")
    later = Namespace()
    try:
        host.namespace.act(lambda: bridge.wire(taken, later.fd))
        assert reach(later, host.namespace, taken.gateway) == taken.address
    finally:
        later.close()


def test_the_host_and_a_subnet_that_was_taken_meanwhile(host: Host) -> None:
    first = host.namespace.act(lambda: lease.take(host.runroot, "first"))
    lease.release(first)
    host.namespace.run("ip", "route", "add", first.subnet, "dev", "lo")
    second = host.namespace.act(lambda: lease.take(host.runroot, "second"))
    assert second.subnet != first.subnet


def test_a_bridge_whose_state_was_deleted_keeps_its_subnet(host: Host) -> None:
    first, first_inside = host.start("first")
    shutil.rmtree(host.runroot)
    second, second_inside = host.start("second")
    assert second.subnet == first.subnet
    assert reach(second_inside, first_inside, first.address) == second.address


def test_a_chain_that_drops_what_is_forwarded_is_found(host: Host) -> None:
    host.namespace.run(
        "nft", "add table ip f; add chain ip f FORWARD { type filter hook forward priority 0; policy drop; }"
    )
    assert host.namespace.act(firewall.blocking_chains) == ("ip f FORWARD",)


def test_a_refusal_says_what_was_tried_and_what_the_kernel_said(host: Host) -> None:
    _, inside = host.start("box")
    other, _ = host.start("other")
    with pytest.raises(NetworkError, match=r"add a veth pair to bridge .*File exists \(EEXIST\)"):
        host.namespace.act(lambda: bridge.wire(other, inside.fd))


def test_without_nft_the_error_names_the_package(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "PLACES", ())
    monkeypatch.setenv("PATH", "/nowhere")
    taken = host.namespace.act(lambda: lease.take(host.runroot, "box"))
    with pytest.raises(NetworkError, match="nft") as caught:
        host.namespace.act(lambda: bridge.wire(taken, host.namespace.fd))
    assert "apt install nftables" in (caught.value.hint or "")


ROOTLESS = """
import os, subprocess, sys, time
from minibox.network import rootless

tool, note = rootless.find_tool(os.environ["TOOLS"])
assert tool, note
container = subprocess.Popen(["unshare", "--user", "--map-root-user", "--net", "sleep", "1000"])
while open(f"/proc/{container.pid}/comm").read() != "sleep\\n":  # then unshare has mapped its ids
    time.sleep(0.01)
ready, write = os.pipe()
os.set_inheritable(write, True)
helper = subprocess.Popen(
    ["setpriv", "--pdeathsig", "KILL", *rootless.command(tool, container.pid, write)], pass_fds=(write,), stdout=subprocess.DEVNULL
)
os.close(write)
assert rootless.is_ready(os.read(ready, 64))
connect = "import socket; print(socket.create_connection(('203.0.113.2', 8000), 30).recv(99).decode())"
inside = ["nsenter", "-t", str(container.pid), "-U", "-n", "--preserve-credentials"]
try:
    subprocess.run([*inside, sys.executable, "-c", connect], check=True)
finally:
    container.kill()
    container.wait()
    helper.terminate()
    helper.wait()
"""

# The machine's own may be closed to ordinary users; Debian's is open.
OPEN_TUN = """
mount -t tmpfs none /mnt && mknod -m 0666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun &&
exec setpriv --reuid "$1" --regid "$1" --clear-groups -- "$2" -c "$3"
"""


@requires("user", "command:setpriv", "command:nsenter")
@pytest.mark.parametrize(
    "tool", [pytest.param(name, marks=requires(f"command:{name}")) for name in ("pasta", "slirp4netns")]
)
@pytest.mark.kernel
def test_an_ordinary_users_container_reaches_the_outside(host: Host, user_command: list[str], tool: str) -> None:
    outside = add_outside(host)
    tools = Path(tempfile.mkdtemp(dir="/var/tmp"))
    host.stack.callback(shutil.rmtree, tools)
    tools.chmod(0o755)
    (tools / tool).symlink_to(str(shutil.which(tool)))
    listener = outside.act(lambda: socket.create_server(("0.0.0.0", 8000)))
    peers: list[str] = []

    def serve() -> None:
        connection, peer = listener.accept()
        peers.append(peer[0])
        connection.sendall(b"hello")
        connection.close()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    python, path = sys.executable, str(CHECKOUT)
    if user_command[0] == "/usr/bin/env":  # a copy, where the checkout keeps others out
        python, path = user_command[2], user_command[1].removeprefix("PYTHONPATH=")
    environment = {**os.environ, "TOOLS": str(tools), "PYTHONPATH": path}
    command = ["unshare", "--mount", "sh", "-c", OPEN_TUN, "sh", str(isolation.USER_ID), python, ROOTLESS]
    with listener:
        done = host.namespace.act(
            lambda: subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=60 * SLOWNESS, check=False
            )
        )
    assert done.stdout == "hello\n", done.stderr
    assert peers == ["203.0.113.1"]


def test_what_nft_refuses_is_an_error_for_who_ignores_the_end_of_children(host: Host) -> None:
    """Then nobody learns nft's status, and rules that aren't there would pass for made."""

    def change() -> None:
        with pytest.raises(NetworkError, match="change nftables"):
            firewall.apply("add rule inet minibox-nosuch forward drop\n")
        firewall.apply("add table inet minibox-other\n")
        firewall.apply("delete table inet minibox-other\n")

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        host.namespace.act(change)
    finally:
        signal.signal(signal.SIGCHLD, before)
