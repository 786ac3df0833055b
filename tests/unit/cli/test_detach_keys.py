"""The keys that detach, however they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.engine.process.detach_keys import DetachKeys
from minibox.errors import UsageError


@pytest.mark.parametrize(
    "text, keys",
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-@", b"\0"),
        ("ctrl-[", b"\x1b"),
        ("ctrl-_,x,ctrl-a", b"\x1fx\x01"),
    ],
)
def test_keys(text, keys):
    assert DetachKeys(text).feed(b"before" + keys + b"after") == (b"before", True)


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-P", "ctrl-ab", "ab", "ctrl-p,", "é", "ctrl-1"])
def test_what_is_no_key(text):
    with pytest.raises(UsageError, match="is not a key"):
        DetachKeys(text)


def test_none_detach():
    assert DetachKeys("").feed(b"\x10\x11") == (b"\x10\x11", False)


def test_the_beginning_of_the_sequence_is_held_back():
    keys = DetachKeys("ctrl-p,ctrl-q")
    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.feed(b"b") == (b"\x10b", False)
    assert keys.feed(b"\x10\x10") == (b"\x10", False)
    assert keys.feed(b"\x11") == (b"", True)


@given(chunks=st.lists(st.text("abx", max_size=8)), keys=st.text("ab", min_size=1, max_size=4))
def test_any_chunks_are_as_one(chunks, keys):
    typed = "".join(chunks)
    before, found, _ = typed.partition(keys)
    scanner, out = DetachKeys(",".join(keys)), b""
    for chunk in chunks:
        data, detach = scanner.feed(chunk.encode())
        out += data
        if detach:
            assert found and out == before.encode()
            return
    assert not found and typed.encode().startswith(out) and keys.startswith(typed[len(out) :])
