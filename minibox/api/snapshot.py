"""`minibox.Snapshot`: a prepared file system, frozen once, with which any number of sandboxes begin."""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Any

from minibox.api.options import ContainerOptions, place
from minibox.engine import snapshots
from minibox.engine.interrupts import uninterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Unpack

    from minibox.api.run import Words
    from minibox.api.sandbox import Sandbox


class Snapshot:
    """What a sandbox had on its root file system; `Sandbox.snapshot` and `open_or_create` make one.

    What begins with it costs the same however many files there are: they are a layer below, and none is copied. It is
    there as long as somebody holds it, this process or another, and is removed with the last; whoever is killed holds
    nothing. What is mounted, volumes and tmpfs, isn't in it, nor is any process.

    Attributes:
        id: 64 hexadecimal digits.
    """

    _held: snapshots.Held

    def __init__(self) -> None:
        """Not by users."""

    def _hold(self, held: snapshots.Held) -> None:
        self._held = held

    @classmethod
    def open_or_create(
        cls,
        key: str,
        prepare: Callable[[], Sandbox],
        *,
        root: str | os.PathLike[str] | None = None,
        runroot: str | os.PathLike[str] | None = None,
    ) -> Snapshot:
        """The snapshot of that key: of all processes that want it at one time, one prepares it, and the others wait.

        For workers of one test run: with the last that holds it, it goes, and the next run prepares anew.

        Args:
            key: any text; those of one state root share it.
            prepare: makes a sandbox, writes to it what is wanted and returns it; it is frozen and closed.
            root, runroot: as of `ContainerOptions`; what ``prepare`` makes must be there too.

        Raises:
            MiniboxError: the disk is full; and what ``prepare`` raises.
        """
        options: ContainerOptions = {}
        if root is not None:
            options["root"] = root
        if runroot is not None:
            options["runroot"] = runroot
        snapshot_id = sha256(key.encode()).hexdigest()

        def make() -> snapshots.Held:
            with prepare() as box:
                return box._box.freeze(snapshot_id)

        snapshot = cls()
        try:
            snapshot._hold(snapshots.hold_or_freeze(place(options).root, snapshot_id, make))
            return snapshot
        except BaseException:
            snapshot.close()
            raise

    @property
    def id(self) -> str:
        return self._held.frozen.id

    def sandbox(
        self, args: Words | None = None, *, service: bool = False, **options: Unpack[ContainerOptions]
    ) -> Sandbox:
        """A sandbox that begins with it, and is changed alone; arguments and errors as of `Sandbox`.

        Variables, user, working directory and command are those of the sandbox that was frozen unless they are given;
        its limits, mounts and networks are not.
        """
        from minibox.api.sandbox import Sandbox

        options.setdefault("root", self._held.root)
        given: dict[str, Any] = {**options, "storage_driver": self._held.frozen.driver}
        return Sandbox(self._held.frozen.image.reference, args, service=service, _snapshot=self._held, **given)

    def close(self) -> None:
        """Let go of it. Sandboxes that have begun with it go on."""
        if hasattr(self, "_held"):
            uninterrupted(self._held.close)

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        held = getattr(self, "_held", None)
        if held and not held.is_closed:
            import warnings

            warnings.warn(f"snapshot {self.id[:12]} was not closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<minibox.Snapshot {self.id[:12]} of {self._held.frozen.image.reference}>"
