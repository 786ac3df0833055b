"""Small grammars: sizes, signals and environment files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.base.sizes import parse_size
from minibox.engine.spec.environment import parse_env_file
from minibox.errors import UsageError
from minibox.linux.capabilities import NAMES, mask_of, names_of
from minibox.linux.signals import signal_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("512", 512),
        ("64m", 64 << 20),
        ("64M", 64 << 20),
        ("1.5g", 3 << 29),
        ("2GiB", 2 << 30),
        ("2 kb", 2048),
    ],
)
def test_sizes(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "1x", "1mm", "1e3", ".5g", "1..2", "²", "9" * 30, "9999999p", "0x10", "1bb"]
)
def test_bad_sizes(text):
    with pytest.raises(UsageError, match="invalid shm-size"):
        parse_size(text, "shm-size")


@pytest.mark.parametrize(
    ("word", "number"),
    [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)],
)
def test_signals(word, number):
    assert signal_number(word) == number


@pytest.mark.parametrize(
    "word", ["", "0", "65", "SIG", "SIG_IGN", "SIGRTMIN+31", "RTMAX+1", "__name__", "default_int_handler"]
)
def test_bad_signals(word):
    with pytest.raises(UsageError):
        signal_number(word)


@given(st.text())
def test_any_word(word):
    for parse in (parse_size, signal_number):
        try:
            assert parse(word) >= 0
        except UsageError as error:
            assert str(error).isprintable()


@given(st.binary())
def test_any_env_file(data):
    try:
        for entry in parse_env_file(data, "file", {}):
            assert "=" in str(entry)
    except UsageError as error:
        assert str(error).startswith("read file: ")


@pytest.mark.parametrize("data", [b"=x", b"A B=x", b"\xff=1", b" = "])
def test_bad_env_files(data):
    with pytest.raises(UsageError, match="line 2"):
        parse_env_file(b"GOOD=1\n" + data, "file", {})


def test_capability_masks():
    assert mask_of(["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE", "CAP_NEW"]) == 1 << 40 | 1
    assert names_of((1 << 64) - 1) == list(NAMES)
