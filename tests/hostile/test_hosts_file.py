"""A member of a network does to its own /etc/hosts whatever it can: the host writes to that file, too."""

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


def member(box: Box, net: str, name: str, script: str, *options: str) -> None:
    words = ("run", "-d", "--name", name, "--network", net, *options, "base", "sh", "-c")
    box.ok(*words, script)
    box.until_logged(name, "ready")


def test_a_lease_on_it_holds_nobody_up(box: Box, net: str, attacker: Callable[[str], Path]) -> None:
    """Open waits for the holder of a lease, 45 s by default (fcntl(2)): of many such members, for as long each."""
    script = "exec /lease /etc/hosts"
    for number in range(2):
        member(box, net, f"spoilt{number}", script, "-v", f"{attacker('lease')}:/lease:ro")
    begin = time.monotonic()
    member(box, net, "sound", "echo ready; exec sleep 1000")
    for number in range(2):
        box.ok("rm", "-f", f"spoilt{number}")
    assert "spoilt" not in box.ok("exec", "sound", "cat", "/etc/hosts")
    assert time.monotonic() - begin < LEASE_BREAK_S


def test_a_size_that_changes_all_the_time(box: Box, net: str, rounds: Callable[[int], range]) -> None:
    script = "echo ready; while :; do truncate -s 1000G /etc/hosts; truncate -s 10 /etc/hosts; done"
    member(box, net, "spoilt", script)
    for _ in rounds(4):
        member(box, net, "sound", "echo ready; exec sleep 1000")
        assert "sound" in box.ok("exec", "sound", "cat", "/etc/hosts")
        assert "spoilt" in box.ok("exec", "sound", "cat", "/etc/hosts")
        box.ok("rm", "-f", "sound")
