"""Check the values that come from a file, and say in words what is wrong with them.

A *shape* says what is accepted: a type (``int`` excludes bool, ``float`` includes whole numbers), ``[shape]`` for a
list, ``{"Name": shape, "Other?": shape}`` for an object with at least these fields (``?``: optional), ``{str:
shape}`` for an object with any fields, a tuple of alternatives, ``object`` for anything, or a function that takes a
value and returns whether it is accepted.
"""

from __future__ import annotations

from os import fsencode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Between:
    """A shape: a whole number from ``low`` to ``high``."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.__name__ = f"number from {low} to {high}"

    def __call__(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high


HEXADECIMAL = frozenset("0123456789abcdef")
PORT = Between(1, 65535)
STATUS = Between(-1, 255)
PID = Between(-1, (1 << 31) - 1)


def moment(value: object) -> bool:
    """A shape: seconds since 1970, before the year 10000."""
    return type(value) in (int, float) and 0 <= value < 253402300800  # type: ignore[operator]


def long_id(value: object) -> bool:
    """A shape: 64 hexadecimal digits, the id of a container, network or snapshot."""
    return type(value) is str and len(value) == 64 and HEXADECIMAL.issuperset(value)


def path_part(value: object) -> bool:
    """A shape: the name of a file, which can't lead out of its directory."""
    return type(value) is str and value not in ("", ".", "..") and "/" not in value and "\0" not in value


def check(value: Any, shape: Any, place: str = "") -> None:
    """Check that a value has a shape.

    Raises:
        ValueError: it hasn't; says where, and what was expected.
    """
    if isinstance(shape, tuple):
        if not any(_fits(value, each) for each in shape):
            raise ValueError(_refusal(value, " or ".join(map(name_of, shape)), place))
    elif isinstance(shape, list):
        if type(value) is not list:
            raise ValueError(_refusal(value, "a list", place))
        for index, each in enumerate(value):
            check(each, shape[0], f"{place}[{index}]")
    elif isinstance(shape, dict):
        if type(value) is not dict:
            raise ValueError(_refusal(value, "an object", place))
        _check_object(value, shape, place)
    elif isinstance(shape, type) or shape is None:
        if not _is_of(value, shape):
            raise ValueError(_refusal(value, name_of(shape), place))
    elif not shape(value):
        raise ValueError(_refusal(value, f"a {shape.__name__.replace('_', ' ')}", place))


def _check_object(value: dict[str, Any], shape: dict[Any, Any], place: str) -> None:
    if str in shape:
        for key, each in value.items():
            check(each, shape[str], f"{place}[{key!r}]")
        return
    for key, each in shape.items():
        name = key.removesuffix("?")
        if name in value:
            check(value[name], each, f"{place}.{name}" if place else name)
        elif name == key:
            raise ValueError(f"it has no {place}.{name}" if place else f"it has no {name}")


def _fits(value: Any, shape: Any) -> bool:
    try:
        check(value, shape)
    except ValueError:
        return False
    return True


def _is_of(value: Any, shape: Any) -> bool:
    if shape is None or value is None:
        return value is shape or shape is object
    if shape is object:
        return True
    return type(value) is shape or (shape is float and type(value) is int)


def _refusal(value: Any, wanted: str, place: str) -> str:
    found = repr(value)
    return f"{place or 'it'} is {found if len(found) < 60 else name_of(type(value))}, not {wanted}"


def name_of(shape: Any) -> str:
    """Return the name of a shape or a type for an error."""
    if isinstance(shape, (dict, list)):
        shape = type(shape)
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    return {**names, dict: "an object", type(None): "null"}.get(shape) or str(shape or "null")


def check_texts(value: Any) -> None:
    """Refuse strings with half a surrogate pair: they can be passed neither to the kernel nor to a terminal."""
    if isinstance(value, str):
        fsencode(value)
    elif isinstance(value, list):
        for each in value:
            check_texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            check_texts(key)
            check_texts(each)
