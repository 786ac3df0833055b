"""The format of a cache on another machine, and the values of `--cache-from` and `--cache-to`."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.build.remote_cache.document import MADE_BY_LENGTH_MAX, CachedLine, config_of, read_lines
from minibox.build.remote_cache.words import FROM, TO, CachePlace, parse_places
from minibox.errors import MiniboxError, RegistryError, UsageError
from minibox.image.layout.manifest import MEDIA_TYPE_LAYER

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
DIGESTS = HEX.map("sha256:".__add__)
LAYERS = st.builds(lambda digest, size: {"mediaType": MEDIA_TYPE_LAYER, "digest": digest, "size": size},
                   DIGESTS, st.integers(0, 1 << 40))  # fmt: skip
LINES = st.lists(
    st.builds(CachedLine, HEX, DIGESTS, st.text(max_size=9), st.floats(0, 2e11), st.none() | LAYERS),
    unique_by=lambda line: line.key,
)
LAYER = {"mediaType": MEDIA_TYPE_LAYER, "digest": f"sha256:{64 * '1'}", "size": 5}
LINE: dict[str, Any] = {
    "key": 64 * "0", "parent": f"sha256:{64 * '2'}", "made": 1.5, "madeBy": "Dockerfile:2", "layer": 0
}  # fmt: skip


def read(value: Any, layers: Any = (LAYER,)) -> dict[str, CachedLine]:
    return read_lines(value if isinstance(value, bytes) else json.dumps(value).encode(), list(layers))


@given(LINES)
def test_what_is_written_can_be_read(lines: list[CachedLine]) -> None:
    config, layers = config_of(lines)
    found = read(config, layers)
    assert sorted(found) == sorted(each.key for each in lines)
    for each in lines:
        one = found[each.key]
        assert (one.parent, one.made_s) == (each.parent, each.made_s) and one.made_by.isprintable()
        assert (one.layer or {}).get("digest") == (each.layer or {}).get("digest")
    assert config_of(reversed(lines)) == config_of(lines)


def test_what_would_move_a_terminals_cursor_is_not_written() -> None:
    line = CachedLine(64 * "0", f"sha256:{64 * '2'}", "\x1b[2J" + 999 * "x", 1, None)
    (written,) = config_of([line])[0]["lines"]
    assert written["madeBy"].startswith("?[2Jx") and len(written["madeBy"]) == MADE_BY_LENGTH_MAX


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (b"", "config is damaged"),
        (b"[]", "not an object"),
        (b"[" * 100_000, "config is damaged"),
        (b'{"version": 1, "lines": [], "x": NaN}', "config is damaged"),
        ({"version": 1}, "it has no lines"),
        ({"version": 2, "lines": []}, "version is 2"),
        ({"version": 1, "lines": [LINE, LINE]}, "twice"),
        *(
            ({"version": 1, "lines": [{**LINE, name: value}]}, says)
            for name, value, says in (
                ("key", "../x", "not a long id"),
                ("key", 64 * "A", "not a long id"),
                ("parent", "sha512:" + 64 * "0", "not a is digest"),
                ("parent", None, "damaged"),
                ("made", -1, "not a moment"),
                ("made", 1e300, "not a moment"),
                ("made", True, "not a moment"),
                ("madeBy", "\x1b[2J", "not a short text"),
                ("madeBy", "\ud800", "damaged"),
                ("madeBy", 301 * "x", "not a short text"),
                ("layer", 1, "out of range"),
                ("layer", -1, "not a number from 0"),
                ("layer", False, "not a number from 0"),
                ("layer", 1 << 70, "not a number from 0"),
            )
        ),
    ],
)
def test_what_is_damaged_is_refused_as_a_whole(config: Any, says: str) -> None:
    with pytest.raises(RegistryError, match=says):
        read(config)


@given(st.binary(max_size=60) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_whatever_comes_is_read_or_refused(data: Any) -> None:
    try:
        read(data if isinstance(data, bytes) else data.encode())
    except RegistryError:
        pass


def test_the_values_of_the_options() -> None:
    def parsed(text: str, option: str) -> list[tuple[Any, ...]]:
        return [(each.type, each.name, each.mode, each.ignores_errors) for each in parse_places(text, option)]

    assert parsed("h:5000/a", FROM) == [("registry", "h:5000/a:latest", "min", False)]
    assert [each.name for each in parse_places("a,h/b:1", FROM)] == ["docker.io/library/a:latest", "docker.io/h/b:1"]
    assert parse_places(f"h/b@sha256:{64 * '0'}", FROM)
    assert parsed("type=registry,ref=h:1/a:1,mode=max,ignore-error=true", TO) == [("registry", "h:1/a:1", "max", True)]
    assert parse_places("type=local,src=x", FROM) == (CachePlace("local", os.path.abspath("x")),)


@given(st.text(",=abcdefglmnoprst:/@ \x00.", max_size=40), st.sampled_from([FROM, TO]))
def test_any_value_is_a_place_or_a_usage_error(text: str, option: str) -> None:
    try:
        parse_places(text, option)
    except MiniboxError as error:
        assert isinstance(error, UsageError) and str(error).startswith(option)
