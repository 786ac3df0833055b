"""Platforms: how they are written, and which image of an index a machine gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.errors import StoreError, UsageError
from minibox.image.layout.manifest import choose
from minibox.image.platform import Platform, best, host_platform, parse_platform


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("amd64", Platform("linux", "amd64")),
        ("x86_64", Platform("linux", "amd64")),
        ("linux/arm64/v8", Platform("linux", "arm64", "v8")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("Linux/ARM/v7", Platform("linux", "arm", "v7")),
        ("armhf", Platform("linux", "arm", "v7")),
    ],
)
def test_spellings(text, means):
    assert parse_platform(text) == means


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux//v7", "a/b/c/d", "linux/am d64", "linux/\u00e4"])
def test_what_is_no_platform_is_refused(text):
    with pytest.raises(UsageError, match="invalid platform"):
        parse_platform(text)


@given(st.text(max_size=20))
def test_any_text_is_a_platform_or_refused(text):
    try:
        parse_platform(str(parse_platform(text)))
    except UsageError:
        pass


@pytest.mark.parametrize(
    ("wanted", "offered", "gets"),
    [
        ("linux/amd64", "linux/arm64 linux/amd64 windows/amd64", "linux/amd64"),
        ("linux/amd64", "linux/386", "linux/386"),
        ("linux/amd64", "linux/386 linux/amd64/v1", "linux/amd64/v1"),
        ("linux/amd64", "linux/amd64/v3", None),
        ("linux/amd64/v3", "linux/amd64 linux/amd64/v3", "linux/amd64/v3"),
        ("linux/amd64/v3", "linux/amd64", "linux/amd64"),
        ("linux/arm64", "linux/arm/v7 linux/arm64/v8", "linux/arm64/v8"),
        ("linux/arm64", "linux/arm/v6 linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v7", "linux/arm/v5 linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/v7", "linux/arm", "linux/arm"),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("linux/arm/v6", "linux/arm/v7 linux/arm64", None),
        ("linux/riscv64", "linux/amd64", None),
        ("windows/amd64", "linux/amd64", None),
    ],
)
def test_best_of_what_is_offered(wanted, offered, gets):
    platforms = [Platform(*text.split("/")) for text in offered.split()]
    position = best(parse_platform(wanted), platforms)
    assert (None if position is None else str(platforms[position])) == gets


def test_host_runs_what_is_made_for_it():
    assert best(host_platform(), [host_platform()]) == 0


def test_index_without_the_platform_says_what_it_has():
    items = [
        {"digest": "a", "platform": {"os": "linux", "architecture": "s390x"}},
        {"digest": "b", "platform": {"os": "unknown", "architecture": "unknown"}},
        {"digest": "c"},
        {"digest": "d", "platform": "linux"},
        "e",
    ]
    with pytest.raises(StoreError, match="nothing for linux/amd64") as caught:
        choose({"manifests": items}, "sha256:0", Platform("linux", "amd64"))
    assert caught.value.hint == "it has linux/s390x"
    for broken in (None, "x", [], [1]):
        with pytest.raises(StoreError):
            choose({"manifests": broken}, "sha256:0", Platform("linux", "amd64"))
