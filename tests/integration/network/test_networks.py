"""Networks by name, as a user of the command sees them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.container_box import until
from tests.probes import requires
from tests.running_container import running

pytestmark = requires("root", "command:nft")


@pytest.fixture
def net(minibox):
    """A network, removed afterwards."""
    assert minibox("network", "create", "net").returncode == 0
    yield "net"
    for each in minibox("ps", "-aq").stdout.split():
        minibox("rm", "-f", each)
    done = minibox("network", "rm", "-f", "net")
    assert done.returncode == 0, done.stderr


def detached(minibox, name: str, *options: str, script: str = "sleep 1000") -> str:
    done = minibox("run", "-d", "--rm", "--name", name, *options, "base", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def server(minibox, name: str, *options: str) -> str:
    """One that serves /etc by HTTP, and listens already."""
    container_id = detached(minibox, name, *options, script="httpd -h /etc && echo listens; exec sleep 1000")
    until(lambda: "listens" in minibox("logs", name).stdout, f"{name} listens")
    return container_id


def says(minibox, container: str, script: str) -> str:
    return minibox("exec", container, "sh", "-c", script).stdout


def can_connect(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def test_members_reach_each_other_by_name_alias_and_short_id(net, minibox):
    db = server(minibox, "db", "--network", net, "--network-alias", "postgres")
    for name in ("db", "postgres", db[:12]):
        done = minibox("run", "--rm", "--network", net, "base", "wget", "-qO-", f"http://{name}/passwd")
        assert done.stdout.startswith("root:"), (name, done.stderr)
    assert minibox("run", "--rm", "base", "timeout", "2", "wget", "-qO-", "http://db/passwd").returncode != 0


def resolves(minibox, container: str, name: str) -> bool:
    return minibox("exec", container, "nslookup", name).returncode == 0


def test_who_comes_later_is_known_and_who_goes_is_forgotten(net, minibox):
    detached(minibox, "first", "--network", net)
    before = says(minibox, "first", "cat /etc/hosts")
    detached(minibox, "second", "--network", net)
    second = minibox("inspect", "-f", "{{.NetworkSettings.Networks.net.IPAddress}}", "second").stdout.strip()
    assert second in says(minibox, "first", "nslookup second")
    assert resolves(minibox, "second", "first")
    minibox("stop", "-t0", "second")
    minibox("wait", "second")
    assert not resolves(minibox, "first", "second")
    assert says(minibox, "first", "cat /etc/hosts") == before


def test_networks_are_isolated_from_each_other(net, minibox):
    minibox("network", "create", "other")
    try:
        server(minibox, "server", "--network", net)
        address = minibox("inspect", "-f", "{{.NetworkSettings.Networks.net.IPAddress}}", "server").stdout.strip()
        look = ("wget", "-qO-", f"http://{address}/passwd")
        assert minibox("run", "--rm", "--network", net, "base", *look).returncode == 0
        for network in ("other", "bridge"):
            detached(minibox, f"on-{network}", "--network", network)
            assert minibox("exec", f"on-{network}", "timeout", "2", *look).returncode != 0, network
        # It is the rules that keep them apart.
        subprocess.run(["nft", "flush", "chain", "inet", "minibox", "forward"], check=True)
        assert minibox("exec", "on-other", *look).returncode == 0
    finally:
        minibox("rm", "-f", "server", "on-other", "on-bridge")
        minibox("network", "rm", "other")


def test_an_internal_network_has_no_way_out_and_the_host_a_way_in(minibox):
    made = minibox("network", "create", "--internal", "--subnet", "10.99.7.0/24", "lab")
    assert made.returncode == 0, made.stderr
    try:
        server(minibox, "box", "--network", "lab")
        assert says(minibox, "box", "ip route").startswith("10.99.7.0/24 dev eth0 scope link")
        assert "default" not in says(minibox, "box", "ip route")
        address = says(minibox, "box", "hostname -i").strip()
        until(lambda: can_connect(address, 80))
        assert minibox("inspect", "-f", "{{.NetworkSettings.Networks.lab.Gateway}}", "box").stdout == "10.99.7.1\n"
    finally:
        minibox("rm", "-f", "box")
        assert minibox("network", "rm", "lab").stdout == "lab\n"


def test_connected_and_disconnected_while_it_runs_and_still_when_started_again(net, minibox):
    server(minibox, "server", "--network", net)
    made = minibox("run", "-d", "--name", "box", "base", "sleep", "1000")
    assert made.returncode == 0, made.stderr
    look = "wget -qO- http://server/passwd"
    assert not says(minibox, "box", f"timeout 2 {look}")
    done = minibox("network", "connect", "--alias", "guest", net, "box")
    assert done.returncode == 0, done.stderr
    assert says(minibox, "box", look).startswith("root:")
    assert resolves(minibox, "server", "guest")
    again = minibox("network", "connect", net, "box")
    assert "is already on the network net" in again.stderr
    minibox("restart", "-t0", "box")
    assert says(minibox, "box", look).startswith("root:")
    assert resolves(minibox, "server", "guest")
    assert minibox("network", "disconnect", net, "box").returncode == 0
    assert not says(minibox, "box", f"timeout 2 {look}")
    assert not resolves(minibox, "server", "guest")
    assert "default via" in says(minibox, "box", "ip route")
    minibox("restart", "-t0", "box")
    assert list(json.loads(minibox("inspect", "box").stdout)[0]["NetworkSettings"]["Networks"]) == ["bridge"]
    assert "is not on the network net" in minibox("network", "disconnect", net, "box").stderr


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connect_that_is_killed_leaves_nothing_when_the_container_ends(net, minibox, state, environment, when):
    """Killed around the call that takes the address: it was written down before, so the end gives it back."""
    detached(minibox, "box")
    act = "kill()" if when == "before" else "real(*args), kill()"
    script = f"""
