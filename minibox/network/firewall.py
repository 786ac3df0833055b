"""The way to the outside: one nftables table of our own, `table inet minibox`.

All bridges of all state roots in a network namespace share it, as elements of its sets:

    set subnets    subnets with a way out: what leaves one for elsewhere is masqueraded
    set bridges    all bridges: new connections to a container come from its own or this host
    set internal   bridges without a way out: nothing is forwarded from them or to them
    set same       each bridge with itself: its own traffic comes by here when br_netfilter is loaded

Docker got the second rule in 2025 (version 28): without it any neighbour on the LAN can route to a
container, published or not. What a container sends to 127.0.0.0/8 is lost: published ports, which have tables of
their own (see `published`), leave its bridge with `route_localnet`. Other programs' tables are never edited. So where
another table drops forwarded packets (Docker and ufw set such a policy) nothing here can undo it: a drop in any table
is final in netfilter. `blocking_chains` finds those for `minibox doctor`.

Forwarding (`net.ipv4.ip_forward`) is switched on in the bridge's network namespace, and stays on.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct
from binascii import crc32

from minibox.base.codec import FileKind
from minibox.base.lines import lines_of
from minibox.errors import NetworkError, Unreadable, kernel_says
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
#: What was put there last: a note, without which nft puts it there again.
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
    """Have the kernel forward IPv4 packets in this thread's network namespace.

    Raises:
        NetworkError: it is off and can't be switched on.
    """
    try:
        with open(IP_FORWARD, "rb+", buffering=0) as file:
            if file.read(1) != b"1":
                file.seek(0)
                file.write(b"1")
    except OSError as error:
        raise NetworkError(
            f"switch on net.ipv4.ip_forward: {kernel_says(error)}",
            hint="run `sysctl -w net.ipv4.ip_forward=1` on the host, or use --network none or --network host",
        ) from error


@record
class Pending:
    """An nft that was started and not yet waited for. `wait` must be called once."""

    pid: int
    errors_fd: int
    lock_fd: int
    generation: int
    note_path: str
    script: str

    def wait(self) -> NetworkError | None:
        """Wait for nft; what it refused, or None. Then the rules are in place."""
        try:
            status = exit_status(self.pid)
            if status is None:  # then the ruleset says whether it was changed
                status = int(generation() == self.generation)
            os.lseek(self.errors_fd, 0, os.SEEK_SET)
            said = os.read(self.errors_fd, 4096).decode(errors="replace")
            if status:
                return _refusal(status, said)
            # Between our look and nft's transaction nobody else may have changed anything, or
            # their change would pass for ours: then nothing is noted and the next start runs nft.
            if generation() == self.generation + 1:
                _write_note(self.note_path, _stamp(self.generation + 1, self.script))
            return None
        finally:
            os.close(self.errors_fd)
            os.close(self.lock_fd)


def begin(runroot: str, bridge: str, subnet: str) -> Pending | None:
    """Start putting the rules for a bridge in place; None when they are there already.

    Every change of the ruleset, by anybody, gives it a new generation number. While it is the one
    noted after our own last change, our rules are as we left them: 0.1 ms. Otherwise they are put
    there again, in one transaction, whatever is left of them (a `flush ruleset` leaves nothing).

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
    """Take a bridge out of the table, and the table away with the last one. Not there: no error.

    Raises:
        NetworkError: nft refuses, or isn't installed while there is something to remove.
    """
    state = leases.directory(runroot, bridge)
    lock_fd = _lock()
    try:
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
    finally:
        os.close(lock_fd)


