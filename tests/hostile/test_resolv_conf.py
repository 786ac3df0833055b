"""A container does to its own /etc/resolv.conf whatever it can: the host writes to that file when it joins a network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.container_box import Box
from tests.probes import requires

pytestmark = requires("root", "command:nft")

LEASE_BREAK_S = int(Path("/proc/sys/fs/lease-break-time").read_text())


@pytest.fixture
def net(box: Box) -> Iterator[str]:
    box.ok("network", "create", "net")
    yield "net"
    box.ok("rm", "-f", "-a")
    box.ok("network", "rm", "net")


def guest(box: Box, name: str, script: str, *options: str) -> None:
    box.ok("run", "-d", "--name", name, *options, "base", "sh", "-c", script)
    box.until_logged(name, "ready")


def test_a_lease_on_it_holds_nobody_up(box: Box, net: str, attacker: Callable[[str], Path]) -> None:
    """Open waits for the holder of a lease, 45 s by default (fcntl(2))."""
    guest(box, "spoilt", "exec /lease /etc/resolv.conf", "-v", f"{attacker('lease')}:/lease:ro")
    begin = time.monotonic()
    box.ok("network", "connect", net, "spoilt")
    assert time.monotonic() - begin < LEASE_BREAK_S
    assert "spoilt" in box.ok("run", "--rm", "--network", net, "base", "nslookup", "spoilt")


def test_a_size_that_changes_all_the_time(box: Box, net: str, rounds: Callable[[int], range]) -> None:
    script = "echo ready; while :; do truncate -s 1000G /etc/resolv.conf; truncate -s 10 /etc/resolv.conf; done"
    guest(box, "spoilt", script)
    for _ in rounds(4):
        box.ok("network", "connect", net, "spoilt")
        assert "spoilt" in box.ok("run", "--rm", "--network", net, "base", "nslookup", "spoilt")
        box.ok("network", "disconnect", net, "spoilt")
