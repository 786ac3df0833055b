"""Reading logs: tails, bounds, rotation while somebody follows."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.engine import logs
from minibox.engine.logs import log_time, read_log


def line(number, stream="stdout"):
    return json.dumps({"log": f"line {number}\n", "stream": stream, "time": log_time(number)}) + "\n"


def write(path, *numbers, mode="w"):
    with open(path, mode) as file:
        file.writelines(map(line, numbers))


def rotate(path):
    if os.path.exists(f"{path}.1"):
        os.rename(f"{path}.1", f"{path}.2")
    os.rename(path, f"{path}.1")


def numbers(entries):
    return [int(entry.text.split()[1]) for entry in entries]


@pytest.fixture
def log(tmp_path):
    path = str(tmp_path / "log")
    for name, first in ((f"{path}.2", 0), (f"{path}.1", 10), (path, 20)):
        write(name, *range(first, first + 10))
    return path


def test_all_files_oldest_first(log):
    assert numbers(read_log(log)) == list(range(30))


@pytest.mark.parametrize("tail", [0, 1, 9, 10, 11, 25, 30, 99])
def test_tail(log, tail):
    assert numbers(read_log(log, tail=tail)) == list(range(30))[30 - min(tail, 30) :]


@given(lengths=st.lists(st.integers(0, 200), max_size=40), tail=st.integers(0, 50), block=st.integers(1, 300))
def test_tail_whatever_the_lengths(tmp_path_factory, lengths, tail, block):
    path = str(tmp_path_factory.mktemp("log") / "log")
    texts = ["x" * length for length in lengths]
    with open(path, "w") as file:
        file.writelines(json.dumps({"log": text, "stream": "stdout", "time": ""}) + "\n" for text in texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "BLOCK", block)
        assert [entry.text for entry in read_log(path, tail=tail)] == texts[len(texts) - min(tail, len(texts)) :]


def test_bounds(log):
    assert numbers(read_log(log, since=log_time(7), until=log_time(12))) == list(range(7, 13))


def test_damaged_lines_are_skipped(log):
    with open(log, "a") as file:
        file.write('{"log": "half\n[1]\n{"log": 1}\n' + line(30) + '{"log": "being wri')
    assert numbers(read_log(log)) == list(range(31))


def test_no_log_is_empty(tmp_path):
    assert list(read_log(str(tmp_path / "none"))) == []


def test_following_sees_what_comes_across_rotations(log, monkeypatch):
    steps = iter(
        [
            lambda: write(log, 30, mode="a"),
            lambda: (rotate(log), write(log, 31)),
            lambda: (write(log, 32, mode="a"), rotate(log), write(log, 33), rotate(log), write(log, 34)),
            lambda: write(log, 35, mode="a"),
        ]
    )
    alive = [True]

    def pause(_):
        step = next(steps, None)
        step() if step else alive.clear()

    monkeypatch.setattr(logs, "sleep", pause)
    assert numbers(read_log(log, tail=1, writes=lambda: bool(alive))) == list(range(29, 36))


def test_following_waits_for_the_first_line(tmp_path, monkeypatch):
    path = str(tmp_path / "log")
    alive = [True]

    def pause(_):
        if os.path.exists(path):
            alive.clear()
        write(path, 1)

    monkeypatch.setattr(logs, "sleep", pause)
    assert numbers(read_log(path, writes=lambda: bool(alive))) == [1]


def test_the_last_words_are_read_after_the_end(tmp_path):
    path = str(tmp_path / "log")
    write(path, 1)

    def writes():
        write(path, 2, mode="a")
        return False

    assert numbers(read_log(path, writes=writes)) == [1, 2]