import os, sys
from minibox.base.home import Home
from minibox.engine.upkeep import networks
real = os.symlink
def kill(): os.kill(os.getpid(), 9)
def symlink(*args): {act}
os.symlink = symlink
networks.connect(Home({str(state / "root")!r}, {str(state / "run")!r}), {net!r}, "box")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env={**environment, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(leased(state)) == (1 if when == "before" else 2)
    assert minibox("network", "connect", net, "box").returncode == 0  # takes that address, not a further one
    assert len(leased(state)) == 2
    minibox("rm", "-f", "box")
    assert leased(state) == []


def test_without_another_try_the_killed_connects_address_is_given_back_too(net, minibox, state, environment):
    box = detached(minibox, "box")
    (held,) = leased(state)
    script = f"""
import os
from minibox.network import bridge
def wire(*_): os.kill(os.getpid(), 9)
bridge.wire = wire
from minibox.base.home import Home
from minibox.engine.upkeep import networks
networks.connect(Home({str(state / "root")!r}, {str(state / "run")!r}), {net!r}, {box!r})
"""
    subprocess.run([sys.executable, "-c", script], env={**environment, "PYTHONPATH": str(CHECKOUT)}, check=False)
    assert held in leased(state) and len(leased(state)) == 2
    minibox("stop", "-t0", "box")
    until(lambda: not leased(state), "both addresses are given back")


def leased(state: Path) -> list[str]:
    return sorted(str(path) for path in (state / "run").glob("network/*/leases/*"))


def test_the_default_route_moves_when_its_network_is_left(net, minibox):
    detached(minibox, "box")
    minibox("network", "connect", net, "box")
    before = says(minibox, "box", "ip route show default")
    assert minibox("network", "disconnect", "bridge", "box").returncode == 0
    after = says(minibox, "box", "ip route show default")
    assert "eth0" in before and "eth1" in after


def test_one_that_a_container_is_on_stays(net, minibox):
    box = detached(minibox, "box", "--network", net)
    done = minibox("network", "rm", net)
    assert done.returncode == 125
    assert "network net has 1 container on it" in done.stderr and box[:12] in done.stderr
    assert minibox("network", "prune", "-f").stdout == ""


def test_listed_inspected_and_pruned(minibox):
    made = minibox("network", "create", "--label", "team=web", "lab").stdout.strip()
    assert re.fullmatch("[0-9a-f]{64}", made)
    assert minibox("network", "create", "lab").stderr.startswith("minibox: network lab already exists")
    lines = minibox("network", "ls").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"],
        ["bridge", "bridge", "bridge", "local"],
        ["host", "host", "host", "local"],
        [made[:12], "lab", "bridge", "local"],
        ["none", "none", "null", "local"],
    ]
    assert minibox("network", "ls", "-q", "--filter", "label=team=web").stdout == f"{made[:12]}\n"
    (found,) = json.loads(minibox("network", "inspect", made[:6]).stdout)
    assert (found["Name"], found["Internal"], found["Labels"]) == ("lab", False, {"team": "web"})
    assert minibox("network", "prune", "-f").stdout == "Deleted Networks:\nlab\n"
    assert "there is no network" in minibox("network", "inspect", "lab").stderr
    assert "can't be removed" in minibox("network", "rm", "bridge").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--rm", "--network", "nowhere", "base", "true"), "there is no network 'nowhere'"),
        (("network", "create", "host"), "is a mode of --network"),
        (("network", "create", "a/b"), "invalid network name 'a/b'"),
        (("network", "create", "--subnet", "10.1.2.3/31", "ab"), "between /8 and /29"),
        (("network", "create", "--subnet", "127.0.0.0/8", "ab"), "overlaps one that this host uses already"),
        (("network", "create", "-d", "overlay", "ab"), "network driver 'overlay'"),
    ],
)
def test_what_cant_be_is_refused_and_leaves_nothing(words, said, minibox, state):
    done = minibox(*words)
    assert done.returncode == 125
    assert said in done.stderr
    assert list(state.glob("root/networks/*")) == []


def test_one_on_the_hosts_network_joins_no_other(net, minibox, minibox_command, environment):
    with running(minibox_command, environment, "--network", "host", "--name", "box") as box:
        done = minibox("network", "connect", net, "box")
        assert box.process.poll() is None
    assert "uses the host's network" in done.stderr


