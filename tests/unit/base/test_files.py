"""The one writer and the one reader of small files."""

import fcntl
import os
import socket
import stat
from errno import EFBIG

import pytest

from minibox.base.files import (
    FileTooLarge,
    NotRegularFile,
    discard,
    open_to_append,
    open_to_read,
    read_file,
    remove_all,
    replace_file,
    replace_locked,
)
from minibox.base.new_file import written_whole
from minibox.cli.archive_output import archive_output


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


def test_a_file_that_is_locked_before_it_is_seen(tmp_path):
    path = str(tmp_path / "owned")
    fd = replace_locked(path, b"ours")
    try:
        with open(path, "rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert os.path.samestat(os.fstat(fd), os.stat(path)) and os.listdir(tmp_path) == ["owned"]
    finally:
        os.close(fd)


def test_nobody_waits_for_a_reader_of_a_log(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(NotRegularFile):
        open_to_append(str(tmp_path / "fifo"))
    os.close(reader)
    with pytest.raises(OSError, match="No such device"):
        open_to_append(str(tmp_path / "fifo"))
    with pytest.raises(NotRegularFile):
        open_to_read(str(tmp_path / "fifo"))
    os.close(open_to_append(str(tmp_path / "log")))
    os.close(open_to_read(str(tmp_path / "log")))


def test_what_is_in_the_place_of_a_file_goes_and_nothing_of_it_is_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    state = tmp_path / "state"
    state.mkdir()
    (state / "link").symlink_to(outside)
    (state / "directory").mkdir()
    (state / "directory/file").touch()
    for name in ("none", "link", "directory"):
        discard(str(state / name))
    (name,) = os.listdir(state)
    assert name.startswith(".damaged-directory.")
    (state / "again").symlink_to(outside)
    remove_all(str(state))
    assert os.listdir(tmp_path) == ["outside"] and os.listdir(outside) == ["kept"]


def test_a_new_file_is_there_once_it_is_whole(tmp_path):
    path = tmp_path / "image.tar"
    with written_whole(str(path)) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    with pytest.raises(ZeroDivisionError), written_whole(str(path)) as file:
        file.write(bytes([1 // 0]))
    assert path.read_bytes() == b"half"
    assert os.listdir(tmp_path) == ["image.tar"]


def test_a_new_file_is_not_written_through_what_others_put_beside_it(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / f"image.tar.{os.getpid()}.new").symlink_to(victim)  # the name that `save -o` once took
    with archive_output("save", str(tmp_path / "image.tar")) as file:
        file.write(b"image")
    assert victim.read_bytes() == b"mine"
    assert (tmp_path / "image.tar").read_bytes() == b"image"
