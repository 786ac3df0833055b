"""A line's layer after a power loss: its files may be gone, if the build had not synced them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minibox.build.durability import is_sound, sync
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import keep_layer, kept_path
from tests.container_box import Box
from tests.integration.build.conftest import Builder, cached

LAYER = "sha256:" + "a" * 64
LONG_AGO_S = 1000


@pytest.fixture
def root(state: Path) -> str:
    return str(state / "root")


def test_a_layer_is_sound_if_it_is_of_this_boot_or_was_synced(root: str) -> None:
    assert is_sound(root, "overlay", LAYER)
    keep_layer(root, "overlay", LAYER)
    assert is_sound(root, "overlay", LAYER)
    os.utime(kept_path(root, "overlay", LAYER), (LONG_AGO_S, LONG_AGO_S))
    assert not is_sound(root, "overlay", LAYER)
    sync(root)
    assert is_sound(root, "overlay", LAYER)


def test_a_line_that_may_be_damaged_is_made_again(box: Box, root: str, state: Path) -> None:
    context = state / "context"
    context.mkdir()
    builder = Builder(box, context)
    text = "FROM base\nRUN echo content > /file\n"
    builder.refused(text + "COPY nothing /\n", "--network", "none")  # nothing is synced
    marks = list(Path(root, "build/layers").iterdir())
    layer = f"sha256:{marks[0].name.partition('-')[2]}"
    file = Path(snapshotter(root).describe("none", (layer,)).lowers[0], "file")
    file.write_text("")  # as a power loss leaves it
    os.utime(marks[0], (LONG_AGO_S, LONG_AGO_S))
    assert cached(builder.ok(text, "--network", "none"))[1:] == [False]
    assert builder.sh("cat /file") == "content"
    os.utime(marks[0], (LONG_AGO_S, LONG_AGO_S))
    assert cached(builder.ok(text, "--network", "none"))[1:] == [True]
