"""What a sandbox sends is loaded without calling anything that could do harm."""

from __future__ import annotations

import pickle
from collections import Counter, OrderedDict, deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.api.received import Received, load
from minibox.errors import UntrustedResult


class Own:
    pass


def named(module: str, name: str) -> bytes:
    """A pickle that is one object by its name, as of protocol 4."""
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text for text in (module.encode(), name.encode()))
    return b"\x80\x04" + texts + b"\x93."


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"), ("posix", "system"), ("subprocess", "Popen"), ("builtins", "eval"), ("builtins", "getattr"),
        ("builtins", "list"), ("builtins", "range"), ("builtins", "type"), ("builtins", "object"), ("builtins", "open"),
        ("builtins", "Exception.__subclasses__"), ("builtins", "BaseException"), ("builtins", "KeyboardInterrupt"),
        ("builtins", "SystemExit"), ("builtins", "__import__"), ("builtins", "ValueError.__init__"),
        ("collections", "deque.append"), ("collections", "abc"), ("collections", "namedtuple"), ("pathlib", "os.system"),
        ("datetime", "sys.modules"), ("decimal", "getcontext"), ("fractions", "Fraction"), ("tests.unit.image.test_received", "Own"),
        ("functools", "partial"), ("copyreg", "_reconstructor"), ("", ""), ("minibox.api.received", "load"),
    ],
)  # fmt: skip
def test_a_name_that_is_not_listed_is_refused(module: str, name: str) -> None:
    with pytest.raises(UntrustedResult, match="not allowed"):
        load(named(module, name), (), trusted=False)


@pytest.mark.parametrize(
    "data",
    [b"cos\nsystem\n(S'true'\ntR.", b"\x80\x02cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R.", b"\x80\x02\x82\x01.", b"Pid\n.",
     b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", b"", b"\x80\x05K\x01"],
    ids=["GLOBAL", "REDUCE", "EXT1", "PERSID", "FRAME", "empty", "cut off"],
)  # fmt: skip
def test_other_ways_to_name_something(data: bytes) -> None:
    with pytest.raises(UntrustedResult):
        load(data, (), trusted=False)


@given(st.binary(max_size=200))
def test_noise_is_refused_or_harmless(data: bytes) -> None:
    try:
        found = load(b"\x80\x05" + data, (), trusted=False)
    except UntrustedResult:
        return
    assert type(found).__module__ in ("builtins", "datetime", "collections", "decimal", "uuid", "pathlib")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.dates()
    | st.timedeltas() | st.uuids() | st.decimals(allow_nan=False) | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(plain)
def test_plain_values_come_through(value: Any) -> None:
    assert load(pickle.dumps(value, 5), (), trusted=False) == value


@pytest.mark.parametrize(
    "value",
    [OrderedDict(a=1), deque([1], 2), Counter("aab"), Path("/x"), {1}, frozenset({2}), bytearray(b"x"), memoryview],
    ids=lambda value: type(value).__name__,
)
def test_containers_come_through(value: Any) -> None:
    data = pickle.dumps(value, 5)
    if value is memoryview:
        with pytest.raises(UntrustedResult):
            load(data, (), trusted=False)
    else:
        assert load(data, (), trusted=False) == value


def test_exceptions_come_through_with_what_they_hold() -> None:
    group = ExceptionGroup("two", [ValueError(1, "x"), OSError(2, "no", "file")])
    found: Any = load(pickle.dumps(group, 5), (), trusted=False)
    assert repr(found) == repr(group) and found.exceptions[1].errno == 2


def test_types_that_are_allowed() -> None:
    data = pickle.dumps(Own(), 5)
    with pytest.raises(UntrustedResult):
        load(data, (), trusted=False)
    assert isinstance(Received(data, (Own,)).load(), Own)
    assert isinstance(load(data, (), trusted=True), Own)
