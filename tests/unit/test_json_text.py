"""What is written without `json` says what `json` would."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.json_text import dumps, quoted

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