def test_after_a_reboot_the_network_is_made_again(net, minibox, state):
    """A reboot forgets links, nftables and the runroot."""
    subnet = minibox("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", net).stdout
    (bridge,) = (name for name in os.listdir(state / "run/network") if name != "requests")
    subprocess.run(["ip", "link", "delete", bridge], check=True)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    subprocess.run(["rm", "-r", state / "run/network"], check=True)
    done = minibox("run", "--rm", "--network", net, "base", "sh", "-c", "ip route | tail -n1")
    assert done.stdout.split()[0] == subnet.strip(), done.stderr


OWNER = """
import sys, time
from minibox.base.home import Home
from minibox.engine.upkeep.networks import create
made, fd = create(Home(*sys.argv[1:]), internal=True, owned=True)
print(made.name, made.bridge, flush=True)
time.sleep(1000)
"""


def test_one_whose_owner_was_killed_is_collected_by_the_next_command(minibox, state, minibox_command):
    python = str(Path(minibox_command[0]).parent / "python")
    words = [python, "-c", OWNER, str(state / "root"), str(state / "run")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        name, bridge = owner.stdout.readline().split()
        assert "is in use by a running program" in minibox("network", "rm", name).stderr
        assert name in minibox("network", "ls").stdout
        assert os.path.exists(f"/sys/class/net/{bridge}") or bridge in os.listdir("/proc/sys/net/ipv4/conf")
        owner.kill()
    assert minibox("run", "--rm", "--network", "none", "base", "true").returncode == 0
    assert bridge not in os.listdir("/proc/sys/net/ipv4/conf")
    assert name not in minibox("network", "ls").stdout
    assert os.listdir(state / "root/networks") == []


@requires("user")
def test_an_ordinary_user_is_told_what_works_instead(minibox_user):
    for words in (("network", "create", "lab"), ("run", "--rm", "--network", "lab", "base", "true")):
        done = minibox_user(*words)
        assert done.returncode == 125
        assert "needs root" in done.stderr and "loopback" in done.stderr


@pytest.mark.parametrize("alias", ["has space", "", "two\nlines", "a\u2028b", "a\tb", "-x", "#", "a" * 254])
def test_an_alias_that_nobody_could_be_called_by_is_refused(alias, net, minibox, state):
    detached(minibox, "box")
    for words in (
        ("run", "-d", "--name", "new", "--network", net, "--network-alias", alias, "base", "true"),
        ("create", "--name", "new", "--network", net, "--network-alias", alias, "base", "true"),
        ("network", "connect", "--alias", alias, net, "box"),
    ):
        done = minibox(*words)
        assert (done.returncode, done.stdout) == (125, "") and "not a host name" in done.stderr, words
    assert minibox("ps", "-aq", "--filter", "name=new").stdout == ""
    assert net not in minibox("inspect", "-f", "{{json .NetworkSettings.Networks}}", "box").stdout


LABELS = {"a": "x\u2028y", "b": "two\nlines", "c d": "\x1c \x85\x0b\r\t", "e": "", "f=": "=", "": "none"}


def test_labels_come_back_whatever_is_in_them(minibox, state):
    given = {key: value for key, value in LABELS.items() if "=" not in key}
    words = [word for key, value in given.items() for word in ("--label", f"{key}={value}")]
    done = minibox("network", "create", *words, "net")
    assert done.returncode == 0, done.stderr
    assert json.loads(minibox("network", "inspect", "net").stdout)[0]["Labels"] == given
    assert minibox("network", "ls", "-q", "--filter", "label=a=x\u2028y").stdout.strip() == done.stdout[:12]
    assert minibox("volume", "create", *words, "data").returncode == 0
    assert json.loads(minibox("volume", "inspect", "data").stdout)[0]["Labels"] == given
    assert minibox("network", "rm", "net").returncode == 0


@requires("command:strace")
def test_of_networks_that_are_joined_at_once_none_is_lost(net, minibox, minibox_command, environment):
    """And of two that join the same one, one is refused. Between reading and writing each waits for a while."""
    slow = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=rename,renameat,renameat2:delay_enter=200000"]
    others = [f"net{number}" for number in range(6)]
    for each in others:
        assert minibox("network", "create", each).returncode == 0
    detached(minibox, "box")
    commands = [["network", "connect", each, "box"] for each in (*others, net, net)]
    started = [
        subprocess.Popen([*slow, *minibox_command, *words], env=environment, stderr=subprocess.PIPE, text=True)
        for words in commands
    ]
    said = [each.communicate()[1] for each in started]
    assert sorted(each.returncode for each in started) == [0] * 7 + [125], said
    assert sum("is already on the network net" in each for each in said) == 1
    minibox("restart", "-t0", "box")
    found = json.loads(minibox("inspect", "-f", "{{json .NetworkSettings.Networks}}", "box").stdout)
    assert set(found) == {"bridge", net, *others}
    minibox("rm", "-f", "box")
    for each in others:
        assert minibox("network", "rm", each).returncode == 0
