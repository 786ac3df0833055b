"""Requests to rtnetlink that are compiled once: where their fields are."""

from __future__ import annotations

from minibox.network.rtnetlink import compile_requests, marked


def test_each_field_has_its_places():
    fields = {key: [field for field, _ in request.places] for key, request in compile_requests().items()}
    assert sorted(fields["add address"]) == ["address", "address", "broadcast", "index", "prefix_length"]
    assert fields["add default route"] == ["gateway"]
    assert fields["set up"] == fields["delete link"] == ["index"]
    assert sorted(fields["add bridge"]) == ["mac", "mtu", "name"]
    assert sorted(fields["add veth"]) == ["bridge_index", "mac", "mtu", "mtu", "name", "netns_fd", "peer"]


def test_a_process_id_is_no_field():
    """One in a hundred has the byte that stands for a prefix length."""
    header = (20).to_bytes(4, "little") + b"\x10\0\x05\x06"
    assert marked(header + b"\xa7" * 8 + b"body").places == ()