def blocking_chains() -> tuple[str, ...]:
    """Other tables' forward chains whose policy is drop: ``ip filter FORWARD``. Empty without nft.

    For `minibox doctor`: such a chain may stop a container's way out unless it has a rule that
    accepts it. Rules of the old iptables-legacy are not seen.
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
    """The generation number of this thread's network namespace's nftables ruleset (NFT_MSG_GETGEN).

    Raises:
        NetworkError: the kernel has no nf_tables, or the caller no CAP_NET_ADMIN.
    """
    kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN
    request = struct.pack("=IHHIIBBH", 20, kind, NLM_F_REQUEST, 1, 0, 0, 0, 0)
    try:
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
    except OSError as error:
        raise NetworkError(
            f"ask the kernel for its nftables ruleset: {kernel_says(error)}",
            hint="the kernel needs nf_tables (modprobe nf_tables); or use --network none or --network host",
        ) from error
    offset = 20
    while offset + 8 <= len(answer):
        length, attribute = struct.unpack_from("=HH", answer, offset)
        if attribute == NFTA_GEN_ID:
            return int(struct.unpack_from(">I", answer, offset + 4)[0])
        offset += (max(length, 4) + 3) & ~3
    raise NetworkError("ask the kernel for its nftables ruleset: its answer has no generation")


def apply(script: str) -> None:
    """Have nft carry out a script, which isn't about `table inet minibox`.

    Raises:
        NetworkError: nft refuses, or isn't installed.
    """
    lock_fd = _lock()  # or who notes a generation would take ours for his
    try:
        _change(script)
    finally:
        os.close(lock_fd)


def _change(script: str) -> None:
    """The same for who has the lock."""
    before = generation()
    status, said = _run(script)
    if status is None:
        status = int(generation() == before)
    if status:
        raise _refusal(status, said)


def change_beside(runroot: str, act: Callable[[], T]) -> T:
    """Have ``act`` change the ruleset, but not `table inet minibox`; who comes next finds that as noted, without an nft."""
    lock_fd = _lock()
    try:
        before = generation()
        made = act()
        if generation() == before + 1:
            _renew_notes(runroot, before)
        return made
    finally:
        os.close(lock_fd)


def _renew_notes(runroot: str, before: int) -> None:
    old, new = _stamp(before, "").rpartition(" ")[0], _stamp(before + 1, "").rpartition(" ")[0]
    for bridge in leases.bridges(runroot):
        path = f"{leases.directory(runroot, bridge)}/firewall"
        stamp, _, what = _read_note(path).rpartition(" ")
        if stamp == old:
            _write_note(path, f"{new} {what}")


def _start(script: str, note_path: str) -> Pending:
    lock_fd = _lock()
    try:
        before = generation()
        pid, output_fd = _spawn(script)
    except BaseException:
        os.close(lock_fd)
        raise
    return Pending(pid, output_fd, lock_fd, before, note_path, script)


def _run(script: str, *options: str) -> tuple[int | None, str]:
    """nft's (exit status as of `exit_status`, what it printed) for a script."""
    pid, output_fd = _spawn(script, *options)
    try:
        status = exit_status(pid)
        os.lseek(output_fd, 0, os.SEEK_SET)
        with open(output_fd, "rb", closefd=False) as file:
            return status, file.read().decode(errors="replace")
    finally:
        os.close(output_fd)


def _spawn(script: str, *options: str) -> tuple[int, int]:
    """Start nft on a script: its (pid, a file that has its output and errors)."""
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
    """The path of the nft command.

    Raises:
        NetworkError: it isn't installed.
    """
    for path in (*PLACES, *(f"{place}/nft" for place in os.environ.get("PATH", "").split(":") if place)):
        if os.access(path, os.X_OK):
            return path
    raise NetworkError(
        "find nft, which makes the containers' way to the outside: not installed",
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
    """A set's elements as text; None when the set isn't there."""
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


def _lock() -> int:
    """A descriptor with an exclusive flock on this thread's network namespace itself.

    All state roots that share the table share it, and the kernel drops it with its holder.
    """
    fd = os.open(NETNS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _stamp(number: int, script: str) -> str:
    """A generation number, the network namespace that it belongs to, and what was put there."""
    namespace = os.stat(NETNS)
    return f"{number} {namespace.st_dev}:{namespace.st_ino} {crc32(script.encode()):08x}"


def _read_note(path: str) -> str:
    try:
        return str(NOTE.read(path)["Stamp"])
    except (OSError, Unreadable):
        return ""


def _write_note(path: str, stamp: str) -> None:
    try:
        NOTE.write(path, {"Stamp": stamp})
    except OSError:
        pass  # the next start runs nft
