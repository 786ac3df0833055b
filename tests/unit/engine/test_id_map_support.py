"""Layers that can't be id-mapped: who goes without a user namespace, and what is remembered."""

from __future__ import annotations

import os
from errno import ECHILD, EINVAL, EMFILE, ENOMEM, ENOSPC, ENOSYS, EPERM
from pathlib import Path

import pytest

from minibox.engine.host import id_map_support, probes
from minibox.engine.host.id_map_support import refusal
from minibox.engine.host.probes import Answer
from minibox.engine.spec.compile import needs_user_namespace
from minibox.engine.spec.options import RunOptions
from minibox.errors import ProbeFailed, Unsupported
from minibox.linux import probe
from minibox.plan import operations as op
from minibox.plan.explain import step_error


def _refused() -> str:
    return "id-map the mount of a layer: Invalid argument (EINVAL)"


def _must_not_ask() -> str:
    raise AssertionError("tried what isn't needed")


def test_root_gets_own_ids_where_layers_can_be_mapped() -> None:
    assert needs_user_namespace(RunOptions(image="base"), 0, str)
    assert not needs_user_namespace(RunOptions(image="base"), 0, _refused)


@pytest.mark.parametrize(
    "options", [RunOptions(image="base", userns="host"), RunOptions(image="base", privileged=True)]
)
def test_nothing_is_tried_for_a_container_with_the_hosts_ids(options: RunOptions) -> None:
    assert not needs_user_namespace(options, 0, _must_not_ask)


def test_an_ordinary_user_needs_no_mapped_layers() -> None:
    assert needs_user_namespace(RunOptions(image="base"), 1000, _must_not_ask)


def test_ids_of_its_own_are_refused_where_they_were_asked_for() -> None:
    with pytest.raises(Unsupported, match="--userns private: id-map the mount"):
        needs_user_namespace(RunOptions(image="base", userns="private"), 0, _refused)


class Kernel:
    """Answers in place of the real one, as it would anybody, and counts how often it is asked."""

    def __init__(self, *answers: str | Answer | Exception) -> None:
        self.answers = list(answers)

    def __call__(self, name: str, directory: str) -> Answer:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Answer) else Answer(answer, is_of_host=True)


@pytest.mark.parametrize("answer", ["", _refused()])
def test_what_the_kernel_says_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(probes, "ask", Kernel(answer))
    assert [refusal(str(tmp_path), "") for _ in range(3)] == [answer] * 3


def test_trouble_is_an_error_and_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "ask", Kernel(ProbeFailed("its process died"), ProbeFailed("again"), ""))
    for _ in range(2):
        with pytest.raises(ProbeFailed):
            refusal(str(tmp_path), "")
    assert not (tmp_path / "cache").exists()
    assert refusal(str(tmp_path), "") == ""


@pytest.mark.parametrize("number", ["EPERM", "ENOSYS"])
def test_what_was_said_to_one_caller_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    forbidden = f"unshare the user namespace: no ({number})"
    monkeypatch.setattr(probes, "ask", Kernel(Answer(forbidden, is_of_host=False), ""))
    assert refusal(str(tmp_path), "") == forbidden
    assert refusal(str(tmp_path), "") == ""


@pytest.mark.parametrize("lacking", ["CAP_SYS_ADMIN", "CAP_SETUID"])
def test_root_without_a_capability_says_nothing_of_the_kernel(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(EPERM, os.strerror(EPERM), "a step")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(probe.PROBES, "some", fail)
    monkeypatch.setattr(probe, "_lacking", lambda: [lacking])
    assert probe.answer("some", str(tmp_path)) == f"failed a step, as root without {lacking}: {EPERM}"


def test_an_answer_is_of_one_boot_kind_of_driver_and_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "ask", kernel := Kernel(_refused(), "", ""))
    assert refusal(str(tmp_path), "overlay") == refusal(str(tmp_path), "erofs") == _refused()
    assert refusal(str(tmp_path), "copy") == refusal(str(tmp_path), "btrfs") == ""
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(id_map_support, "BOOT_ID", str(tmp_path / "boot"))
    assert refusal(str(tmp_path), "overlay") == "" and not kernel.answers


def test_what_older_versions_have_remembered_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They took any trouble for the kernel's no."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"id-map-{os.uname().release}").symlink_to("idmapped_layers: No child processes (ECHILD)")
    monkeypatch.setattr(probes, "ask", Kernel(""))
    assert refusal(str(tmp_path), "") == ""


@pytest.mark.parametrize(
    ("number", "kind"),
    [(EINVAL, "refused"), (ENOSYS, "refused"), (EPERM, "refused"), (ECHILD, "failed"), (EMFILE, "failed"),
     (ENOMEM, "failed"), (ENOSPC, "failed")],
)  # fmt: skip
def test_only_some_of_what_the_kernel_answers_is_a_no(
    number: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number), "a step")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(probe.PROBES, "some", fail)
    monkeypatch.setattr(probe, "_lacking", list)
    assert probe.answer("some", str(tmp_path)) == f"{kind} a step: {number}"


@pytest.mark.parametrize(
    ("step", "number", "filtered", "kind"),
    [
        (("an id map", EINVAL, True), EINVAL, False, "lacking"),
        (("an id map", EPERM, True), EPERM, False, "refused"),
        (("an id map", EINVAL, True), EINVAL, True, "refused"),
        (("make its mounts private", EINVAL), EINVAL, False, "refused"),
    ],
)
def test_only_what_an_unfiltered_caller_is_told_of_id_maps_is_of_the_host(
    step: tuple[str, int], number: int, filtered: bool, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise probe.StepFailed(*step)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(probe.PROBES, "some", fail)
    monkeypatch.setattr(probe, "_lacking", list)
    monkeypatch.setattr(probe, "_is_filtered", lambda: filtered)
    assert probe.answer("some", str(tmp_path)) == f"{kind} {step[0]}: {number}"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import os; os.kill(os.getpid(), 9)", "ended with status -9"),
        ("raise ValueError('odd')", "ValueError: odd"),
        ("print('ok')", "ended with status 0"),
        ("import os; os.write(1, b'failed wait for a child: 10')", "wait for a child: No child processes"),
    ],
)
def test_a_probe_that_did_not_finish_says_nothing(
    source: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "SOURCE", source)
    with pytest.raises(ProbeFailed, match=why):
        probes.ask("overlay", str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_the_error_names_what_can_not_be_mapped() -> None:
    error = step_error(9, 110, op.id_map(op.FIRST_BIND, "owners look alike"), 22, "/mnt/nfs")
    assert "id-map bind source 1, /mnt/nfs: Invalid argument" in str(error)
    assert "noidmap" in str(error.hint)
