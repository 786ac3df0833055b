"""Reading logs: tails, bounds, rotation while somebody follows."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.engine.container import logs
from minibox.engine.container.logs import log_bound, read_log, tail_count
from minibox.engine.state.log_file import log_time
from minibox.errors import UsageError


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


NOW_S = 1_700_000_000.0  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize(
    "text, time",
    [
        ("", ""),
        ("20s", "2023-11-14T22:13:00.000000000Z"),
        ("1h13m20s", "2023-11-14T21:00:00.000000000Z"),
        ("1.5s", "2023-11-14T22:13:18.500000000Z"),
        ("1600000000", "2020-09-13T12:26:40.000000000Z"),
        ("1600000000.25", "2020-09-13T12:26:40.250000000Z"),
        ("1600000000.000000001", "2020-09-13T12:26:40.000000001Z"),
        ("2020-09-13T12:26:40Z", "2020-09-13T12:26:40.000000000Z"),
        ("2020-09-13T14:26:40+02:00", "2020-09-13T12:26:40.000000000Z"),
        ("2020-09-13T12:26:40.123456789Z", "2020-09-13T12:26:40.123456789Z"),
        ("2020-09-13T12:26:40.5-01:30", "2020-09-13T13:56:40.500000000Z"),
        ("2020-09-13T12:26", "2020-09-13T12:26:00.000000000Z"),
        ("2020-09-13", "2020-09-13T00:00:00.000000000Z"),
    ],
)
def test_times_as_users_write_them(text, time, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    assert log_bound(text, NOW_S) == time


@pytest.mark.parametrize("text", ["yesterday", "1x", "2020-13-01", "2020-09-13T25:00", "2020-09-13T12:26:40.Z", "1.x"])
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match="invalid time"):
        log_bound(text, NOW_S)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(text):
    try:
        found = log_bound(text, NOW_S)
    except UsageError:
        return
    assert found == "" or len(found) == len("2020-09-13T12:26:40.000000000Z")


@pytest.mark.parametrize("text, count", [("all", None), ("0", 0), ("12", 12), ("-1", None)])
def test_how_many_lines(text, count):
    assert tail_count(text) == count


@pytest.mark.parametrize("text", ["", "few", "1.5", "-", "²"])
def test_what_is_no_number_of_lines(text):
    with pytest.raises(UsageError, match="number of lines"):
        tail_count(text)
