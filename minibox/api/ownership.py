"""Objects that belong to the process that made them: after a fork, the child has them, but may not use them."""

from __future__ import annotations

import os

from minibox.api.arguments import with_checks
from minibox.errors import OwnedByParent, WrongArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, SupportsIndex, TypeVar

    from minibox.api.arguments import Argument

    T = TypeVar("T")


def anywhere(function: T) -> T:
    """Mark a method as harmless in a forked child, or as minibox's own: nothing is checked before it."""
    function._anywhere = True  # type: ignore[attr-defined]
    return function


class Owned:
    """The base of classes whose objects belong to one process.

    It puts one check in front of each public method and property of each class that derives from it: of the process,
    unless the method is marked with `anywhere`, and of the arguments. Such objects can't be pickled.
    """

    _owner_pid: int

    def __new__(cls, *_: object, **__: object) -> Self:
        made = super().__new__(cls)
        made._owner_pid = os.getpid()
        return made

    def __init_subclass__(cls, options: dict[str, Argument] | None = None) -> None:
        """
        Args:
            options: what may come in the ``**options`` of a method.
        """
        inherited = {"__enter__": cls.__enter__} if hasattr(cls, "__enter__") else {}
        for name, value in {**inherited, **vars(cls)}.items():
            if name.startswith("_") and name not in ("__enter__", "__aenter__", "__iter__"):
                continue
            if hasattr(value, "_anywhere") or hasattr(getattr(value, "fget", None), "_anywhere"):
                continue
            if isinstance(value, property) and value.fget:
                setattr(cls, name, property(_guarded(value.fget), value.fset, value.fdel, value.__doc__))
            elif isinstance(value, classmethod):
                setattr(cls, name, classmethod(with_checks(value.__func__, options)))
            elif callable(value) and hasattr(value, "__code__"):
                setattr(cls, name, with_checks(value, options, None, Owned._check_owner))

    def _is_parents(self) -> bool:
        """Does it belong to the process from which this one was forked?"""
        return self._owner_pid != os.getpid()

    def _check_owner(self, method: str) -> None:
        if self._owner_pid != os.getpid():
            raise OwnedByParent(
                f"{method} of {self!r}: it belongs to the process from which this one was forked",
                f"make one in this process, or let process {self._owner_pid} do it",
            )

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        raise WrongArgument(
            f"pickle or copy {self!r}: it belongs to this process",
            "make one in the other process; a minibox.Snapshot, an image's name and results can be sent",
        )


def _guarded(get: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the getter of a property, with the check."""

    def getter(self: Owned) -> Any:
        self._check_owner(get.__name__)
        return get(self)

    getter.__name__ = get.__name__
    return getter
