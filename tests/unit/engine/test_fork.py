"""What a forked child lets go of, while other threads of its parent open and close files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minibox.base import files
from minibox.engine.container.output_log import OutputLog
from minibox.engine.state import claim
from minibox.engine.state.claim import Claim


def a_claim(directory: Path) -> tuple[list[int], Callable[[], None]]:
    held = Claim.new(str(directory), "", remove=True)
    return [held.fd], held.hand_over


def a_log(directory: Path) -> tuple[list[int], Callable[[], None]]:
    log = OutputLog.__new__(OutputLog)
    log.fds = os.pipe2(os.O_CLOEXEC)
    return list(log.fds), log.close_fds


@pytest.mark.parametrize("make", [a_claim, a_log])
def test_a_number_that_another_thread_has_got_meanwhile_is_not_closed(
    make: Callable[[Path], tuple[list[int], Callable[[], None]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os.close gives other threads a turn: one opens a file, which gets the number, and forks."""
    numbers, close = make(tmp_path)
    real, opened = os.close, list[int]()

    def closing(fd: int) -> None:
        real(fd)
        if fd in numbers and len(opened) < len(numbers):
            opened.append(os.dup(2))
            assert opened[-1] == fd
            close()  # what the child does

    for module in (files, claim):
        monkeypatch.setattr(module.os, "close", closing)
    close()
    monkeypatch.undo()
    assert opened
    for fd in opened:
        os.fstat(fd)
        os.close(fd)
