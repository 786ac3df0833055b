"""Layers that can't be id-mapped: who goes without a user namespace, and what is remembered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minibox.engine import doctor
from minibox.engine.id_map_support import refusal
from minibox.engine.options import RunOptions
from minibox.engine.prepare import wants_own_ids
from minibox.errors import Unsupported
from minibox.plan import operations as op
from minibox.plan.explain import step_error


def _refused() -> str:
    return "id-map the mount of a layer: Invalid argument (EINVAL)"


def _must_not_ask() -> str:
    raise AssertionError("tried what isn't needed")


def test_root_gets_own_ids_where_layers_can_be_mapped() -> None:
    assert wants_own_ids(RunOptions(image="base"), 0, str)
    assert not wants_own_ids(RunOptions(image="base"), 0, _refused)


@pytest.mark.parametrize(
    "options", [RunOptions(image="base", userns="host"), RunOptions(image="base", privileged=True)]
)
def test_nothing_is_tried_for_a_container_with_the_hosts_ids(options: RunOptions) -> None:
    assert not wants_own_ids(options, 0, _must_not_ask)


def test_an_ordinary_user_needs_no_mapped_layers() -> None:
    assert wants_own_ids(RunOptions(image="base"), 1000, _must_not_ask)


def test_ids_of_its_own_are_refused_where_they_were_asked_for() -> None:
    with pytest.raises(Unsupported, match="--userns private: id-map the mount"):
        wants_own_ids(RunOptions(image="base", userns="private"), 0, _refused)


@pytest.mark.parametrize("answer", ["ok", "id-map the mount of a layer: Invalid argument (EINVAL)"])
def test_the_answer_is_remembered_and_news_once(tmp_path: Path, answer: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"id-map-{os.uname().release}").symlink_to(answer)
    assert refusal(str(tmp_path)) == ("" if answer == "ok" else answer, False)


def test_a_probe_that_did_not_finish_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_prober", lambda _: lambda _: "the probe died: -9")
    assert doctor.probe_layers(str(tmp_path)) is None
    assert refusal(str(tmp_path)) == ("", False)
    assert not (tmp_path / "cache").exists()


def test_the_error_names_what_can_not_be_mapped() -> None:
    error = step_error(9, 110, op.id_map(op.FIRST_BIND, "owners look alike"), 22, "/mnt/nfs")
    assert "id-map bind source 1, /mnt/nfs: Invalid argument" in str(error)
    assert "noidmap" in str(error.hint)
