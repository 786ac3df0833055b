"""What programs do to files, each by itself: run inside a container by `inside`, with /w of the image `operations_image`.

Times are set, or told as "now": so that they are the same in each container.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import stat
import struct
import tarfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.storage_places import add, sparse
from tests.unit.layers import directory, entry, hard_link, symlink

NEWNS, NEWUSER = 0x00020000, 0x10000000
LONGEST = "n" * 255
OTHER_LONGEST = "m" * 255
NO_UTF8 = b"caf\xe9".decode("utf-8", "surrogateescape")
DEEP = "/".join(["deep" * 12] * 40)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *each)
    for each in ((1, 6, 0xFFFFFFFF), (2, 4, 1234), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)


def xattrs(**values: bytes) -> dict[str, str]:
    """Headers of a tar's entry."""
    return {f"SCHILY.xattr.{name.replace('__', '.')}": value.decode("latin-1") for name, value in values.items()}


def operations_image(root: Path, name: str) -> None:
    """`base` with two layers on it, in which is all that a layer can have."""
    node: dict[str, Any] = {"devmajor": 1, "devminor": 3, "mode": 0o640}
    below = [
        directory("w", mtime=1000),
        entry("w/plain", content=b"plain", mtime=1001, mode=0o640, uid=5, gid=6),
        entry("w/written", content=b"as it was", mtime=1002),
        entry("w/opened", content=b"opened", mtime=1003),
        entry("w/big", content=bytes(range(256)) * 8000, mtime=1004),
        entry("w/one", content=b"of three names", mtime=1005),
        hard_link("w/two", "w/one"),
        hard_link("w/dir/three", "w/one"),
        symlink("w/link", "plain"),
        entry("w/fifo", tarfile.FIFOTYPE, mtime=1006, mode=0o600),
        entry("w/device", tarfile.CHRTYPE, mtime=1007, **node),
        entry("w/block", tarfile.BLKTYPE, mtime=1007, **node),
        entry("w/suid", content=b"s", mode=0o4755, uid=7, gid=8, mtime=1008),
        entry("w/xattr", content=b"x", mtime=1009, pax_headers=xattrs(user__kept=b"1", user__goes=b"2")),
        entry("w/fraction", content=b"f", pax_headers={"mtime": "1010.123456789"}),
        sparse("w/sparse", 3 << 20),
        entry(f"w/{NO_UTF8}", content=b"bytes", mtime=1012),
        directory(f"w/{DEEP}", mtime=1013),
        entry(f"w/{DEEP}/file", content=b"deep", mtime=1014),
        *(entry(f"w/dir/{each}", content=each.encode(), mtime=1015) for each in ("a", "b", "c")),
        *(entry(f"w/opaque/{each}", content=each.encode(), mtime=1016) for each in ("a", "b")),
        *(entry(f"w/gone/{each}", content=each.encode(), mtime=1017) for each in ("a", "b")),
        *(entry(f"w/tree/{each}", content=each.encode(), mtime=1018) for each in ("a", "b/c")),
        directory("w/closed", 0o700, uid=9, gid=9, mtime=1019),
        directory("w/sticky", 0o1777, mtime=1020),
        directory("w/empty", mtime=1021),
        entry("w/space and\nnewline", content=b"", mtime=1022),
    ]
    above = [
        entry(f"w/{LONGEST}", content=b"longest", mtime=1011),
        entry("w/old", content=b"o", pax_headers={"mtime": "-1000"}),
        entry("w/dir/.wh.b"),
        entry("w/opaque/.wh..wh..opq"),
        entry("w/opaque/new", content=b"new", mtime=1023),
        entry("w/.wh.gone"),
        entry("w/written", content=b"as it is", mtime=1024),
        entry("w/new", content=b"new", mtime=1025),
    ]
    add(root, name, below, above)


