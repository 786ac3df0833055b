"""Report files that can't be read, each once, from code that lists many files and goes on with the others."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.errors import Unreadable

_told: set[str] = set()
_listeners: list[Callable[[Unreadable], None]] = []


def tell(damage: Unreadable) -> None:
    """Report a damaged file to the listener, or as a Python warning if there is none. Each file is reported once."""
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
    """Call ``listener`` for each damaged file during a ``with`` block, once a file."""

    def __init__(self, listener: Callable[[Unreadable], None]) -> None:
        self._listener = listener

    def __enter__(self) -> None:
        _told.clear()
        _listeners.append(self._listener)

    def __exit__(self, *_: object) -> None:
        _listeners.remove(self._listener)
        _told.clear()
