"""A network of sandboxes, that lives as long as an object of the program does."""

from __future__ import annotations

import os
from _thread import allocate_lock
from weakref import WeakSet

from minibox.api.place import Places, place
from minibox.engine import networks
from minibox.engine.interrupts import uninterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Protocol

    class Member(Protocol):
        """A `minibox.Sandbox`, as far as a network knows it."""

        @property
        def id(self) -> str: ...


class Network:
    """A network: sandboxes on it reach each other by address and by name, nobody else does. It needs root.

    ::

        with minibox.Network() as net:
            with minibox.Sandbox("base", name="db", network=net), minibox.Sandbox("base", network=net) as box:
                box.run(["nc", "-z", "db", "5432"])

    Sandboxes are called by their name, their host name and their aliases. It ends with `close`, with the ``with``, or with
    this process, however that ends; who is still on it is cut off.

    Attributes:
        name, id: of the network, as of ``minibox network ls``.
        subnet: its addresses, ``"10.212.0.0/22"``.
        gateway: this host's address on it.
        internal: whether it has no way out.
    """

    name: str
    id: str
    subnet: str
    gateway: str

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
        """Make it.

        Args:
            name: made up when it isn't given.
            internal: without a way out; False for one by NAT, through this host.
            subnet: one that is free when it isn't given.
            labels: for ``minibox network ls`` and its like.
            root, runroot: as of `ContainerOptions`.

        Raises:
            Unsupported: this is an ordinary user.
            UsageError, NetworkError: it can't have that name or subnet, or the kernel refused.
        """
        self._closed = True  # until there is one
        where: Places = {}
        if root is not None:
            where["root"] = root
        if runroot is not None:
            where["runroot"] = runroot
        found = place(where)
        self._root, self._runroot = found.root, found.runroot
        words = [f"{key}={value}" for key, value in (labels or {}).items()]
        self._lock = allocate_lock()

        def create() -> None:
            self._network, self._fd = networks.create(
                self._root, self._runroot, name, internal=internal, subnet=subnet, labels=words, owned=True
            )
            self._closed = False
            self.name, self.id = self._network.name, self._network.id
            self.subnet, self.gateway = str(self._network.subnet), self._network.gateway
            _owned_here.add(self)

        self.internal = internal
        try:
            uninterrupted(create)
        except BaseException:
            self.close()
            raise

    def connect(self, box: Member, *, aliases: Iterable[str] = ()) -> str:
        """Put a sandbox that runs on this network; its address here. One that was on it before gets the same, if it is free.

        Raises:
            UsageError: it is on it.
            NetworkError: the kernel or nft refuses.
        """
        root, runroot, names = self._root, self._runroot, tuple(aliases)
        held = uninterrupted(lambda: networks.connect(root, runroot, self.name, box.id, aliases=names))
        return held.address if held else ""

    def disconnect(self, box: Member) -> None:
        """Take a sandbox off this network: its link goes, and others no longer know its names.

        Raises:
            UsageError: it isn't on it.
            NetworkError: the kernel or nft refuses.
        """
        uninterrupted(lambda: networks.disconnect(self._root, self._runroot, self.name, box.id))

    def partition(self, *groups: Iterable[Member]) -> None:
        """Lose all that is sent between sandboxes of different groups, in place of the partition before.

        As by a cut cable: nobody is told, connections stall, and go on after `heal` if they still wait. Who is in several
        groups reaches all of them, and who is in none, everybody. This host reaches all.

        Raises:
            NetworkError: one isn't on this network, or nft refuses.
        """
        ids = [[box.id for box in group] for group in groups]
        uninterrupted(lambda: networks.cut(self._root, self._runroot, self._network, ids))

    def heal(self) -> None:
        """Lose nothing any more."""
        uninterrupted(lambda: networks.heal(self._runroot, self._network))

    def address_of(self, box: Member) -> str | None:
        """A sandbox's address on this network; None when it isn't on it."""
        return networks.address_on(self._runroot, self._network, box.id)

    def close(self) -> None:
        """Remove it; who is on it is cut off. From any thread, and twice is fine."""
        uninterrupted(self._end)

    def _end(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        _owned_here.discard(self)
        try:
            networks.end(self._root, self._runroot, self._network)
        finally:
            os.close(self._fd)

    def _disown(self) -> None:
        """In a child that a fork made: the network is the parent's."""
        self._closed, self._lock = True, allocate_lock()
        os.close(self._fd)

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            import warnings

            warnings.warn(f"network {self.name} was not closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<minibox.Network {self.name} {self.subnet}{', closed' if self._closed else ''}>"


_owned_here: WeakSet[Network] = WeakSet()


def _after_fork() -> None:
    for each in list(_owned_here):
        each._disown()
    _owned_here.clear()


os.register_at_fork(after_in_child=_after_fork)
