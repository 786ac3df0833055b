"""Unpickle what a sandbox sends, without trusting it.

A pickle is a program: loading it calls whatever it names. So it may name only a few types, which just hold their
arguments, and none of which turns a small pickle into a huge object, as ``list(range(10**12))`` would. Numbers, strings,
bytes and built-in containers have their own opcodes and need no name.
"""

from __future__ import annotations

import builtins
import io
import pickle

from minibox.errors import UntrustedResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Names by module. A module is imported only when a pickle names it.
HARMLESS = {
    "builtins": ("complex",),
    "collections": ("OrderedDict", "deque", "Counter"),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "uuid": ("UUID", "SafeUUID"),
    "pathlib": ("PosixPath", "PurePosixPath", "Path", "PurePath"),
    "pathlib._local": ("PosixPath", "PurePosixPath", "Path", "PurePath"),  # Python 3.13
}


class Received(pickle.Unpickler):
    """Loads only harmless types, Python's built-in exceptions, and the types that the caller allows."""

    def __init__(self, data: bytes, allowed: Iterable[type]) -> None:
        super().__init__(io.BytesIO(data))
        self._allowed = {(each.__module__, each.__qualname__): each for each in allowed}

    def find_class(self, module: str, name: str) -> type:
        """Return a listed type, or refuse. Never follows attributes, so a dotted name can't reach anything else."""
        if found := self._allowed.get((module, name)):
            return found
        if module == "builtins":
            error = getattr(builtins, name, None) if name.isidentifier() else None
            if isinstance(error, type) and issubclass(error, Exception):
                return error
        if name in HARMLESS.get(module, ()):
            from importlib import import_module

            harmless: type = getattr(import_module(module), name)
            return harmless
        raise UntrustedResult(
            f"the sandbox sent an object of type {module}.{name}, which is not allowed",
            "allow the type, for example allow=[Point], or set trusted=True if you trust the code in the sandbox",
        )


def load(data: bytes, allowed: Iterable[type], *, trusted: bool) -> object:
    """Load the object that a sandbox sent.

    Raises:
        UntrustedResult: it is of a type that isn't allowed, or not a valid pickle.
    """
    try:
        return pickle.loads(data) if trusted else Received(data, allowed).load()
    except UntrustedResult:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        words = f"can't load what the sandbox sent: {type(error).__name__}: {error}"
        raise UntrustedResult(words) from error