def inside(pid: int, function: Callable[[], Any]) -> None:
    """Call a function as root of a container, in its directory /w.

    Raises:
        AssertionError: with what it raised.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            _enter(pid)
            os.umask(0o022)
            function()
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, said


def _enter(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fds = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in (("user", NEWUSER), ("mnt", NEWNS))]
    for fd, kind in fds:
        same = kind == NEWUSER and os.path.samestat(os.fstat(fd), os.stat("/proc/self/ns/user"))
        if not same and libc.setns(fd, kind):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.chdir("/w")


# ---- operations ----------------------------------------------------------------------------------


def write(path: str, data: bytes, when: int = 5000, mode: str = "wb") -> None:
    with open(path, mode) as file:
        file.write(data)
    os.utime(path, (when, when))


def append_to_a_file() -> None:
    write("written", b", and more", mode="ab")


def truncate_a_file() -> None:
    os.truncate("big", 100)
    os.utime("big", (5001, 5001))


def write_in_the_middle() -> None:
    with open("big", "r+b") as file:
        file.seek(50)
        file.write(b"middle")
    os.utime("big", (5002, 5002))


def open_for_writing_only() -> None:
    os.close(os.open("opened", os.O_RDWR))


def make_a_file() -> None:
    write("made", b"made")


def make_a_file_in_a_new_directory() -> None:
    os.makedirs("new-dir/inner")
    write("new-dir/inner/file", b"inner")


def remove_a_file() -> None:
    os.unlink("new")


def remove_a_file_in_a_directory() -> None:
    os.unlink("dir/c")


def file_becomes_directory() -> None:
    os.unlink("plain")
    os.mkdir("plain")
    write("plain/in", b"in")


def directory_becomes_file() -> None:
    shutil.rmtree("dir")
    write("dir", b"a file now")


def file_becomes_directory_again() -> None:
    os.unlink("dir")
    os.mkdir("dir")
    write("dir/a", b"another")


def directory_becomes_symlink() -> None:
    shutil.rmtree("tree")
    os.symlink("empty", "tree")


def symlink_leads_elsewhere() -> None:
    os.unlink("link")
    os.symlink("nowhere", "link")


def symlink_becomes_file() -> None:
    os.unlink("link")
    write("link", b"file")


def rename_over_a_file() -> None:
    write("temporary", b"renamed")
    os.rename("temporary", "written")


def rename_an_images_file_over_another() -> None:
    os.rename("xattr", "opened")
    os.utime("opened", (5003, 5003))


def exchange_two_files() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.renameat2(-100, b"suid", -100, b"fraction", 2) == 0, os.strerror(ctypes.get_errno())


def move_a_directory() -> None:
    """As mv does it: overlayfs renames no directory of the image."""
    shutil.copytree("opaque", "moved")
    shutil.rmtree("opaque")
    os.utime("moved", (5004, 5004))


def rename_a_new_directory() -> None:
    os.rename("new-dir", "renamed")


def make_a_hard_link() -> None:
    os.link("written", "written-too")


def make_a_hard_link_to_an_images_file() -> None:
    os.link("big", "big-too")


def write_through_a_new_link() -> None:
    write("written-too", b"by the other name")


def change_the_mode_of_a_file() -> None:
    os.chmod("big", 0o600)


def change_the_mode_of_a_directory_only() -> None:
    os.chmod("sticky", 0o755)


def change_the_mode_of_the_root_only() -> None:
    os.chmod("/w", 0o751)


def change_the_owner() -> None:
    os.chown("opened", 11, 12)


def change_the_owner_of_a_link_only() -> None:
    os.symlink("x", "new-link")
    os.lchown("new-link", 11, 12)


def change_a_time_only() -> None:
    os.utime("old", (6000, 6000))


def change_the_time_of_a_directory_only() -> None:
    os.utime("empty", (6001, 6001))


def set_an_xattr() -> None:
    os.setxattr("big", "user.new", b"value\0")


def remove_an_xattr() -> None:
    os.removexattr("opened", "user.goes")


def set_an_xattr_of_a_directory() -> None:
    os.setxattr("closed", "user.directory", b"1")


def set_a_capability() -> None:
    os.setxattr("written", "security.capability", CAPABILITY)


def set_an_acl() -> None:
    os.setxattr("big", "system.posix_acl_access", ACL)


def set_user_id() -> None:
    os.chmod("made", 0o6755)


def writing_takes_set_user_id_away() -> None:
    os.chown("made", 5, 5)


def make_a_sparse_file() -> None:
    with open("holes", "wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
        file.truncate(8 << 20)
    os.utime("holes", (6002, 6002))


def make_the_longest_name() -> None:
    write(OTHER_LONGEST, b"longest")


def remove_the_longest_name() -> None:
    os.unlink(LONGEST)


def make_a_name_that_is_no_utf8() -> None:
    write(f"{NO_UTF8}-new", b"bytes")
    os.unlink(NO_UTF8)


def make_a_deep_path() -> None:
    os.makedirs(f"more/{DEEP}")
    write(f"more/{DEEP}/file", b"deep")
    write(f"{DEEP}/file", b"changed")


def make_a_fifo_and_a_socket() -> None:
    os.mkfifo("new-fifo", 0o620)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")


def make_a_device() -> None:
    with suppress(PermissionError):  # in a user namespace
        os.mknod("new-device", stat.S_IFCHR | 0o640, os.makedev(1, 5))
    os.unlink("device")


def empty_a_directory_and_fill_it_anew() -> None:
    shutil.rmtree("closed")
    os.mkdir("closed", 0o711)
    write("closed/in", b"in")


def remove_all_of_a_directory() -> None:
    shutil.rmtree("more")
    shutil.rmtree("renamed")


OPERATIONS: list[Callable[[], None]] = [
    append_to_a_file, truncate_a_file, write_in_the_middle, open_for_writing_only, make_a_file,
    make_a_file_in_a_new_directory, remove_a_file, remove_a_file_in_a_directory, file_becomes_directory,
    directory_becomes_file, file_becomes_directory_again, directory_becomes_symlink, symlink_leads_elsewhere,
    symlink_becomes_file, rename_over_a_file, rename_an_images_file_over_another, exchange_two_files, move_a_directory,
    rename_a_new_directory, make_a_hard_link, make_a_hard_link_to_an_images_file, write_through_a_new_link,
    change_the_mode_of_a_file, change_the_mode_of_a_directory_only, change_the_mode_of_the_root_only, change_the_owner,
    change_the_owner_of_a_link_only, change_a_time_only, change_the_time_of_a_directory_only, set_an_xattr,
    remove_an_xattr, set_an_xattr_of_a_directory, set_a_capability, set_an_acl, set_user_id,
    writing_takes_set_user_id_away, make_a_sparse_file, make_the_longest_name, remove_the_longest_name,
    make_a_name_that_is_no_utf8, make_a_deep_path, make_a_fifo_and_a_socket, make_a_device,
    empty_a_directory_and_fill_it_anew, remove_all_of_a_directory,
]  # fmt: skip
