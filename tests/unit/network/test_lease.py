"""Leases: one address a container, whoever asks at the same time."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from minibox.network import ipv4, lease, members


def _take_many(runroot: str, first: int, count: int) -> list[str]:
    return [lease.take(runroot, f"container-{i}").address for i in range(first, first + count)]


def test_a_lease_lies_in_its_subnet_and_is_neither_gateway_nor_broadcast(tmp_path: Path) -> None:
    taken = lease.take(str(tmp_path), "a" * 64)
    subnet = ipv4.parse_subnet(taken.subnet)
    address = ipv4.parse(taken.address)
    assert address in subnet
    assert address not in (subnet.first, ipv4.parse(taken.gateway), subnet.last)
    assert taken.prefix_length == subnet.prefix_length


def test_processes_that_take_at_the_same_time_never_share_an_address(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        answers = pool.starmap(_take_many, [(str(tmp_path), 50 * i, 50) for i in range(4)])
        pool.close()
        pool.join()
    addresses = [address for answer in answers for address in answer]
    assert len(addresses) == len(set(addresses)) == 200
    assert len({address.rsplit(".", 2)[0] for address in addresses}) == 1


def test_a_released_address_is_free_again_and_releasing_twice_is_no_error(tmp_path: Path) -> None:
    first = lease.take(str(tmp_path), "one")
    lease.release(first)
    lease.release(first)
    assert lease.take(str(tmp_path), "one").address == first.address


def test_a_late_release_leaves_the_successor_alone(tmp_path: Path) -> None:
    old = lease.take(str(tmp_path), "one")
    lease.release(old)
    held = Path(lease.directory(str(tmp_path), old.bridge)) / "leases" / old.address
    held.symlink_to("two")
    lease.release(old)
    assert lease.leased(lease.directory(str(tmp_path), old.bridge)) == {old.address: "two"}


def test_what_the_dead_held_is_freed(tmp_path: Path) -> None:
    """Wherever it is: ``far`` has an address that is none of the first that it tries."""
    dead, living = lease.take(str(tmp_path), "dead"), lease.take(str(tmp_path), "living")
    state = lease.directory(str(tmp_path), living.bridge)
    far = ".".join([*living.address.split(".")[:3], "250"])
    assert far not in (dead.address, living.address)
    Path(state, "leases", far).symlink_to("far")
    for container_id in ("dead", "far", "nobody"):
        members.leave_all(str(tmp_path), container_id)
    assert lease.leased(state) == {living.address: "living"}


def test_freeing_in_a_runroot_that_never_had_a_network(tmp_path: Path) -> None:
    members.leave_all(str(tmp_path), "nobody")


def test_a_subnet_that_is_in_use_stays(tmp_path: Path) -> None:
    first = lease.take(str(tmp_path), "one")
    assert lease.take(str(tmp_path), "two").subnet == first.subnet


def test_each_runroot_has_a_bridge_of_its_own(tmp_path: Path) -> None:
    names = {lease.bridge_name(str(tmp_path / name)) for name in ("a", "b")}
    assert len(names) == 2
    assert all(len(name) <= 15 for name in names)
    assert lease.bridge_name("/run/minibox") == "minibox0"


def test_an_address_is_written_down_before_it_is_taken_and_taken_once(tmp_path: Path) -> None:
    first = lease.take(str(tmp_path), "one")
    lease.release(first)
    held = Path(first.state, "leases", first.address)
    held.symlink_to("two")
    told: list[str] = []

    def before(free: lease.Lease) -> None:
        assert not Path(free.state, "leases", free.address).is_symlink()
        told.append(free.address)

    taken = lease.take(str(tmp_path), "one", before=before)
    assert told == [taken.address] != [first.address]
    assert lease.take(str(tmp_path), "one").address == taken.address  # as after a command that was killed
