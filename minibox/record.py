"""Frozen records with the syntax of dataclasses, but without importing `dataclasses`.

That module imports `inspect` and generates source text for every class: 10 ms, too much for a start of 15 ms. `record`
gives a class what minibox needs: an ``__init__`` from its annotations, equality, a repr and immutability. Type checkers
treat it as a dataclass (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T", bound=type[Any])
    R = TypeVar("R")

    @dataclass_transform(frozen_default=True)
    def record(cls: T) -> T: ...

else:

    def record(cls):
        """Make ``cls`` a frozen record of its annotated fields, in order. Class attributes are the defaults."""
        names = tuple(cls.__annotations__)
        defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}

        def __init__(self, *args, **kwargs):
            values = self.__dict__
            if not kwargs and len(args) == len(names):
                values.update(zip(names, args))
                return
            values.update(defaults)
            values.update(zip(names, args))
            values.update(kwargs)
            if (
                len(args) > len(names)
                or len(values) != len(names)
                or (kwargs and not kwargs.keys().isdisjoint(names[: len(args)]))
            ):
                raise TypeError(f"{cls.__name__} takes {', '.join(names)}; got {args!r} and {kwargs!r}")

        def __repr__(self):
            return f"{cls.__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

        def __eq__(self, other):
            return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

        def __setattr__(self, name, value):
            raise AttributeError(f"{cls.__name__} is frozen")

        cls.__init__, cls.__eq__, cls.__setattr__ = __init__, __eq__, __setattr__
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = __repr__
        cls.__hash__ = lambda self: hash(tuple(map(self.__dict__.__getitem__, names)))
        return cls


def replace(old: R, **changes: Any) -> R:
    """Return a copy of the record ``old`` with some fields changed, like `dataclasses.replace`."""
    return type(old)(**{**old.__dict__, **changes})
