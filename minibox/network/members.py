"""Who is on a network by which names: lines in the members' /etc/hosts.

    runroot/network/<bridge>/names/<container id>    the path of its hosts file; its address and its names

A file needs no server that could be down, and every resolver reads it. Each member's own is written to in
place, since it is mounted in the container by its inode: what changes is our lines, which end in the name of
the bridge; whatever else the container has put there stays.
"""

from __future__ import annotations

import os

from minibox.errors import NetworkError, kernel_says
from minibox.network import files
from minibox.network import lease as leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.network.lease import Lease


def join(lease: Lease, hosts_path: str, names: Iterable[str]) -> None:
    """Make a container known to the others on its network, and them to it.

    Args:
        hosts_path: the file that it has as /etc/hosts; it is there already.
        names: those that can't be host names are left out.

    Raises:
        NetworkError: the kernel refused.
    """
    state = leases.directory(lease.runroot, lease.bridge)
    known = " ".join(dict.fromkeys(name for name in names if name and files.is_name(name)))
    try:
        os.makedirs(f"{state}/names", 0o700, exist_ok=True)
        with leases.Lock(state):
            path = f"{state}/names/{lease.container_id}"
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(f"{hosts_path}\n{lease.address}\t{known}\n")
            os.rename(f"{path}.new", path)
            _tell_all(state, lease.bridge)
    except OSError as error:
        raise NetworkError(f"make {lease.container_id[:12]} known on {lease.bridge}: {kernel_says(error)}") from error


def leave(lease: Lease) -> None:
    """Give back an address, and have the others forget the names. Twice is no error.

    Raises:
        NetworkError: the kernel refused.
    """
    state = leases.directory(lease.runroot, lease.bridge)
    if os.path.exists(f"{state}/names/{lease.container_id}"):
        try:
            with leases.Lock(state):
                hosts_path, _ = _read(f"{state}/names/{lease.container_id}")
                os.unlink(f"{state}/names/{lease.container_id}")
                _tell_all(state, lease.bridge)
                _tell(hosts_path, lease.bridge, [])
        except FileNotFoundError:
            pass  # somebody else was faster
        except OSError as error:
            raise NetworkError(f"forget {lease.container_id[:12]} on {lease.bridge}: {kernel_says(error)}") from error
    leases.release(lease)


def leave_all(runroot: str, container_id: str) -> None:
    """The same for a container that can't do it itself, on all networks that it is on; none is fine."""
    for lease in leases.of(runroot, container_id):
        leave(lease)


def names_of(lease: Lease) -> list[str]:
    """What a member is called."""
    try:
        _, line = _read(f"{leases.directory(lease.runroot, lease.bridge)}/names/{lease.container_id}")
    except FileNotFoundError:
        return []
    return line.split()[1:]


def _tell_all(state: str, bridge: str) -> None:
    known = [_read(f"{state}/names/{each}") for each in sorted(os.listdir(f"{state}/names")) if "." not in each]
    lines = [line for _, line in known]
    for hosts_path, _ in known:
        _tell(hosts_path, bridge, lines)


def _tell(hosts_path: str, bridge: str, lines: list[str]) -> None:
    """Put ``lines`` in place of those of this network."""
    end = f"\t# {bridge}"
    try:
        fd = os.open(hosts_path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # it is being removed
    try:
        before = os.pread(fd, os.fstat(fd).st_size, 0)
        kept = [line for line in before.decode(errors="surrogateescape").splitlines() if not line.endswith(end)]
        text = "".join(f"{line}\n" for line in (*kept, *(line + end for line in lines)))
        data = text.encode(errors="surrogateescape")
        if data != before:
            # The whole before the cut: who reads meanwhile finds old lines twice rather than none.
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def _read(path: str) -> tuple[str, str]:
    with open(path, encoding="utf-8") as file:
        hosts_path, line, *_ = file.read().split("\n")
    return hosts_path, line
