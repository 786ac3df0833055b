"""The name server of networks with names, asked at 127.0.0.11:53 inside their members."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from minibox.network.rtnetlink import in_netns
from tests.container_box import Box, until
from tests.dns_client import (
    FORMERR,
    NOERROR,
    NXDOMAIN,
    SERVER,
    SERVFAIL,
    Reply,
    Upstream,
    ask,
    exchange,
    network_of,
    parse,
    query,
)  # fmt: skip
from tests.probes import requires

pytestmark = requires("root", "command:nft")

LONG = bool(os.environ.get("MINIBOX_LONG"))
MEMBERS = 100 if LONG else 8
KILLS = 200 if LONG else 20

SOCK_DESTROY = 21  # linux/sock_diag.h
NETLINK_SOCK_DIAG = 4
NLM_F_REQUEST, NLM_F_ACK = 1, 4
#: Of `struct inet_diag_sockid`: the ports and addresses of a socket that listens.
_ADDRESSES = (struct.pack("!H", SERVER[1]), bytes(2), socket.inet_aton(SERVER[0]).ljust(16, b"\0"), bytes(16))


class Network:
    """Networks with members, and what a test asks of them."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self._names: list[str] = []

    def create(self, name: str, *options: str) -> str:
        self.box.ok("network", "create", *options, name)
        self._names.append(name)
        return name

    def member(self, name: str, *options: str) -> str:
        """Start a container and return its id."""
        return self.box.ok("run", "-d", "--name", name, *options, "base", "sleep", "1000")

    def pid(self, name: str) -> int:
        return int(self.box.ok("inspect", "-f", "{{.State.Pid}}", name))

    def address(self, name: str, network: str = "net") -> str:
        return self.box.ok("inspect", "-f", f"{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}", name)

    def ask(self, member: str, name: str, kind: str = "A", *, tcp: bool = False, edns: int = 0) -> Reply:
        return ask(self.pid(member), name, kind, tcp=tcp, edns=edns)

    def servers(self) -> list[int]:
        """The processes of the name server: their root directory is that of the tables."""
        tables = f"{self.box.directory}/run/dns/tables"
        return [int(each.name) for each in Path("/proc").glob("[0-9]*") if _root_of(each) == tables]

    def close(self) -> None:
        self.box.ok("rm", "-f", "-a")
        for name in self._names:
            self.box.ok("network", "rm", name)


def _root_of(process: Path) -> str:
    try:
        return os.readlink(process / "root")
    except OSError:
        return ""


def _send(messages: list[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for message in messages:
            client.sendto(message, SERVER)


def _connect(message: bytes) -> socket.socket:
    client = socket.create_connection(SERVER)
    client.sendall(message)
    return client


@pytest.fixture
def net(box: Box) -> Iterator[Network]:
    made = Network(box)
    made.create("net")
    yield made
    made.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream("127.0.0.77")
    yield made
    made.close()


def test_names_ids_and_aliases_have_an_address(net: Network) -> None:
    db = net.member("db", "--network", "net", "--network-alias", "Postgres", "--hostname", "db.host.example")
    net.member("web", "--network", "net")
    for name in ("db", "DB", "postgres", db[:12], "db.net", "postgres.NET", "db.host.example"):
        for tcp in (False, True):
            reply = net.ask("web", name, tcp=tcp)
            assert (reply.rcode, reply.records, reply.ttl_s) == (NOERROR, [net.address("db")], {0}), (name, tcp)
    assert net.ask("db", "web").records == [net.address("web")]
    assert "127.0.0.11" in net.box.ok("exec", "web", "nslookup", "db")
    assert net.address("db") in net.box.ok("exec", "web", "nslookup", "db")


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "HTTPS"])
def test_a_name_without_such_a_record_exists(net: Network, kind: str) -> None:
    net.member("db", "--network", "net")
    assert net.ask("db", "db", kind) == Reply(NOERROR, False)
    assert net.ask("db", "db", kind, edns=1232) == Reply(NOERROR, False, edns=True, ttl_s=set())


def test_an_address_has_the_name_of_its_container(net: Network) -> None:
    net.member("db", "--network", "net")
    parts = net.address("db").split(".")
    assert net.ask("db", ".".join(reversed(parts)) + ".in-addr.arpa", "PTR").records == ["db.net"]
    assert net.ask("db", "1." + ".".join(reversed(parts[:3])) + ".in-addr.arpa", "PTR").rcode in (NOERROR, NXDOMAIN)


