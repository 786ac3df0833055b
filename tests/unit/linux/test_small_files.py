"""Small files are read and written together; what isn't plain is left to who does it one by one."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from pathlib import Path

import pytest

from minibox.linux.listing import RECORD, record_of
from minibox.linux.removal import remove_tree
from minibox.linux.small_files import FILES_MAX, SMALL_BYTES, is_small_file, read_small_files, write_small_files

KEEP = 2**32 - 1


@pytest.fixture
def place():
    # On a disk: tmpfs has no user xattrs before Linux 6.6.
    path = Path(tempfile.mkdtemp(dir="/var/tmp"))
    yield path
    remove_tree(str(path))


@pytest.fixture
def directory(place):
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_plain_files_come_with_record_and_content(place, directory):
    names = [f"{number}" for number in range(2 * FILES_MAX + 3)]
    for number, name in enumerate(names):
        (place / name).write_bytes(bytes([number % 256]) * (number % 5 * SMALL_BYTES // 4))  # many buffers of them
    found = list(read_small_files(directory, names))
    for name, each in zip(names, found, strict=True):
        assert each == (record_of(os.stat(place / name)), (place / name).read_bytes())


def test_what_is_not_plain(place, directory):
    (place / "plain").write_text("x")
    (place / "large").write_bytes(bytes(SMALL_BYTES + 1))
    (place / "link").symlink_to("plain")
    os.mkfifo(place / "fifo")
    (place / "directory").mkdir()
    (place / "first").touch()
    os.link(place / "first", place / "second")
    (place / "attribute").touch()
    os.setxattr(place / "attribute", "user.a", b"1")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place / "socket"))
    others = ["none", "large", "link", "fifo", "directory", "first", "second", "attribute", "socket"]
    found = list(read_small_files(directory, [each for name in others for each in (name, "plain")]))
    assert found[::2] == [None] * len(others)
    assert [each and each[1] for each in found[1::2]] == [b"x"] * len(others)
    looks_small = [name for name in others[1:] if is_small_file(record_of(os.lstat(place / name)))]
    assert looks_small == ["attribute"]  # its record can't tell


def test_new_files_have_what_is_given(place, directory):
    os.umask(0o077)
    files = [(1_000_000_001, 0o4755), (-1, 0o644), (0, 0o7777)]
    contents = [b"abc", b"", b"x" * SMALL_BYTES]
    try:
        made = write_small_files(directory, [b"a", b"\xff", b"c"], [(*each, KEEP, KEEP) for each in files], contents)
    finally:
        os.umask(0o022)
    assert made == 3
    for name, (mtime_ns, mode), content in zip(("a", "\udcff", "c"), files, contents, strict=True):
        status = os.stat(place / name)
        assert (status.st_mtime_ns, status.st_mode & 0o7777, status.st_uid) == (mtime_ns, mode, os.geteuid())
        assert (place / name).read_bytes() == content


def test_a_name_that_is_taken_ends_it_and_stays_as_it_is(place, directory):
    (place / "b").symlink_to("elsewhere")
    made = write_small_files(directory, [b"a", b"b", b"c"], [(0, 0o644, KEEP, KEEP)] * 3, [b"1", b"2", b"3"])
    assert made == 1
    assert sorted(os.listdir(place)) == ["a", "b"] and os.readlink(place / "b") == "elsewhere"


def test_nothing_is_left_of_a_file_that_would_inherit_attributes(place, directory):
    entries = ((0x01, 7, KEEP), (0x02, 7, 1), (0x04, 5, KEEP), (0x10, 7, KEEP), (0x20, 5, KEEP))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)  # of linux/posix_acl_xattr.h
    os.setxattr(place, "system.posix_acl_default", acl)
    assert write_small_files(directory, [b"a"], [(0, 0o644, KEEP, KEEP)], [b"1"]) == 0
    assert os.listdir(place) == []


def test_nothing_is_left_of_a_file_whose_owner_is_refused(place, directory):
    assert write_small_files(directory, [b"a", b"b"], [(0, 0o644, 0, KEEP)] * 2, [b"1", b"2"]) == (
        2 if os.geteuid() == 0 else 0
    )
    assert len(os.listdir(place)) == (2 if os.geteuid() == 0 else 0)
    assert all(RECORD.unpack(record_of(os.stat(place / name)))[6] == 0 for name in os.listdir(place))
