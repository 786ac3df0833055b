"""A network that falls apart: packets between some of its members are lost, as by a cut cable.

Nobody is told: no link goes down, no connection is reset, an ARP request has no answer. The drops are a
table of nftables of the network's own, in the bridge family: it sees what a bridge forwards from one
port to another, and not what is for this host, so a test reaches both halves.
"""

from __future__ import annotations

import os

from minibox.network import firewall
from minibox.network import lease as leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence, Set

NOTE = "partition"  # in the bridge's state: there may be a table


def pairs(groups: Sequence[Set[str]]) -> list[tuple[str, str]]:
    """Which can't reach each other, in both directions: those that have no group in common. Who is in none reaches all."""
    members = sorted(set().union(*groups))
    together = {(a, b) for group in groups for a in group for b in group}
    return [(a, b) for a in members for b in members if a != b and (a, b) not in together]


def cut(runroot: str, bridge: str, groups: Sequence[Set[str]]) -> None:
    """Lose what is sent between members of different groups, in place of what was lost before; in one step.

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
    """Lose nothing any more.

    Raises:
        NetworkError: nft isn't installed or refuses.
    """
    note = f"{leases.directory(runroot, bridge)}/{NOTE}"
    if not os.path.exists(note):
        return
    table = f"bridge {_table(bridge)}"
    firewall.apply(f"add table {table}\ndelete table {table}\n")  # there or not
    os.unlink(note)


def _table(bridge: str) -> str:
    return f"minibox-{bridge}"
