"""State comes back as it was written, or with the reason why it can't."""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.base import damage
from minibox.base.codec import BYTES_MAX, FileKind, plain
from minibox.base.shape import PORT, Between, check, moment, path_part
from minibox.errors import Damaged, DamageWarning, MiniboxError, NewerFormat

ANY = FileKind("things", {"Value": object})
PORTS = FileKind("ports", {"Ports": [{"Address": str, "Port": PORT}], "Made?": moment})


def lines(data: bytes) -> dict[str, Any]:
    address, port = data.decode("ascii").split(" ")
    return {"Ports": [{"Address": address, "Port": int(port)}]}


OLD_PORTS = FileKind("ports", {"Ports": [{"Address": str, "Port": PORT}]}, number=2, before=lines)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary().map(os.fsdecode),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(VALUES)
def test_whatever_is_written_comes_back(value: object) -> None:
    data = ANY.encode({"Value": value})
    assert ANY.decode(data, "x") == {"Value": value}


@pytest.mark.parametrize("text", ["a=x\u2028y", "a\nb", "a b", "", "\x85\x0b\x1c\r", "\0", "\udcff", "{"])
def test_text_needs_no_care(text: str, tmp_path: Path) -> None:
    for kind in (ANY, FileKind("things", {"Value": object}, indented=False)):
        kind.write(f"{tmp_path}/file", {"Value": text})
        assert kind.read(f"{tmp_path}/file") == {"Value": text}


def test_one_line() -> None:
    data = FileKind("things", {}, indented=False).encode({"Value": ["a\nb", {"c": 1}]})
    assert data.count(b"\n") == 1 and data.endswith(b"\n")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is empty"),
        (b"\xff\xfe", "it is not a JSON object"),
        (b'{"Kind": "ports", "Format": 1, "Ports": [\xff]}', "utf-8"),
        (b'{"Kind": "ports", "Format": 1, "Po', "line 1"),
        (b"[]", "it is not a JSON object"),
        (b"[" * 100_000, "it is not a JSON object"),
        (b'{"a":' * 100_000, "recursion"),
        (b"{}", "it has no Format"),
        (b'{"Kind": "ports", "Format": true, "Ports": []}', "its Format is True"),
        (b'{"Kind": "ports", "Format": 0, "Ports": []}', "its Format is 0"),
        (b'{"Kind": "networks", "Format": 1, "Ports": []}', "Kind is 'networks', not ports"),
        (b'{"Kind": "ports", "Format": 1}', "it has no Ports"),
        (b'{"Kind": "ports", "Format": 1, "Ports": {}}', "Ports is {}, not a list"),
        (b'{"Kind": "ports", "Format": 1, "Ports": ["x"]}', r"Ports\[0\] is 'x', not an object"),
        (b'{"Kind": "ports", "Format": 1, "Ports": [{"Address": 7, "Port": 1}]}', r"\.Address is 7, not a string"),
        (b'{"Kind": "ports", "Format": 1, "Ports": [{"Address": "", "Port": 65536}]}', "number from 1 to 65535"),
        (b'{"Kind": "ports", "Format": 1, "Ports": [], "Made": 1e999}', "1e999 is out of range"),
        (b'{"Kind": "ports", "Format": 1, "Ports": [], "Made": 1e300}', "Made is 1e.300, not a moment"),
        (b'{"Kind": "ports", "Format": 1, "Ports": [], "Made": 1' + b"0" * 5000 + b"}", "4300 digits"),
        (b'{"Kind": "ports", "Format": 1, "Ports": [{"Address": "\\ud800", "Port": 1}]}', "surrogates not allowed"),
    ],
)
def test_damage_is_told_with_path_and_reason(data: bytes, says: str) -> None:
    with pytest.raises(Damaged, match=says) as caught:
        PORTS.decode(data, "/root/ports")
    assert str(caught.value).startswith("/root/ports is damaged: ") and caught.value.hint


