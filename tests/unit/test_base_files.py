"""The one writer and the one reader of small files."""

import os
import socket
import stat
from errno import EFBIG

import pytest

from minibox.base.files import FileTooLarge, NotRegularFile, read_file, replace_file


def test_a_file_is_replaced_whole_with_its_mode_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    old = os.umask(0o077)
    try:
        replace_file(str(path), b"new", mode=0o644, durable=True)
    finally:
        os.umask(old)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["state"]


def test_a_writer_that_fails_leaves_the_old_content_and_no_temporary_file(tmp_path):
    (tmp_path / "state").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(str(tmp_path / "state"), b"new")
    assert os.listdir(tmp_path) == ["state"]


def test_a_symlink_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "state").symlink_to("victim")
    replace_file(str(tmp_path / "state"), b"new")
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert not (tmp_path / "state").is_symlink()


def test_what_is_larger_than_the_limit_is_refused_unread(tmp_path):
    path = tmp_path / "passwd"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(FileTooLarge) as caught:
        read_file(path, 1 << 20)
    assert caught.value.errno == EFBIG
    os.truncate(path, 1 << 20)
    assert len(read_file(path, 1 << 20)) == 1 << 20


def test_a_file_that_has_no_size_of_its_own_is_limited_too():
    with pytest.raises(FileTooLarge):
        read_file("/proc/self/maps", 100)
    assert read_file("/proc/self/comm", 100)


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory", "device"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, kind):
    path = tmp_path / "it"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
        with pytest.raises(OSError):
            read_file(path, 10)
        return
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(NotRegularFile):
        read_file(path, 10)
