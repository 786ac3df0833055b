"""What is read and written without `json` says what `json` would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.base.json_text import dumps, loads, quoted

CHECKOUT = Path(__file__).resolve().parents[3]
TEXTS = st.text(st.characters(codec=None))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


@given(VALUES)
def test_it_is_read_as_it_was(value: object) -> None:
    assert json.loads(dumps(value)) == value


@given(st.recursive(st.sampled_from(["a b", 7, None, True, 1.5]), lambda inner: st.lists(inner) | st.dictionaries(st.just("k"), inner)))  # fmt: skip
def test_it_looks_the_same(value: object) -> None:
    assert dumps(value) == json.dumps(value, indent=1)


@given(TEXTS)
def test_strings(text: str) -> None:
    assert json.loads(quoted(text)) == text and quoted(text).isascii()


def test_what_json_has_not() -> None:
    with pytest.raises(TypeError, match="JSON has no bytes"):
        dumps({"a": [b""]})


@given(VALUES, st.sampled_from([None, 1, 4]))
def test_it_reads_what_json_writes(value: object, indent: int | None) -> None:
    assert loads(b" \n" + json.dumps(value, indent=indent).encode() + b"\n\t ") == value
    assert loads(dumps(value, "").encode()) == value


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "line 1 column 1"),
        (b" \n nope", "line 2 column 2"),
        (b'{"a": }', "line 1 column 7"),
        (b'{"a": 1} x', "Extra data: line 1 column 10"),
        (b'{"a": [1,]}', "line 1"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'"a\nb"', "control character"),
        (b'"\xff"', "utf-8"),
    ],
)
def test_what_is_not_json(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        loads(data)


def test_nested_too_deep() -> None:
    with pytest.raises(RecursionError):
        loads(b"[" * 100_000)


def test_its_errors_need_no_json_before() -> None:
    """The scanner takes their class from `json.decoder`, which it expects to be there."""
    script = "from minibox.base.json_text import loads\nfor bad in (b'{', b'[1,', b'\"', b''):\n try: loads(bad)\n except ValueError: print('good')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.stdout.split() == ["good"] * 4, done.stderr
