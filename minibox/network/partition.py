"""Partition a network: drop packets between some of its members, as if a cable was cut.

The members get no notice: no link goes down, no connection is reset, an ARP request gets no answer. The drops are in an
nftables table of the network's own, in the bridge family. It sees packets that the bridge forwards between ports, but
not packets to this host, so a test can still reach both sides.
"""

from __future__ import annotations

import os

from minibox.network import firewall
from minibox.network import lease as leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence, Set

NOTE = "partition"  # a file in the bridge's state: there may be a table


def pairs(groups: Sequence[Set[str]]) -> list[tuple[str, str]]:
    """Return the pairs that can't reach each other, in both directions: those without a common group.

    A member that is in no group reaches everybody.
    """
    members = sorted(set().union(*groups))
    together = {(a, b) for group in groups for a in group for b in group}
    return [(a, b) for a in members for b in members if a != b and (a, b) not in together]


def cut(runroot: str, bridge: str, groups: Sequence[Set[str]]) -> None:
    """Drop packets between members of different groups. This replaces an earlier partition, in one step.

    Args:
        groups: names of the bridge's ports.

    Raises:
        NetworkError: nft isn't installed or refuses.
    """
    lost = pairs(groups)
    if not lost:
        heal(runroot, bridge)
        return
    table = f"bridge {_table(bridge)}"
    elements = ", ".join(f'"{a}" . "{b}"' for a, b in lost)
    with open(f"{leases.directory(runroot, bridge)}/{NOTE}", "w"):
        pass
    firewall.apply(
        f"add table {table}\n"
        f"delete table {table}\n"
        f"add table {table}\n"
        f"add set {table} lost {{ type ifname . ifname; }}\n"
        f"add element {table} lost {{ {elements} }}\n"
        f"add chain {table} forward {{ type filter hook forward priority filter; policy accept; }}\n"
        f"add rule {table} forward iifname . oifname @lost drop\n"
    )


def heal(runroot: str, bridge: str) -> None:
    """End the partition.

    Raises:
        NetworkError: nft isn't installed or refuses.
    """
    note = f"{leases.directory(runroot, bridge)}/{NOTE}"
    if not os.path.exists(note):
        return
    table = f"bridge {_table(bridge)}"
    firewall.apply(f"add table {table}\ndelete table {table}\n")  # works whether it exists or not
    os.unlink(note)


def _table(bridge: str) -> str:
    return f"minibox-{bridge}"
