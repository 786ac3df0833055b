"""Shapes of values that come from a file: what is accepted, and the refusal in words.

A *shape* says what is accepted: a type (``int`` is no bool, a ``float`` may be whole), ``[shape]`` for a list of such,
``{"Name": shape, "Other?": shape}`` for an object that has at least these, ``{str: shape}`` for one with any names, a
tuple of alternatives, ``object`` for anything, or a function that says whether a value will do.
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
    """A shape: seconds since 1970, of a year that has four digits."""
    return type(value) in (int, float) and 0 <= value < 253402300800  # type: ignore[operator]


def long_id(value: object) -> bool:
    """A shape: 64 hexadecimal digits, as containers, networks and snapshots have."""
    return type(value) is str and len(value) == 64 and HEXADECIMAL.issuperset(value)


def path_part(value: object) -> bool:
    """A shape: the name of a file in a directory, which can't lead out of it."""
    return type(value) is str and value not in ("", ".", "..") and "/" not in value and "\0" not in value


def check(value: Any, shape: Any, place: str = "") -> None:
    """Refuse a value that isn't of a shape.

    Raises:
        ValueError: says where, and what was expected.
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
    return f"{place or 'it'} is {found if len(found) < 60 else name_of(type(value))}, and not {wanted}"


def name_of(shape: Any) -> str:
    """What a shape or a type is called in a refusal."""
    if isinstance(shape, (dict, list)):
        shape = type(shape)
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    return {**names, dict: "an object", type(None): "null"}.get(shape) or str(shape or "null")


def check_texts(value: Any) -> None:
    """Refuse strings that neither the kernel nor a terminal can be given: half a surrogate pair."""
    if isinstance(value, str):
        fsencode(value)
    elif isinstance(value, list):
        for each in value:
            check_texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            check_texts(key)
            check_texts(each)
