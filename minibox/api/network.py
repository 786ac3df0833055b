"""`minibox.Network`: a network for sandboxes that lives as long as a ``with`` block."""

from __future__ import annotations

import os
from _thread import allocate_lock
from weakref import WeakSet

from minibox.api.arguments import checked
from minibox.api.ownership import Owned, anywhere
from minibox.api.place import Places, place
from minibox.base.files import AutoClose, closing
from minibox.engine.host.interrupts import uninterrupted
from minibox.engine.upkeep import networks
from minibox.errors import NetworkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Protocol

    class Member(Protocol):
        """A `minibox.Sandbox`, as far as a network knows it."""

        @property
        def id(self) -> str: ...


class Network(Owned, AutoClose):
    """A network for sandboxes. They reach each other by address and by name; nobody else reaches them. Needs root.

    ::

        with minibox.Network() as net:
            with minibox.Sandbox("base", name="db", network=net), minibox.Sandbox("base", network=net) as box:
                box.run(["nc", "-z", "db", "5432"])

    A sandbox is found by its name, its host name and its aliases. The network is removed by `close`, at the end of
    the ``with`` block, or when this process ends in any way. Sandboxes that are still on it lose their connection.

    Attributes:
        name, id: of the network, as ``minibox network ls`` shows them.
        subnet: its address range, such as ``"10.212.0.0/22"``.
        gateway: the address of this host on it.
        internal: True if it has no access to other networks.
    """

    name: str
    id: str
    subnet: str
    gateway: str
    _closed = True  # until it is created

    @checked()
    def __init__(
        self,
        name: str = "",
        *,
        internal: bool = True,
        subnet: str = "",
        labels: Mapping[str, str] | None = None,
        root: str | os.PathLike[str] | None = None,
        runroot: str | os.PathLike[str] | None = None,
    ) -> None:
        """Create the network.

        Args:
            name: by default minibox makes one up.
            internal: no access to other networks; False gives access by NAT through this host.
            subnet: by default one that is free.
            labels: shown by ``minibox network inspect``, and usable as filters.
            root, runroot: as in `ContainerOptions`.

        Raises:
            Unsupported: you are not root.
            UsageError, NetworkError: the name or the subnet is invalid or taken, or the kernel refused.
        """
        where: Places = {}
        if root is not None:
            where["root"] = root
        if runroot is not None:
            where["runroot"] = runroot
        found = place(where)
        self._home = found.home
        words = [f"{key}={value}" for key, value in (labels or {}).items()]
        self._lock = allocate_lock()

        def create() -> None:
            self._network, self._fd = networks.create(
                self._home, name, internal=internal, subnet=subnet, labels=words, owned=True
            )
            self._closed = False
            self.name, self.id = self._network.name, self._network.id
            self.subnet, self.gateway = str(self._network.subnet), self._network.gateway
            _open_networks.add(self)

        self.internal = internal
        try:
            uninterrupted(create)
        except BaseException:
            self.close()
            raise

    def connect(self, box: Member, *, aliases: Iterable[str] = ()) -> str:
        """Connect a running sandbox to this network, and return its address.

        A sandbox that was on this network before gets its old address if that is free.

        Raises:
            UsageError: the sandbox is already on this network.
            NetworkError: the kernel or nft refuses.
        """
        self._check_open("connect a sandbox to")
        home, names = self._home, tuple(aliases)
        held = uninterrupted(lambda: networks.connect(home, self.name, box.id, aliases=names))
        return held.address if held else ""

    def disconnect(self, box: Member) -> None:
        """Disconnect a sandbox from this network: its link is removed, and its names no longer resolve.

        Raises:
            UsageError: the sandbox isn't on this network.
            NetworkError: the kernel or nft refuses.
        """
        self._check_open("disconnect a sandbox from")
        uninterrupted(lambda: networks.disconnect(self._home, self.name, box.id))

    def partition(self, *groups: Iterable[Member]) -> None:
        """Drop all packets between sandboxes of different groups. Replaces an earlier partition.

        It is like a cut cable: connections get no error, they stall, and continue after `heal` if they haven't timed
        out. A sandbox in several groups reaches all of them; a sandbox in no group reaches all sandboxes. This host
        always reaches all of them.

        Raises:
            NetworkError: a sandbox isn't on this network, or nft refuses.
        """
        self._check_open("partition")
        ids = [[box.id for box in group] for group in groups]
        uninterrupted(lambda: networks.cut(self._home, self._network, ids))

    def heal(self) -> None:
        """End the partition."""
        self._check_open("heal")
        uninterrupted(lambda: networks.heal(self._home.runroot, self._network))

    def address_of(self, box: Member) -> str | None:
        """Return the address of a sandbox on this network, or None if it isn't on it."""
        self._check_open("look at")
        return networks.address_on(self._home.runroot, self._network, box.id)

    @anywhere
    def joinable_name(self) -> str:
        """Return its name, for the option ``network`` of a sandbox; a forked child may join its parent's network.

        Raises:
            NetworkError: it was closed.
        """
        if not self._is_parents():
            self._check_open("join")
        return self.name

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise NetworkError(f"{what} network {self.name}: it was closed", "do this before close, in the with block")

    @anywhere
    def close(self) -> None:
        """Remove the network; sandboxes on it lose their connection. You may call this twice, and from any thread."""
        uninterrupted(self._end)

    def _end(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        _open_networks.discard(self)
        with closing(self._fd):
            networks.end(self._home, self._network)

    def _forget_after_fork(self) -> None:
        """Let go of the network after a fork: it belongs to the parent process."""
        self._closed, self._lock = True, allocate_lock()
        os.close(self._fd)

    def __del__(self) -> None:
        if not self._closed:
            import warnings

            warnings.warn(f"network {self.name} was not closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<minibox.Network {self.name} {self.subnet}{', closed' if self._closed else ''}>"


_open_networks: WeakSet[Network] = WeakSet()


def _after_fork() -> None:
    for each in list(_open_networks):
        each._forget_after_fork()
    _open_networks.clear()


os.register_at_fork(after_in_child=_after_fork)
