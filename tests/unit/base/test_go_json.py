"""JSON as Go writes it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.base.go_json import text

TEXTS = st.text()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


@given(VALUES, st.sampled_from(["", "  ", "\t"]))
def test_it_is_read_as_it_was(value: object, indent: str) -> None:
    assert json.loads(text(value, indent)) == value


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("a b", "a b"),
        ("é\x7f", "é\x7f"),
        ("<a&b>", "\\u003ca\\u0026b\\u003e"),
        ('"\\\n\r\t\b\0', '\\"\\\\\\n\\r\\t\\u0008\\u0000'),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\udc80", "\ufffd"),
    ],
)
def test_strings(word: str, written: str) -> None:
    assert text(word) == f'"{written}"'


def test_with_and_without_an_indent() -> None:
    value = {"a": [1, {}], "b": [], "c": {"d": None, "e": True}}
    assert text(value) == '{"a":[1,{}],"b":[],"c":{"d":null,"e":true}}'
    assert text(value, "  ") == json.dumps(value, indent=2)


def test_what_it_has_not() -> None:
    with pytest.raises(TypeError, match="bytes"):
        text([b""])
