"""The containers' way to the outside: one nftables table of our own, `table inet minibox`.

All bridges of all state roots in a network namespace share it. They are elements of its sets:

    set subnets    subnets with a way out: packets that leave one are masqueraded
    set bridges    all bridges: only their own containers and this host can open connections to a container
    set internal   bridges without a way out: nothing is forwarded from them or to them
    set same       each bridge paired with itself: with br_netfilter loaded, a bridge's own traffic passes through here

Docker has had the rule for `bridges` since 2025 (version 28): without it any neighbour on the LAN can route to a
container, even if no port is published. Packets from a container to 127.0.0.0/8 are dropped, because published ports,
which have tables of their own (see `published`), leave `route_localnet` set on its bridge.

We never edit other programs' tables. If one of them drops forwarded packets (Docker and ufw set such a policy), we
can't
undo that: in netfilter a drop in any table is final. `blocking_chains` finds these chains for `minibox doctor`.

Forwarding (`net.ipv4.ip_forward`) is switched on in the bridge's network namespace, and stays on.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
from binascii import crc32

from minibox.base.codec import FileKind
from minibox.base.files import closing
from minibox.base.lines import lines_of
from minibox.base.lock import Lock
from minibox.errors import NetworkError, Unreadable, kernel_says, suppress, trying
from minibox.linux.process import exit_status
from minibox.network import lease as leases
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

NETLINK_NETFILTER = 12
NFT_MSG_NEWGEN, NFT_MSG_GETGEN = 15, 16
NFNL_SUBSYS_NFTABLES = 10
NFTA_GEN_ID = 1
NLM_F_REQUEST = 1

IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"
NETNS = "/proc/thread-self/ns/net"
#: Says which rules we put in place last. Without this note the next start runs nft again.
NOTE = FileKind("firewall", {"Stamp": str}, indented=False)
PLACES = ("/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft", "/usr/bin/nft")

TABLE = """\
add table inet minibox
add set inet minibox subnets { type ipv4_addr; flags interval; }
add set inet minibox bridges { type ifname; }
add set inet minibox internal { type ifname; }
add set inet minibox same { type ifname . ifname; }
add chain inet minibox postrouting { type nat hook postrouting priority srcnat; policy accept; }
add chain inet minibox forward { type filter hook forward priority filter; policy accept; }
add chain inet minibox guard { type filter hook prerouting priority raw; policy accept; }
flush chain inet minibox postrouting
flush chain inet minibox forward
flush chain inet minibox guard
add rule inet minibox postrouting ip saddr @subnets ip daddr != @subnets masquerade
add rule inet minibox forward iifname . oifname @same accept
add rule inet minibox forward iifname @internal drop
add rule inet minibox forward oifname @internal drop
add rule inet minibox forward ct state established,related accept
add rule inet minibox forward ct status dnat accept
add rule inet minibox forward iifname @bridges oifname @bridges drop
add rule inet minibox forward ip daddr @subnets iifname != @bridges drop
add rule inet minibox guard iifname @bridges ip daddr 127.0.0.0/8 drop
"""


def enable_forwarding() -> None:
    """Make the kernel forward IPv4 packets in this thread's network namespace.

    Raises:
        NetworkError: it is off and can't be switched on.
    """
    with trying(
        NetworkError,
        "switch on net.ipv4.ip_forward",
        "run `sysctl -w net.ipv4.ip_forward=1` on the host, or use --network none or --network host",
    ):
        with open(IP_FORWARD, "rb+", buffering=0) as file:
            if file.read(1) != b"1":
                file.seek(0)
                file.write(b"1")


@record
class Pending:
    """An nft process that is running. Call `wait` exactly once."""

    pid: int
    errors_fd: int
    lock_fd: int
    generation: int
    note_path: str
    script: str

    def wait(self) -> NetworkError | None:
        """Wait for nft. Return its error, or None if the rules are in place."""
        try:
            status = exit_status(self.pid)
            if status is None:  # unknown: look whether the ruleset was changed
                status = int(generation() == self.generation)
            os.lseek(self.errors_fd, 0, os.SEEK_SET)
            said = os.read(self.errors_fd, 4096).decode(errors="replace")
            if status:
                return _refusal(status, said)
            # If somebody else changed the ruleset between our look and nft's transaction, we would take
            # their change for ours. So write no note then, and the next start runs nft again.
            if generation() == self.generation + 1:
                _write_note(self.note_path, _stamp(self.generation + 1, self.script))
            return None
        finally:
            os.close(self.errors_fd)
            os.close(self.lock_fd)


def begin(runroot: str, bridge: str, subnet: str) -> Pending | None:
    """Start putting the rules for a bridge in place; return None if they are there already.

    Every change of the ruleset, by anybody, gives it a new generation number. If it is still the one that we noted
    after our last change, our rules are as we left them; checking that takes 0.1 ms. Otherwise we add them again in
    one transaction, whatever is left of them (`flush ruleset` leaves nothing).

    Raises:
        NetworkError: nft isn't installed, or the kernel has no nf_tables.
    """
    note_path = f"{leases.directory(runroot, bridge)}/firewall"
    script = TABLE + "".join(f"add element inet minibox {element}\n" for element in _elements_of(bridge, subnet))
    if _read_note(note_path) == _stamp(generation(), script):
        return None
    return _start(script, note_path)


def _elements_of(bridge: str, subnet: str) -> tuple[str, ...]:
    way = f'internal {{ "{bridge}" }}' if leases.is_internal(bridge) else f"subnets {{ {subnet} }}"
    return way, f'bridges {{ "{bridge}" }}', f'same {{ "{bridge}" . "{bridge}" }}'


def remove(runroot: str, bridge: str) -> None:
    """Take a bridge out of the table, and delete the table with its last bridge. It is no error if they are gone.

    Raises:
        NetworkError: nft refuses, or isn't installed while there is something to remove.
    """
    state = leases.directory(runroot, bridge)
    with _lock():
        held = _elements("bridges")
        if held is None:
            return
        if held <= {bridge}:
            script = "delete table inet minibox\n"
        else:
            subnet = _recorded_subnet(state)
            way, *rest = _elements_of(bridge, subnet)
            present = list(rest) if bridge in held else []
            if (bridge if leases.is_internal(bridge) else subnet) in (_elements(way.partition(" ")[0]) or ()):
                present.append(way)
            script = "".join(f"delete element inet minibox {element}\n" for element in present)
        if script:
            _change(script)


def blocking_chains() -> tuple[str, ...]:
    """Return the forward chains of other tables whose policy is drop, such as ``ip filter FORWARD``; none without nft.

    For `minibox doctor`: such a chain may block a container's way out unless one of its rules accepts the packets. It
    doesn't see rules of the old iptables-legacy.
    """
    import json

    try:
        status, said = _run("list chains\n", "-j")
    except NetworkError:
        return ()
    if status or not said.startswith("{"):
        return ()
    chains = [item["chain"] for item in json.loads(said)["nftables"] if "chain" in item]
    return tuple(
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop"
    )


def generation() -> int:
    """Return the generation number of the nftables ruleset in this thread's network namespace (NFT_MSG_GETGEN).

    Raises:
        NetworkError: the kernel has no nf_tables, or the caller no CAP_NET_ADMIN.
    """
    kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN
    request = struct.pack("=IHHIIBBH", 20, kind, NLM_F_REQUEST, 1, 0, 0, 0, 0)
    with trying(
        NetworkError,
        "ask the kernel for its nftables ruleset",
        "the kernel needs nf_tables (modprobe nf_tables); or use --network none or --network host",
    ):
        netfilter = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        try:
            netfilter.sendto(request, (0, 0))
            answer = netfilter.recv(4096)
        finally:
            netfilter.close()
        (kind,) = struct.unpack_from("=H", answer, 4)
        if kind != NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN:
            code = -struct.unpack_from("=i", answer, 16)[0]
            raise OSError(code, os.strerror(code))
    offset = 20
    while offset + 8 <= len(answer):
        length, attribute = struct.unpack_from("=HH", answer, offset)
        if attribute == NFTA_GEN_ID:
            return int(struct.unpack_from(">I", answer, offset + 4)[0])
        offset += (max(length, 4) + 3) & ~3
    raise NetworkError("ask the kernel for its nftables ruleset: its answer has no generation number")


def apply(script: str) -> None:
    """Run a script with nft that doesn't touch `table inet minibox`.

    Raises:
        NetworkError: nft refuses, or isn't installed.
    """
    with _lock():  # without it, another start could take this change for its own when it notes a generation
        _change(script)


def _change(script: str) -> None:
    """Like `apply`, for a caller that holds the lock."""
    before = generation()
    status, said = _run(script)
    if status is None:
        status = int(generation() == before)
    if status:
        raise _refusal(status, said)


def change_beside(runroot: str, act: Callable[[], T]) -> T:
    """Let ``act`` change other tables than `table inet minibox`, and update our notes so that no start runs nft for that."""
    with _lock():
        before = generation()
        made = act()
        if generation() == before + 1:
            _renew_notes(runroot, before)
        return made


def _renew_notes(runroot: str, before: int) -> None:
    old, new = _stamp(before, "").rpartition(" ")[0], _stamp(before + 1, "").rpartition(" ")[0]
    for bridge in leases.bridges(runroot):
        path = f"{leases.directory(runroot, bridge)}/firewall"
        stamp, _, what = _read_note(path).rpartition(" ")
        if stamp == old:
            _write_note(path, f"{new} {what}")


def _start(script: str, note_path: str) -> Pending:
    with _lock() as lock:
        before = generation()
        pid, output_fd = _spawn(script)
        return Pending(pid, output_fd, lock.release(), before, note_path, script)


def _run(script: str, *options: str) -> tuple[int | None, str]:
    """Run nft on a script; return its exit status (see `exit_status`) and what it printed."""
    pid, output_fd = _spawn(script, *options)
    with closing(output_fd):
        status = exit_status(pid)
        os.lseek(output_fd, 0, os.SEEK_SET)
        with open(output_fd, "rb", closefd=False) as file:
            return status, file.read().decode(errors="replace")


def _spawn(script: str, *options: str) -> tuple[int, int]:
    """Start nft on a script; return its pid and a descriptor of a file that gets its output and errors."""
    program = find_nft()
    input_fd = os.memfd_create("minibox-nft-script")
    output_fd = -1
    try:
        os.write(input_fd, script.encode())
        os.lseek(input_fd, 0, os.SEEK_SET)
        output_fd = os.memfd_create("minibox-nft-output")
        actions = [
            (os.POSIX_SPAWN_DUP2, input_fd, 0),
            (os.POSIX_SPAWN_DUP2, output_fd, 1),
            (os.POSIX_SPAWN_DUP2, output_fd, 2),
        ]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        pid = os.posix_spawn(program, [program, *options, "-f", "-"], environment, file_actions=actions)
        return pid, output_fd
    except OSError as error:
        if output_fd >= 0:
            os.close(output_fd)
        raise NetworkError(f"run {program}: {kernel_says(error)}") from error
    finally:
        os.close(input_fd)


def find_nft() -> str:
    """Return the path of the nft command.

    Raises:
        NetworkError: it isn't installed.
    """
    for path in (*PLACES, *(f"{place}/nft" for place in os.environ.get("PATH", "").split(":") if place)):
        if os.access(path, os.X_OK):
            return path
    raise NetworkError(
        "find nft, which opens the containers' way to the outside: not installed",
        hint="apt install nftables; or use --network none or --network host",
    )


def _refusal(status: int, said: str) -> NetworkError:
    lines = [line for line in lines_of(said) if line.strip()]
    said = lines[0] if lines else f"exit status {status}"
    hint = None
    if os.strerror(errno.EPERM) in said:
        hint = "nftables needs CAP_NET_ADMIN in this network namespace"
    elif os.strerror(errno.EOPNOTSUPP) in said or os.strerror(errno.ENOENT) in said:
        hint = "the kernel may lack a module: modprobe -a nf_tables nft_chain_nat nft_masq nft_ct"
    return NetworkError(f"change nftables with nft: {said}", hint)


def _elements(name: str) -> set[str] | None:
    """Return a set's elements as text; None if there is no such set."""
    import json

    status, said = _run(f"list set inet minibox {name}\n", "-j")
    if status or not said.startswith("{"):
        return None
    found = set()
    for item in json.loads(said)["nftables"]:
        for element in item.get("set", {}).get("elem", ()):
            prefix = element.get("prefix") if isinstance(element, dict) else None
            found.add(f"{prefix['addr']}/{prefix['len']}" if prefix else str(element))
    return found


def _recorded_subnet(state: str) -> str:
    return str(leases.recorded(state) or "")


def _lock() -> Lock:
    """Return the lock on this thread's network namespace itself, which all state roots that share the table share."""
    return Lock(NETNS)


def _stamp(number: int, script: str) -> str:
    """Return the text of a note: a generation number, its network namespace, and a checksum of the rules."""
    namespace = os.stat(NETNS)
    return f"{number} {namespace.st_dev}:{namespace.st_ino} {crc32(script.encode()):08x}"


def _read_note(path: str) -> str:
    try:
        return str(NOTE.read(path)["Stamp"])
    except (OSError, Unreadable):
        return ""


def _write_note(path: str, stamp: str) -> None:
    with suppress(OSError):  # the next start runs nft
        NOTE.write(path, {"Stamp": stamp})
