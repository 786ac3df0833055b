"""Layers are packed in a thread, which ends with the build."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from minibox.build import packing
from minibox.build.packing import Packing
from minibox.errors import StoreError


def test_what_it_packs_is_known_after_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(_place: Any, _layout: Any, chain: tuple[str, ...], _check: Any) -> tuple[str, int, int | None]:
        if chain[-1] == "bad":
            raise StoreError("no space")
        return "", 0, None if chain[-1] == "known" else len(chain)

    monkeypatch.setattr(packing, "packed", packed)
    with Packing(None, None) as made:  # type: ignore[arg-type]
        for chain in (("a",), ("a", "bad"), ("a", "known"), ("a", "b")):
            made.add(chain)
        made.wait()
        assert made.sizes == {"a": 1, "b": 2}


def test_a_build_that_ends_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(_place: Any, _layout: Any, _chain: Any, check: Callable[[], None]) -> tuple[str, int, int | None]:
        for _ in itertools.count():
            check()
        raise AssertionError

    monkeypatch.setattr(packing, "packed", packed)
    with Packing(None, None) as made:  # type: ignore[arg-type]
        made.add(("a",))
        made.add(("b",))
    assert made.sizes == {}
