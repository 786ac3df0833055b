"""`minibox.Network`: sandboxes that reach each other, and that lose each other."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import time
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from itertools import permutations

import pytest

import minibox
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root", "command:nft")

#: What is sent to it, it writes to a file; it never says that it has nothing to say itself.
LISTEN = ["sh", "-c", "sleep 1000 | nc -l -p 7000 >/heard"]


@pytest.fixture
def net(api):
    with minibox.Network() as network:
        yield network


@pytest.fixture
def box(net):
    """Makes sandboxes on it."""
    with ExitStack() as stack:
        yield lambda name, **options: stack.enter_context(
            minibox.Sandbox("base", **{"name": name, "network": net, **options})
        )


def wait_until(happened, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s * SLOWNESS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reaches(source, target: str) -> bool:
    """By one packet: what can be reached is waited for, by `connects`."""
    return source.run(["ping", "-c1", "-W1", target], capture_output=True).returncode == 0


def connects(source, target: str) -> None:
    """Wait until it is reached: an answer may take more than a second, and so does the next question of ARP."""
    wait_until(lambda: reaches(source, target))


def test_sandboxes_on_it_reach_each_other_by_name_and_the_host_reaches_them(net, box):
    server, client = box("db", aliases=["postgres"]), box("client")
    server.run(["sh", "-c", "httpd -h /etc"], check=True)
    for name in ("db", "postgres", server.address):
        assert client.run(["wget", "-qO-", f"http://{name}/passwd"], capture_output=True).stdout.startswith(b"root:")
    socket.create_connection((server.address, 80), timeout=5).close()
    assert ip_address(server.address) in ip_network(net.subnet)
    assert b"default" not in client.run(["ip", "route"], capture_output=True).stdout


def test_a_partition_stalls_a_connection_and_healed_it_goes_on(net, box):
    a, b, c = box("aa"), box("bb"), box("cc")
    with a.popen(LISTEN) as server:
        wait_until(lambda: b"1B58" in a.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"], capture_output=True).stdout)
        client = b.popen(["nc", "aa", "7000"], stdin=minibox.PIPE)

        def says(text: bytes) -> None:
            client.stdin.write(text)
            client.stdin.flush()

        says(b"one\n")
        wait_until(lambda: a.read_file("/heard") == b"one\n")
        net.partition([a, c], [b])
        says(b"two\n")
        connects(a, "cc")
        connects(c, "aa")
        assert not reaches(b, "aa") and not reaches(c, "bb")
        assert a.read_file("/heard") == b"one\n"
        assert client.poll() is None and server.poll() is None  # no end, no reset: silence
        net.heal()
        # Who has no answer sends again after twice the time, two minutes at most.
        wait_until(lambda: a.read_file("/heard") == b"one\ntwo\n", 150)
        client.stdin.close()
        for command in (client, server):
            command.kill()
            command.wait()
    connects(b, "aa")


def test_who_is_in_two_groups_reaches_both_and_who_is_in_none_everybody(net, box):
    a, b, both, none = (box(name) for name in ("aa", "bb", "both", "none-of-them"))
    net.partition([a, both], [b, both])
    for source, target in permutations((a, b, both, none), 2):
        if {source, target} == {a, b}:
            assert not reaches(source, target.name)
        else:
            connects(source, target.name)
    net.partition([a], [both])
    connects(a, "bb")
    assert not reaches(a, "both")


def test_connected_and_disconnected(net, box):
    a = box("aa")
    with minibox.Sandbox("base", name="late") as late:
        assert not reaches(late, a.address)
        address = net.connect(late, aliases=["tardy"])
        assert net.address_of(late) == address
        connects(late, "aa")
        connects(a, "tardy")
        net.disconnect(late)
        assert not reaches(a, address) and not reaches(a, "late")
        assert net.address_of(late) is None
        assert net.connect(late) == address
        connects(a, "late")
        with pytest.raises(minibox.UsageError, match="is already on the network"):
            net.connect(late)


def test_it_ends_before_those_who_are_on_it(api):
    net = minibox.Network()
    with minibox.Sandbox("base", network=net) as box:
        net.close()
        net.close()
        assert box.run(["ip", "-o", "link"], capture_output=True, text=True).stdout.count("\n") == 1  # a loopback
        with pytest.raises(minibox.MiniboxError, match="it was closed"):
            minibox.Sandbox("base", network=net)


def test_one_that_was_not_closed_says_so(api):
    net = minibox.Network()
    with pytest.warns(ResourceWarning, match=f"network {net.name} was not closed"):
        del net


def test_a_process_that_was_forked_doesnt_end_it(net, box):
    a = box("aa")
    child = multiprocessing.get_context("fork").Process(target=net.close)
    child.start()
    child.join()
    b = box("bb")
    assert child.exitcode == 0
    connects(b, "aa")
    assert a.address


def test_two_dont_reach_each_other(net, box):
    a = box("aa")
    with minibox.Network() as other, minibox.Sandbox("base", network=other) as b:
        assert not reaches(b, a.address)
        assert other.subnet != net.subnet


def test_one_with_a_way_out_has_a_default_route(api):
    with minibox.Network("outside", internal=False) as net, minibox.Sandbox("base", network="outside") as box:
        route = box.run(["ip", "route", "show", "default"], capture_output=True, text=True).stdout
    assert route.split()[:3] == ["default", "via", net.gateway]


OWNER = """
import minibox, sys, time
net = minibox.Network()
box = minibox.Sandbox("base", network=net)
print(net.name, box.id, flush=True)
time.sleep(1000)
"""


def test_killed_with_its_owner_nothing_is_left_by_the_next_command(minibox, environment, state, minibox_command):
    python = os.path.join(os.path.dirname(minibox_command[0]), "python")
    with subprocess.Popen([python, "-c", OWNER], env=environment, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        name, _ = owner.stdout.readline().split()
        assert name in minibox("network", "ls").stdout
        owner.kill()
    wait_until(lambda: minibox("ps", "-aq").stdout == "")
    assert name not in minibox("network", "ls").stdout
    assert os.listdir(state / "root/networks") == []
