"""The files a container gets for its network: /etc/hosts, /etc/resolv.conf, /etc/hostname.

Texts only, made before the start; nothing here touches the disk but `host_resolv_conf`, which reads.
"""

from __future__ import annotations

from minibox.base.lines import lines_of
from minibox.errors import UsageError
from minibox.network import ipv4
from minibox.network.host_files import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What the C library falls back to is 127.0.0.1, which in a container is nobody. As Docker does:
PUBLIC_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
SYSTEMD_STUB = "127.0.0.53"
SYSTEMD_REAL = "/run/systemd/resolve/resolv.conf"
OWN_ADDRESS = "127.0.1.1"

LOCAL_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hosts_text(
    hostname: str, address: str | None, add_host: Sequence[str] = (), host_gateway: str | None = None
) -> str:
    """The text of /etc/hosts.

    Args:
        hostname: the container's; with a domain, its first label is an alias.
        address: the container's own; None when it has none, or not one known beforehand: 127.0.1.1.
        add_host: ``name:address`` of `--add-host`; the address ``host-gateway`` means the host.
        host_gateway: the address by which the container reaches the host, if it can.

    Raises:
        UsageError: an entry of ``add_host`` is malformed.
    """
    lines = [LOCAL_HOSTS]
    if hostname:
        names = [hostname] + ([hostname.split(".", 1)[0]] if "." in hostname else [])
        lines.append(f"{address or OWN_ADDRESS}\t{' '.join(names)}\n")
    for entry in add_host:
        name, added = parse_add_host(entry, host_gateway)
        lines.append(f"{added}\t{name}\n")
    return "".join(lines)


def parse_add_host(entry: str, host_gateway: str | None = None) -> tuple[str, str]:
    """The (name, address) of ``name:address`` or ``name=address``; IPv6 with or without brackets.

    Raises:
        UsageError: no name, no such address, or ``host-gateway`` where there is none.
    """
    ends = [end for end in (entry.find(":"), entry.find("=")) if end >= 0]
    end = min(ends, default=len(entry))
    name, address = entry[:end], entry[end + 1 :]
    if not is_name(name):
        raise UsageError(f"--add-host {entry}: no host name before the address", hint="write it as NAME:ADDRESS")
    if address == "host-gateway":
        if host_gateway is None:
            raise UsageError(
                f"--add-host {entry}: the container has no way to the host on this network",
                hint="use --network bridge, or write the address itself",
            )
        return name, host_gateway
    if not address:
        raise UsageError(f"--add-host {entry}: no address behind the host name", hint="write it as NAME:ADDRESS")
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if not (ipv4.is_ipv4(bare) or ipv4.is_ipv6(bare)):
        raise UsageError(
            f"--add-host {entry}: {address} is not an IP address",
            hint="write it as NAME:ADDRESS; host-gateway stands for this host",
        )
    return name, bare


def host_resolv_conf(path: str = "/etc/resolv.conf", systemd_path: str = SYSTEMD_REAL) -> str:
    """The host's resolver configuration; systemd-resolved's real one where the first is only its stub's.

    The stub listens on the host's loopback, out of a container's reach. Empty when there is none.
    """
    text = read_text(path)
    return (read_text(systemd_path) or text) if _nameservers(text) == [SYSTEMD_STUB] else text


def resolv_conf_text(host_text: str, dns: Sequence[str] = (), *, host_network: bool = False, ipv6: bool = True) -> str:
    """The text of /etc/resolv.conf.

    Args:
        host_text: the host's (`host_resolv_conf`); its `search` and `options` lines are kept.
        dns: addresses of `--dns`, in place of the host's name servers.
        host_network: the container shares the host's network: a name server on loopback stays.
        ipv6: whether the container's network has IPv6; without, such name servers are left out.

    Raises:
        UsageError: an entry of ``dns`` is not an IP address.
    """
    for address in dns:
        if not (ipv4.is_ipv4(address) or ipv4.is_ipv6(address)):
            raise UsageError(f"--dns {address}: not an IP address")
    if host_network and not dns:
        return host_text
    nameservers = list(dns) or [server for server in _nameservers(host_text) if _is_reachable(server, ipv6)]
    others = [line for line in lines_of(host_text) if line.split()[:1] not in ([], ["nameserver"]) and _says(line)]
    lines = [f"nameserver {server}" for server in nameservers or PUBLIC_NAMESERVERS]
    return "".join(f"{line}\n" for line in lines + others)


def hostname_text(hostname: str) -> str:
    """The text of /etc/hostname."""
    return f"{hostname}\n"


def check_hostname(hostname: str) -> None:
    """Refuse what sethostname(2) or a resolver would.

    Raises:
        UsageError: not 1 to 64 letters, digits, dots, hyphens and underscores.
    """
    if not is_name(hostname) or len(hostname) > 64:
        raise UsageError(
            f"--hostname {hostname}: not a host name",
            hint="1 to 64 letters, digits, dots, hyphens and underscores, the first no hyphen",
        )


def is_name(name: str) -> bool:
    """Whether it can be a host name."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    return plain.isalnum() and plain.isascii() and name[0] not in "-."


def _nameservers(text: str) -> list[str]:
    rows = (line.split() for line in lines_of(text))
    return [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"]


def _is_reachable(server: str, ipv6: bool) -> bool:
    """Whether a container can ask it: not on the host's loopback, nor by a link that only the host has."""
    if ipv4.is_ipv4(server):
        return not server.startswith("127.") and server != "0.0.0.0"
    bare = server.partition("%")[0].lower()
    return ipv6 and ipv4.is_ipv6(bare) and bare not in ("::1", "::") and not bare.startswith("fe80:")


def _says(line: str) -> bool:
    return not line.lstrip().startswith(("#", ";"))