def test_an_alias_of_several_containers_is_spread(net: Network) -> None:
    for name in ("one", "two", "three"):
        net.member(name, "--network", "net", "--network-alias", "all")
    wanted = sorted(net.address(name) for name in ("one", "two", "three"))
    replies = []
    for _ in range(6):
        replies.append(net.ask("one", "all").records)
        net.ask("one", "all", "AAAA")  # as the C library asks
    assert all(sorted(each) == wanted for each in replies)
    assert sorted(each[0] for each in replies) == sorted(wanted * 2)
    net.box.ok("rm", "-f", "two")
    assert sorted(net.ask("one", "all").records) == sorted(net.address(name) for name in ("one", "three"))


def test_a_running_container_has_its_new_name(net: Network) -> None:
    net.create("back")
    net.member("web", "--network", "net")
    db = net.member("db", "--network", "net", "--network-alias", "store")
    for name in ("web", "db"):
        net.box.ok("network", "connect", "back", name)
    addresses = sorted([net.address("db"), net.address("db", "back")])
    net.box.ok("rename", "db", "db2")
    for name in ("db2", db[:12]):
        assert sorted(net.ask("web", name).records) == addresses, name
    assert net.ask("web", "store").records
    assert not net.ask("web", "db").records and not net.ask("web", "db.net").records
    parts = net.address("db2").split(".")
    assert net.ask("web", ".".join(reversed(parts)) + ".in-addr.arpa", "PTR").records == ["db2.net"]
    net.member("db", "--network", "net")  # the old name is free
    assert net.ask("web", "db").records == [net.address("db")]


