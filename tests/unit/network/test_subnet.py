"""Which subnet a bridge gets, given what the host already leads to."""

from __future__ import annotations

import pytest

from minibox.errors import NetworkError
from minibox.network import ipv4, subnet

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 4
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.212.0.0/16 2 0 1
        |-- 10.212.0.0
           /24 link UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 127.0.0.0
        /8 host LOCAL
Id 51820:
     |-- 0.0.0.0
        /1 universe UNICAST
     |-- 10.212.4.0
        /23 universe UNICAST
"""

ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def taken(*cidrs: str) -> list[ipv4.Subnet]:
    return [ipv4.parse_subnet(cidr) for cidr in cidrs]


def test_an_idle_host_gets_the_first_of_the_first_pool() -> None:
    assert str(subnet.choose([], 0)) == "10.212.0.0/22"


@pytest.mark.parametrize("route", ["10.212.0.0/22", "10.212.2.7/32", "10.212.0.0/16", "10.212.3.0/24"])
def test_a_subnet_that_overlaps_a_route_is_not_chosen(route: str) -> None:
    chosen = subnet.choose(taken(route), 0)
    assert not chosen.overlaps(taken(route)[0])


def test_a_vpn_over_all_of_net_10_moves_to_the_next_pool() -> None:
    assert str(subnet.choose(taken("10.0.0.0/8"), 0)) == "172.16.0.0/22"


def test_no_candidate_is_where_other_tools_put_theirs() -> None:
    others = taken("172.17.0.0/16", "10.88.0.0/16", "10.89.0.0/16", "192.168.122.0/24", "10.0.3.0/24", "100.64.0.0/10")
    assert all(subnet.is_free(candidate, others) for candidate in subnet.candidates(0))


def test_a_host_whose_routes_cover_everything_gets_a_clear_error() -> None:
    with pytest.raises(NetworkError, match="the host's routes cover all of") as caught:
        subnet.choose(taken("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"), 0)
    assert "--network none" in (caught.value.hint or "")


def test_policy_routes_count_and_default_routes_do_not() -> None:
    assert [str(found) for found in subnet.parse_fib_trie(FIB_TRIE)] == [
        "10.212.0.0/24",
        "127.0.0.0/8",
        "10.212.4.0/23",
    ]


def test_the_main_table_is_read_in_host_byte_order() -> None:
    assert [str(found) for found in subnet.parse_route(ROUTE)] == ["192.0.2.0/24"]


def test_every_offset_offers_the_same_candidates() -> None:
    assert set(subnet.candidates(0)) == set(subnet.candidates(12345))


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/x", "fe80::1", "1.2.3.4.5/8"])
def test_what_is_no_subnet_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        ipv4.parse_subnet(text)
