"""Damage is told once, by whoever lists many things and comes upon one that can't be read; then he goes on with the others."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.errors import Unreadable

_told: set[str] = set()
_listeners: list[Callable[[Unreadable], None]] = []


def tell(damage: Unreadable) -> None:
    """Have whoever listens know of it; without a listener it is a warning of Python's. A file is told of once."""
    if damage.path in _told:
        return
    _told.add(damage.path)
    if _listeners:
        _listeners[-1](damage)
        return
    from warnings import warn

    from minibox.errors import DamageWarning

    warn(str(damage) + (f"; {damage.hint}" if damage.hint else ""), DamageWarning, stacklevel=2)


class Listening:
    """While a ``with`` lasts ``listener`` is told of damage, of each file once."""

    def __init__(self, listener: Callable[[Unreadable], None]) -> None:
        self._listener = listener

    def __enter__(self) -> None:
        _told.clear()
        _listeners.append(self._listener)

    def __exit__(self, *_: object) -> None:
        _listeners.remove(self._listener)
        _told.clear()