def _destroy_listener() -> int:
    """Destroy the server's listening socket, as `ss -K` does; the kernel's answer."""
    asked = struct.pack(
        "=4BI2s2s16s16sI8s", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 1 << 10, *_ADDRESSES, 0, b"\xff" * 8
    )
    head = struct.pack("=IHHII", 16 + len(asked), SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
        netlink.send(head + asked)
        return -int(struct.unpack_from("=i", netlink.recv(4096), 16)[0])


def test_a_destroyed_socket_is_not_watched_any_more(net: Network) -> None:
    """It would be ready forever, and the server of all containers would look at it all the time."""
    net.member("web", "--network", "net")
    net.member("bad", "--network", "net", "--cap-add", "NET_ADMIN")
    assert net.ask("bad", "web").records == [net.address("web")]
    (server,) = net.servers()
    watched = 2 + 2 * 3  # its own two, and each member's sockets and connection
    until(lambda: _watched(server) == watched)
    with open(f"/proc/{net.pid('bad')}/ns/net", "rb") as netns:
        answer = in_netns(netns.fileno(), _destroy_listener)
    assert answer in (0, errno.EOPNOTSUPP)  # of a kernel that can't
    until(lambda: _watched(server) == watched - (answer == 0))
    assert net.ask("web", "bad", tcp=True).records == [net.address("bad")]
    assert net.ask("bad", "web").records == [net.address("web")]
    assert net.servers() == [server]


def _watched(server: int) -> int:
    """How many descriptors a process waits for."""
    count = 0
    for each in Path(f"/proc/{server}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed just now
            count += each.read_text().count("tfd:")
    return count


def test_others_networks_have_no_names(net: Network, upstream: Upstream) -> None:
    net.create("other")
    net.member("db", "--network", "net")
    net.member("guest", "--network", "other", "--dns", upstream.address)
    assert net.ask("guest", "db").rcode == NXDOMAIN
    assert upstream.asked == [("db", "udp")]
    parts = net.address("db").split(".")
    assert net.ask("guest", ".".join(reversed(parts)) + ".in-addr.arpa", "PTR").records == []
    done = net.box("run", "--rm", "base", "cat", "/etc/resolv.conf")
    assert "127.0.0.11" not in done.stdout


def test_other_names_are_asked_of_the_hosts_servers(net: Network, upstream: Upstream) -> None:
    net.member("web", "--network", "net", "--dns", "127.0.0.78", "--dns", upstream.address)  # the first is nobody's
    for tcp in (False, True):
        reply = net.ask("web", "www.example", tcp=tcp)
        assert (reply.rcode, reply.records, reply.ttl_s) == (NOERROR, ["192.0.2.80"], {60})
        assert net.ask("web", "www.example", "AAAA", tcp=tcp) == Reply(NOERROR, False)
        assert net.ask("web", "nobody.example", tcp=tcp).rcode == NXDOMAIN
    assert [by for _, by in upstream.asked] == ["udp"] * 3 + ["tcp"] * 3


def test_large_answers_are_truncated_and_come_whole_by_tcp(net: Network, upstream: Upstream) -> None:
    net.member("web", "--network", "net", "--dns", upstream.address)
    assert net.ask("web", "all.example") == Reply(NOERROR, truncated=True)
    assert len(net.ask("web", "all.example", edns=4096).records) == 200
    assert len(net.ask("web", "all.example", tcp=True).records) == 200


def test_a_server_that_fails_is_followed_by_the_next(net: Network, upstream: Upstream) -> None:
    second = Upstream("127.0.0.79")
    try:
        upstream.rcode = SERVFAIL
        net.member("web", "--network", "net", "--dns", upstream.address, "--dns", second.address)
        assert net.ask("web", "www.example").records == ["192.0.2.80"]
        assert (len(upstream.asked), len(second.asked)) == (1, 1)
        second.rcode = SERVFAIL
        assert net.ask("web", "www.example").rcode == SERVFAIL
    finally:
        second.close()


def test_nobody_outside_is_asked_for_a_member_of_internal_networks(net: Network, upstream: Upstream) -> None:
    net.create("lab", "--internal")
    net.member("box", "--network", "lab", "--dns", upstream.address)
    assert net.ask("box", "box").records == [net.address("box", "lab")]
    assert net.ask("box", "www.example").rcode == SERVFAIL
    assert upstream.asked == []
    net.box.ok("network", "connect", "bridge", "box")
    assert net.ask("box", "www.example").records == ["192.0.2.80"]
    net.box.ok("network", "disconnect", "bridge", "box")
    assert net.ask("box", "www.example").rcode == SERVFAIL


def test_resolv_conf_names_it_and_keeps_domains_and_options(net: Network, upstream: Upstream) -> None:
    words = ("run", "--rm", "--network", "net", "--dns", upstream.address)
    show = ("base", "cat", "/etc/resolv.conf")
    more = (
        "--dns-search",
        "example",
        "--dns-search",
        "example.org",
        "--dns-option",
        "timeout:3",
        "--dns-opt",
        "rotate",
    )
    assert net.box.ok(*words, *more, *show).splitlines() == [
        "nameserver 127.0.0.11", "search example example.org", "options timeout:3 rotate", "options ndots:0",
    ]  # fmt: skip
    assert "search" not in net.box.ok(*words, "--dns-search", ".", "--dns-option", "ndots:2", *show)
    assert "192.0.2.80" in net.box.ok(*words, "--dns-search", "example", "base", "nslookup", "www")
    assert "--dns-search 'a b': not a single word" in net.box.refused(*words, "--dns-search", "a b", *show)


def test_a_member_that_comes_while_it_runs_is_served(net: Network, upstream: Upstream) -> None:
    net.member("db", "--network", "net")
    net.member("late", "--dns", upstream.address)
    assert "127.0.0.11" not in net.box.ok("exec", "late", "cat", "/etc/resolv.conf")
    net.box.ok("network", "connect", "--alias", "guest", "net", "late")
    assert "nameserver 127.0.0.11" in net.box.ok("exec", "late", "cat", "/etc/resolv.conf")
    assert net.ask("late", "db").records == [net.address("db")]
    assert net.ask("db", "guest").records == [net.address("late")]
    assert net.ask("late", "www.example").records == ["192.0.2.80"]
    net.box.ok("network", "disconnect", "net", "late")
    assert net.ask("db", "guest").rcode != NOERROR
    assert net.ask("late", "db").rcode == NXDOMAIN
    assert net.ask("late", "www.example").records == ["192.0.2.80"]
    net.box.ok("network", "connect", "net", "late")
    assert net.ask("late", "db").records == [net.address("db")]
    net.box.ok("rm", "-f", "late")
    assert net.ask("db", "late").rcode != NOERROR


def test_it_comes_back_when_it_is_killed(net: Network) -> None:
    for name in ("one", "two"):
        net.member(name, "--network", "net")
    one, two = net.pid("one"), net.pid("two")
    wanted = [net.address("one")], [net.address("two")]
    for _ in range(KILLS):
        until(lambda: len(net.servers()) == 1)
        (server,) = net.servers()
        os.kill(server, signal.SIGKILL)
        # by the next one: the sockets have kept the questions
        assert (ask(two, "one", tcp=True).records, ask(one, "two").records) == wanted
        assert server not in net.servers()


def test_many_started_at_once_know_each_other(net: Network, minibox_command: list[str]) -> None:
    names = [f"box{number}" for number in range(MEMBERS)]
    places = {"MINIBOX_ROOT": str(net.box.directory / "root"), "MINIBOX_RUNROOT": str(net.box.directory / "run")}
    words = [*minibox_command, "run", "-d", "--network", "net", "--network-alias", "all", "--name"]
    started = [
        subprocess.Popen([*words, name, "base", "sleep", "1000"], stdout=subprocess.DEVNULL, env=os.environ | places)
        for name in names
    ]
    assert [each.wait() for each in started] == [0] * MEMBERS
    last = net.pid(names[-1])
    found = [ask(last, name).records for name in names]
    assert len({address for (address,) in found}) == MEMBERS
    assert sorted(ask(last, "all", tcp=True).records) == sorted(address for (address,) in found)
    assert len(net.servers()) == 1


def test_one_server_ends_with_its_last_member_and_leaves_nothing(net: Network) -> None:
    net.create("other")
    net.member("one", "--network", "net")
    until(lambda: len(net.servers()) == 1)
    first = net.servers()
    net.member("two", "--network", "other")
    net.ask("two", "two")
    net.box.ok("rm", "-f", "one")
    assert net.ask("two", "two").records == [net.address("two", "other")]
    assert net.servers() == first
    assert net.box.ok("run", "--rm", "--name", "short", "--network", "net", "base", "nslookup", "short")
    net.box.ok("stop", "-t0", "two")
    until(lambda: not net.servers())
    assert not (net.box.directory / "run/dns").exists()


def test_it_has_no_privileges(net: Network) -> None:
    net.member("one", "--network", "net")
    net.ask("one", "one")
    (server,) = net.servers()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{server}/status").read_text().splitlines() if ":\t" in line
    )
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65534"}
    assert (status["Groups"].strip(), int(status["CapEff"], 16), int(status["CapPrm"], 16)) == ("", 0, 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize(
    "options", [("--read-only",), ("--cap-drop", "ALL"), ("--user", "1000"), ("--userns", "host"), ("--init",)], ids=str
)
def test_it_needs_nothing_of_the_container(net: Network, options: tuple[str, ...]) -> None:
    net.member("db", "--network", "net")
    assert net.address("db") in net.box.ok("run", "--rm", "--network", "net", *options, "base", "nslookup", "db")


def test_the_c_library_sees_the_names(net: Network) -> None:
    net.member("db", "--network", "net")
    places = [word for path in ("/usr", "/lib", "/lib64") for word in ("-v", f"{os.path.realpath(path)}:{path}:ro")]
    script = (
        "import socket; print({each[4][0] for each in socket.getaddrinfo('db', 80)}, socket.gethostbyaddr('%s')[0])"
    )
    words = ("/usr/bin/python3", "-I", "-c", script % net.address("db"))
    said = net.box.ok("run", "--rm", "--network", "net", *places, "base", *words)
    assert said == f"{{'{net.address('db')}'}} db.net"


def test_whatever_a_container_sends_the_others_are_answered(net: Network) -> None:
    for name in ("bad", "good"):
        net.member(name, "--network", "net")
    whole = query("good", edns=1232)
    messages = [b"", b"\0", os.urandom(65000), *(whole[:size] for size in range(len(whole)))]
    messages += [whole[:12] + b"\xc0\x0c" * 100, whole[:4] + b"\xff" * 8 + whole[12:], b"\xff" * 512]
    with network_of(net.pid("bad")) as netns:
        in_netns(netns, lambda: _send(messages))
        assert parse(in_netns(netns, lambda: exchange(whole[:4] + struct.pack("!H", 2) + whole[6:]))).rcode == FORMERR
        held = in_netns(netns, lambda: [_connect(b"\xff") for _ in range(100)])
    try:
        assert net.ask("good", "bad", tcp=True).records == [net.address("bad")]
        assert net.ask("good", "bad").records == [net.address("bad")]
        assert net.ask("bad", "good").records == [net.address("good")]
    finally:
        for each in held:
            each.close()
