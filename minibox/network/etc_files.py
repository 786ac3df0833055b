"""The content of a container's network files: /etc/hosts, /etc/resolv.conf, /etc/hostname.

`host_resolv_conf` reads the host's, `rewrite` changes a running container's; all else is text only.
"""

from __future__ import annotations

import os

from minibox.base.files import closing, text_of, write_all
from minibox.base.lines import lines_of
from minibox.errors import UsageError
from minibox.network import ipv4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Without a name server the C library asks 127.0.0.1, where nobody answers in a container. These are Docker's:
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
    hostname: str, address: str | None, hosts: Sequence[tuple[str, str]] = (), host_gateway: str | None = None
) -> str:
    """Return the text of /etc/hosts.

    Args:
        hostname: the container's; if it has a domain, its first label becomes an alias.
        address: the container's own; None if it has none or we don't know it yet: then 127.0.1.1.
        hosts: further names and their addresses, in brackets or not; ``host-gateway`` means the host.
        host_gateway: the address at which the container reaches the host, if it can.

    Raises:
        UsageError: a name or an address is invalid, or ``host-gateway`` isn't available.
    """
    lines = [LOCAL_HOSTS]
    if hostname:
        names = [hostname] + ([hostname.split(".", 1)[0]] if "." in hostname else [])
        lines.append(f"{address or OWN_ADDRESS}\t{' '.join(names)}\n")
    for name, wanted in hosts:
        lines.append(f"{_host_address(name, wanted, host_gateway)}\t{name}\n")
    return "".join(lines)


def _host_address(name: str, address: str, host_gateway: str | None) -> str:
    entry = f"{name}:{address}"
    if not is_name(name):
        raise UsageError(f"--add-host {entry}: no host name before the address", hint="write it as NAME:ADDRESS")
    if address == "host-gateway":
        if host_gateway is None:
            raise UsageError(
                f"--add-host {entry}: the container can't reach the host on this network",
                hint="use --network bridge, or write the address itself",
            )
        return host_gateway
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if not (ipv4.is_ipv4(bare) or ipv4.is_ipv6(bare)):
        raise UsageError(
            f"--add-host {entry}: {address} is not an IP address",
            hint="write it as NAME:ADDRESS; host-gateway stands for this host",
        )
    return bare


def host_resolv_conf(path: str = "/etc/resolv.conf", systemd_path: str = SYSTEMD_REAL) -> str:
    """Return the host's resolver configuration; "" if there is none.

    If it names only the stub of systemd-resolved, return the file with the real servers: a container can't reach the
    stub, which listens on the host's loopback.
    """
    text = text_of(path)
    return (text_of(systemd_path) or text) if nameservers(text) == [SYSTEMD_STUB] else text


def resolv_conf_text(
    host_text: str,
    dns: Sequence[str] = (),
    *,
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    name_server: str = "",
    host_network: bool = False,
    ipv6: bool = True,
) -> str:
    """Return the text of /etc/resolv.conf.

    Args:
        host_text: the host's (`host_resolv_conf`); its `search` and `options` lines are kept.
        dns: addresses from `--dns`, which replace the host's name servers.
        search: domains from `--dns-search`, which replace the host's; "." for none at all.
        options: from `--dns-option`, likewise.
        name_server: our own, which asks the others itself; "" for none.
        host_network: the container shares the host's network, so keep name servers on loopback.
        ipv6: the container's network has IPv6; otherwise leave out name servers with such addresses.

    Raises:
        UsageError: an entry of ``dns`` is not an IP address, or a domain or option is invalid.
    """
    for address in dns:
        if not (ipv4.is_ipv4(address) or ipv4.is_ipv6(address)):
            raise UsageError(f"--dns {address}: not an IP address")
    for option, words in (("--dns-search", search), ("--dns-option", options)):
        for word in words:
            if not word or word.split() != [word] or not word.isascii():
                raise UsageError(f"{option} {word!r}: not a single word")
    if host_network and not (dns or search or options):
        return host_text
    servers = list(dns) or [server for server in nameservers(host_text) if host_network or _is_reachable(server, ipv6)]
    lines = [f"nameserver {server}" for server in ([name_server] if name_server else servers or PUBLIC_NAMESERVERS)]
    replaced = ["nameserver", *(["search", "domain"] if search else []), *(["options"] if options else [])]
    others = [line for line in lines_of(host_text) if line.split()[:1] != [] and _says(line)]
    lines += [line for line in others if line.split()[0] not in replaced]
    if search and "." not in search:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    if name_server and not any(word.startswith("ndots:") for line in lines for word in line.split()[1:]):
        lines.append("options ndots:0")  # our names have no dots; ask for them as they are
    return "".join(f"{line}\n" for line in lines)


def rewrite(path: str, text: str) -> None:
    """Replace the content of a running container's file in place: the container has it mounted by its inode.

    The container can write to the file, too, or have a lease that open(2) would wait for.

    Raises:
        OSError: with the path.
    """
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with closing(fd):
        data = text.encode()
        write_all(fd, data)
        os.ftruncate(fd, len(data))


def hostname_text(hostname: str) -> str:
    """Return the text of /etc/hostname."""
    return f"{hostname}\n"


def check_hostname(hostname: str) -> None:
    """Refuse names that sethostname(2) or a resolver would refuse.

    Raises:
        UsageError: not 1 to 64 letters, digits, dots, hyphens and underscores.
    """
    if not is_name(hostname) or len(hostname) > 64:
        raise UsageError(
            f"--hostname {hostname}: not a host name",
            hint="use 1 to 64 letters, digits, dots, hyphens and underscores; don't begin with a hyphen or dot",
        )


def is_name(name: str) -> bool:
    """Tell whether ``name`` can be a host name."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    return plain.isalnum() and plain.isascii() and name[0] not in "-."


def nameservers(text: str) -> list[str]:
    """Return the name servers that a resolv.conf names."""
    rows = (line.split() for line in lines_of(text))
    return [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"]


def _is_reachable(server: str, ipv6: bool) -> bool:
    """Tell whether a container can reach a name server: not one on the host's loopback, or on a link of the host."""
    if ipv4.is_ipv4(server):
        return not server.startswith("127.") and server != "0.0.0.0"
    bare = server.partition("%")[0].lower()
    return ipv6 and ipv4.is_ipv6(bare) and bare not in ("::1", "::") and not bare.startswith("fe80:")


def _says(line: str) -> bool:
    return not line.lstrip().startswith(("#", ";"))
