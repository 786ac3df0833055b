"""The layout's locks: who adds keeps off who collects."""

from __future__ import annotations

from pathlib import Path

import pytest

from minibox.errors import StoreError
from minibox.image.layout.layout import Layout, ref_name


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "root"))


def test_nothing_is_collected_while_somebody_adds(layout):
    with layout.adding(), layout.adding(), layout.collecting(wait=False) as alone:
        assert not alone
    with layout.collecting(wait=False) as alone:
        assert alone
        with Layout(layout.root).collecting(wait=False) as second:
            assert not second
    with layout.collecting() as alone:
        assert alone


def test_an_error_while_adding_passes_as_it_is_and_frees_the_lock(layout):
    with pytest.raises(ConnectionResetError), layout.adding():
        raise ConnectionResetError
    with layout.collecting(wait=False) as alone:
        assert alone


def test_lock_that_cannot_be_made_is_named(layout):
    layout.create()
    Path(layout.root, "gc.lock").mkdir()
    with pytest.raises(StoreError, match=r"lock .*/gc\.lock: Is a directory"), layout.adding():
        pass


def described(number: int) -> dict[str, object]:
    return {"mediaType": "m", "digest": f"sha256:{number:064x}", "size": 1}


def test_an_image_whose_name_is_taken_stays_without_one(layout):
    layout.create()
    layout.set_name("app", described(1))
    layout.set_name("app", described(2))
    assert [(ref_name(item), item["digest"][-1]) for item in layout.descriptors()] == [("", "1"), ("app", "2")]
    layout.set_name("app", described(3))
    layout.set_name("old", described(1))
    assert [(ref_name(item), item["digest"][-1]) for item in layout.descriptors()] == [
        ("", "2"), ("app", "3"), ("old", "1"),
    ]  # fmt: skip
    layout.set_name("app", described(3))
    layout.set_name("old", described(3))
    assert [(ref_name(item), item["digest"][-1]) for item in layout.descriptors()] == [
        ("", "2"), ("", "1"), ("app", "3"), ("old", "3"),
    ]  # fmt: skip
