"""What comes back from a sandbox, made into objects without trusting who sent it.

A pickle is a program: loading one calls whatever it names. So here it may name a few types, which do nothing but hold
what they are given, and of which none makes much of little (as ``list(range(10**12))`` would). Numbers, texts, bytes and
the containers that have a letter of their own in the format need no name.
"""

from __future__ import annotations

import builtins
import io
import pickle

from minibox.errors import UntrustedResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# By module; datetime and its kin are found when they are named.
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
    """Loads what is of harmless types, of exceptions of Python's own, and of the types that the caller allows."""

    def __init__(self, data: bytes, allowed: Iterable[type]) -> None:
        super().__init__(io.BytesIO(data))
        self._allowed = {(each.__module__, each.__qualname__): each for each in allowed}

    def find_class(self, module: str, name: str) -> type:
        """Never by attributes of what was found: a name is one of those that are listed, or refused."""
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
            f"what the sandbox has sent is of the type {module}.{name}, which is not allowed",
            "name the types that may come, allow=[Point]; or take what it sends on trust, trusted=True",
        )


def load(data: bytes, allowed: Iterable[type], *, trusted: bool) -> object:
    """The object that was sent.

    Raises:
        UntrustedResult: it is of a type that isn't allowed, or no pickle.
    """
    try:
        return pickle.loads(data) if trusted else Received(data, allowed).load()
    except UntrustedResult:
        raise
    except Exception as error:  # whatever a damaged pickle comes to
        words = f"what the sandbox has sent can't be loaded: {type(error).__name__}: {error}"
        raise UntrustedResult(words) from error