def test_a_newer_format_is_named() -> None:
    newer = FileKind("ports", {"Gates": [str]}, number=3).encode({"Gates": []})
    with pytest.raises(NewerFormat, match=r"x was written by a newer minibox \(format 3, this one reads up to 2\)"):
        OLD_PORTS.decode(newer, "x")


def test_what_was_before_the_codec_is_read() -> None:
    wanted = {"Ports": [{"Address": "0.0.0.0", "Port": 80}]}
    assert OLD_PORTS.decode(b"0.0.0.0 80", "x") == wanted
    assert OLD_PORTS.decode(OLD_PORTS.encode(wanted), "x") == wanted
    for broken in (b"\xff", b"80", b"0.0.0.0 x", b"0.0.0.0 0"):
        with pytest.raises(Damaged):
            OLD_PORTS.decode(broken, "x")
    assert FileKind("state", {"Id": str}, before=plain).decode(b'{"Id": "7"}', "x") == {"Id": "7"}


@pytest.mark.parametrize("what", ["directory", "fifo", "device", "socket", "loop"])
def test_what_is_no_file_is_damage_and_nothing_waits(what: str, tmp_path: Path) -> None:
    import socket

    path = tmp_path / "file"
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "loop":
        path.symlink_to("file")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    with pytest.raises(Damaged, match=str(path)):
        PORTS.read(str(path))


def test_a_directory_in_its_place_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "file/inside").mkdir(parents=True)
    ANY.write(f"{tmp_path}/file", {"Value": 1})
    assert ANY.read(f"{tmp_path}/file") == {"Value": 1}
    assert sorted(os.listdir(tmp_path))[0].startswith(".damaged-file.")


def test_none_there_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PORTS.read(f"{tmp_path}/none")
    (tmp_path / "dangling").symlink_to("none")
    with pytest.raises(FileNotFoundError):
        PORTS.read(f"{tmp_path}/dangling")


def test_no_more_is_written_than_is_read(tmp_path: Path) -> None:
    most = "x" * (BYTES_MAX - 100)
    ANY.write(f"{tmp_path}/file", {"Value": most})
    assert ANY.read(f"{tmp_path}/file") == {"Value": most}
    with pytest.raises(MiniboxError, match="at most"):
        ANY.encode({"Value": most + "x" * 100})


def test_of_many_changes_none_is_lost(tmp_path: Path) -> None:
    path = f"{tmp_path}/file"

    def add(number: int) -> None:
        for step in range(20):

            def changed(before: dict[str, Any] | None, step: int = step) -> dict[str, Any]:
                return {"Value": [*(before or {"Value": []})["Value"], [number, step]]}

            ANY.change(path, changed)

    threads = [threading.Thread(target=add, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ANY.read(path)["Value"]) == [[number, step] for number in range(4) for step in range(20)]
    assert os.listdir(tmp_path) == ["file"]


def test_shapes() -> None:
    check({"a": None, "b": 7, "c": {"x": 1.5, "y": 2}}, {"a": (str, None), "b": int, "c": {str: float}, "d?": str})
    for value, shape in [
        (True, int), (True, float), (1.0, int), (None, str), ({"a": 1}, {"b": int}), ("..", path_part), ("a/b", path_part),
        ("", path_part), (-1, moment), (True, Between(0, 1)),
    ]:  # fmt: skip
        with pytest.raises(ValueError):
            check(value, shape)


def test_damage_is_told_once() -> None:
    told: list[str] = []
    with damage.Listening(lambda found: told.append(found.path)):
        for _ in range(3):
            damage.tell(Damaged("/a", "it is empty"))
        damage.tell(NewerFormat("/b", 3, 2))
    assert told == ["/a", "/b"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            damage.tell(Damaged("/a", "it is empty"))
    assert [each.category for each in caught] == [DamageWarning] and "/a is damaged: it is empty" in str(
        caught[0].message
    )
