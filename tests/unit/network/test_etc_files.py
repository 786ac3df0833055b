"""The texts of a container's /etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

from pathlib import Path

import pytest

from minibox.docker_words.pairs import parse_add_host
from minibox.errors import UsageError
from minibox.network import etc_files, rootless


def test_hosts_name_the_container_and_what_was_added() -> None:
    text = etc_files.hosts_text(
        "web.example.org", "10.212.0.7", [("db", "192.0.2.9"), ("six", "[fd00::9]"), ("up", "::1")]
    )
    rows = [line.split() for line in text.splitlines()]
    assert ["127.0.0.1", "localhost"] in rows
    assert ["10.212.0.7", "web.example.org", "web"] in rows
    assert ["192.0.2.9", "db"] in rows
    assert ["fd00::9", "six"] in rows
    assert ["::1", "up"] in rows


def test_a_container_without_a_network_still_knows_its_own_name() -> None:
    assert "127.0.1.1\tbox\n" in etc_files.hosts_text("box", None)


def test_host_gateway_is_the_bridge() -> None:
    assert "10.212.0.1\thost\n" in etc_files.hosts_text("box", None, [("host", "host-gateway")], "10.212.0.1")


@pytest.mark.parametrize("entry", ["", "db", "db:", ":1.2.3.4", "db:1.2.3", "a b:1.2.3.4", "db:1.2.3.4\nx", "d\n:::1"])
def test_an_entry_that_is_no_name_and_address_is_refused(entry: str) -> None:
    with pytest.raises(UsageError, match="--add-host"):
        host = parse_add_host(entry)
        etc_files.hosts_text("box", None, [(host.name, host.value)])


def test_name_and_address_stand_around_the_first_colon_or_equals_sign() -> None:
    found = [parse_add_host(word) for word in ("db:192.0.2.9", "six:[fd00::9]", "up=::1")]
    assert [(each.name, each.value) for each in found] == [("db", "192.0.2.9"), ("six", "[fd00::9]"), ("up", "::1")]


def test_host_gateway_without_a_way_to_the_host_is_refused() -> None:
    with pytest.raises(UsageError, match="can't reach the host"):
        etc_files.hosts_text("box", None, [("host", "host-gateway")])


HOST = "# made by hand\nnameserver 127.0.0.1\nnameserver 192.0.2.53\nnameserver fd00::53\nsearch example.org\n"


def test_loopback_name_servers_are_left_out() -> None:
    assert etc_files.resolv_conf_text(HOST) == "nameserver 192.0.2.53\nnameserver fd00::53\nsearch example.org\n"


def test_name_servers_by_ipv6_are_left_out_where_there_is_none() -> None:
    assert etc_files.resolv_conf_text(HOST, ipv6=False) == "nameserver 192.0.2.53\nsearch example.org\n"


def test_the_hosts_network_has_the_hosts_file_as_it_is() -> None:
    assert etc_files.resolv_conf_text(HOST, host_network=True) == HOST


def test_dns_takes_the_place_of_the_hosts_name_servers() -> None:
    assert etc_files.resolv_conf_text(HOST, ["127.0.0.5"]) == "nameserver 127.0.0.5\nsearch example.org\n"


def test_without_a_usable_name_server_public_ones_are_named() -> None:
    assert etc_files.resolv_conf_text("nameserver 127.0.0.1\n") == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_a_name_server_that_is_no_address_is_refused() -> None:
    with pytest.raises(UsageError, match="--dns dns.example.org: not an IP address"):
        etc_files.resolv_conf_text("", ["dns.example.org"])


def test_behind_systemds_stub_its_real_file_is_taken(tmp_path: Path) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\noptions edns0\n")
    real.write_text("nameserver 192.0.2.53\n")
    assert etc_files.host_resolv_conf(str(stub), str(real)) == "nameserver 192.0.2.53\n"
    stub.write_text("nameserver 192.0.2.1\n")
    assert etc_files.host_resolv_conf(str(stub), str(real)) == "nameserver 192.0.2.1\n"
    assert etc_files.host_resolv_conf(str(tmp_path / "none"), str(real)) == ""


@pytest.mark.parametrize("name", ["", "-x", "a b", "x" * 65, "naïve", "a/b"])
def test_bad_host_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--hostname"):
        etc_files.check_hostname(name)


def test_the_rootless_commands_forward_no_port_and_stay_in_the_foreground() -> None:
    pasta = rootless.RootlessTool("pasta", "/usr/bin/pasta", None, None, None, True)
    command = rootless.command(pasta, 42, 7)
    assert "--foreground" in command
    assert command[-3:] == ["--pid", "/proc/self/fd/7", "42"]
    slirp = rootless.RootlessTool("slirp4netns", "/usr/bin/slirp4netns", "10.0.2.100", None, "10.0.2.3", False)
    assert rootless.command(slirp, 42, 7)[-3:] == ["--ready-fd=7", "42", "eth0"]
    assert rootless.dns_for(slirp, ()) == ("10.0.2.3",)
    assert rootless.dns_for(slirp, ("9.9.9.9",)) == ("9.9.9.9",)


@pytest.mark.parametrize(("said", "ready"), [(b"1", True), (b"4711\n", True), (b"", False)])
def test_readiness_is_a_number_and_failure_is_silence(said: bytes, ready: bool) -> None:
    assert rootless.is_ready(said) is ready


IPV4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
ALL = "0" * 32


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "expected"),
    [
        (IPV4, "", False),
        (IPV4 + "eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", "", False),
        (IPV4 + "eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", "", True),
        (IPV4 + "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n", "", False),
        ("", f"{ALL} 00 {ALL} 00 {ALL} ffffffff 00000001 00000000 00200200       lo\n", False),
        ("", f"{ALL} 00 {ALL} 00 fe80{'0' * 27}1 00000400 00000001 00000000 00000003     eth0\n", True),
    ],
)
def test_a_default_route(tmp_path: Path, ipv4: str, ipv6: str, expected: bool) -> None:
    (tmp_path / "route").write_text(ipv4)
    (tmp_path / "ipv6_route").write_text(ipv6)
    assert rootless.has_default_route(str(tmp_path)) is expected


def test_no_route_files_are_no_route(tmp_path: Path) -> None:
    assert not rootless.has_default_route(str(tmp_path))
