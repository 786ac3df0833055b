"""What a tar may do to the place that it is copied to: nothing of what it says is trusted."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from minibox.engine.files import path_resolution, tar_copy
from minibox.engine.files.tar_copy import pack, receive
from minibox.errors import MiniboxError, UsageError
from minibox.linux.removal import remove_tree
from tests.unit.layers import entry, tar

SYMLINK, LINK, DIRECTORY = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


def archive(*entries):
    """A tar of (name, type, link's target) and of names of files."""
    files = [entry(name, content=b"copied") for name in entries if isinstance(name, str)]
    return tar(files.pop(0) if isinstance(each, str) else entry(each[0], each[1], linkname=each[2], mode=0o755)
               for each in entries)  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A root with a `target`, which nothing may be written to, and a directory `out` to copy to."""
    for name in ("out", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / "target/f").write_text("the host's")
    yield tmp_path
    remove_tree(str(tmp_path / "out"))  # may be too deep for pytest's own
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["f"]
    assert (tmp_path / "target/f").read_text() == "the host's" and (tmp_path / "target/f").stat().st_nlink == 1


def copied(place, destination, *entries, on_host=True, named=True):
    """Copy to a destination below the directory that is the root."""
    root_fd = os.open(place, os.O_PATH | os.O_DIRECTORY)
    try:
        owner = os.geteuid(), os.getegid()
        receive(root_fd, destination, archive(*entries), owner, privileged=False, named=named, on_host=on_host)
    finally:
        os.close(root_fd)


LEADING_OUT = [
    [("w", DIRECTORY, ""), ("w/d", SYMLINK, "{target}"), "w/d/f"],
    [("w", DIRECTORY, ""), ("w/d", SYMLINK, "{target}"), "w/d/new"],
    [("w", DIRECTORY, ""), ("w/d", SYMLINK, "../../target"), ("w/d/e", DIRECTORY, ""), "w/d/e/f"],
    [("w", DIRECTORY, ""), ("w/d", SYMLINK, "{target}"), ("w/d", DIRECTORY, ""), "w/d/f"],
    [("w", DIRECTORY, ""), ("w/d", SYMLINK, "{target}"), ("w/mine", LINK, "w/d/f")],
    [("w", DIRECTORY, ""), ("w/d", SYMLINK, "{target}"), ("w/e", LINK, "w/d"), "w/e/f"],
    [("w", DIRECTORY, ""), ("w/d", SYMLINK, "{target}"), ("w/e", SYMLINK, "d"), "w/e/f"],
    [("w", SYMLINK, "{target}"), "w/f"],
    [("w", SYMLINK, "{target}"), ("w/mine", LINK, "w/f")],
    [
        ("w", DIRECTORY, ""),
        ("w/a", DIRECTORY, ""),
        ("w/a/b", SYMLINK, ".."),
        ("w/c", SYMLINK, "a/b/b/b/target"),
        "w/c/f",
    ],
]


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("destination", ["out", "out/new"])
@pytest.mark.parametrize("entries", LEADING_OUT)
def test_no_entry_goes_through_a_symlink_of_the_same_archive(place, entries, destination, on_host):
    target = str(place / "target") if on_host else "/target"
    told = [entry if isinstance(entry, str) else (*entry[:2], entry[2].format(target=target)) for entry in entries]
    with pytest.raises(MiniboxError, match="symlink|non-directory"):
        copied(place, destination, *told, on_host=on_host)


def test_a_file_replaces_a_symlink_and_a_directory_never_does(place):
    (place / "out/w").mkdir()
    (place / "out/w/f").symlink_to(place / "target/f")
    copied(place, "out", ("w", DIRECTORY, ""), "w/f")
    assert not (place / "out/w/f").is_symlink() and (place / "out/w/f").read_text() == "copied"
    (place / "out/w/d").symlink_to(place / "target")
    with pytest.raises(UsageError, match="non-directory"):
        copied(place, "out", ("w", DIRECTORY, ""), ("w/d", DIRECTORY, ""), "w/d/f")


@pytest.mark.parametrize("name", ["w/d/f", "w/d/new/f"])
def test_on_the_host_no_symlink_below_the_destination_is_followed(place, name):
    """One of an earlier copy, say: a container may have made it for the next."""
    (place / "out/w").mkdir()
    (place / "out/w/d").symlink_to(place / "target")
    with pytest.raises(UsageError, match="a symlink is on the way"):
        copied(place, "out", name, named=False)


def test_the_users_own_destination_may_be_a_symlink(place):
    (place / "real").mkdir()
    (place / "here").symlink_to("real")
    copied(place, "here", ("w", DIRECTORY, ""), "w/f")
    assert (place / "real/w/f").read_text() == "copied"


def test_in_a_container_symlinks_that_were_there_lead_on_below_its_root(place):
    """As in `docker cp -`: /var/run of an archive is put into /run."""
    (place / "run").mkdir()
    (place / "var").mkdir()
    (place / "var/run").symlink_to("/run")
    (place / "var/up").symlink_to("../../../../run")
    copied(place, "/", "var/run/one", "var/run/new/two", "var/up/three", on_host=False, named=False)
    assert (place / "run/new/two").read_text() == "copied"
    assert sorted(path.name for path in (place / "run").iterdir()) == ["new", "one", "three"]
    # Not where one of this archive's is on the way.
    (place / "var/chain").symlink_to("../out/mine")
    with pytest.raises(UsageError, match="a symlink is on the way"):
        copied(place, "/", ("out/mine", SYMLINK, "/target"), "var/chain/f", on_host=False, named=False)


def test_a_path_of_many_directories_without_entries(place):
    deep = "/".join(["d"] * 1500)
    copied(place, "out", f"{deep}/f", named=False)
    assert (place / "out" / deep / "f").read_text() == "copied"


def test_what_is_too_deep_for_an_archive_is_refused_in_words(place):
    fd = os.open(place / "out", os.O_PATH | os.O_DIRECTORY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=fd)
        below = os.open("d" * 200, os.O_PATH | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    root_fd = os.open(place, os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(MiniboxError, match="longer than 4096 bytes"):
            pack(root_fd, "out", False, io.BytesIO())
    finally:
        os.close(root_fd)


def test_what_is_mounted_on_a_name_is_looked_up_once(place, monkeypatch):
    """Whoever puts another file in its place meanwhile doesn't have that one emptied."""
    (place / "out/hosts").write_text("mounted")
    mounts: list[int] = []

    def other_mount(fd):
        if not mounts:
            os.link(place / "target/f", place / "out/other")
            os.rename(place / "out/hosts", place / "kept")
            os.rename(place / "out/other", place / "out/hosts")
        mounts.append(fd)
        return b"mnt_id: %d" % len(mounts)

    monkeypatch.setattr("minibox.image.layer.placer._mount_id", other_mount)
    copied(place, "out", "hosts", named=False)
    assert (place / "kept").read_text() == "copied" and (place / "out/hosts").read_text() == "the host's"
    (place / "out/hosts").unlink()


@pytest.mark.parametrize("on_host", [True, False])
def test_a_destination_is_found_where_symlinks_lead_and_opened_through_none(place, monkeypatch, on_host):
    (place / "real/there").mkdir(parents=True)
    (place / "here").symlink_to("/real")
    (place / "real/up").symlink_to("../here/there")
    copied(place, "/here/up/new", "f", on_host=on_host)
    assert (place / "real/there/new").read_text() == "copied"
    (place / "out/there").mkdir()
    found = path_resolution.find

    def exchanged(root_fd, path, follow):
        answer = found(root_fd, path, follow)
        (place / "out/there").rename(place / "old")
        (place / "out/there").symlink_to("../target")
        return answer

    monkeypatch.setattr(tar_copy, "find", exchanged)
    with pytest.raises(OSError, match="symbolic links|Not a directory") as caught:
        copied(place, "/out/there/new", "f", on_host=on_host)
    assert caught.value.filename == "/out/there"


def test_what_is_below_a_destination_by_a_symlink_is_found(place):
    """In a container, whose own symlinks lead on."""
    (place / "real/there").mkdir(parents=True)
    (place / "here").symlink_to("real")
    (place / "run").mkdir()
    (place / "real/there/run").symlink_to("/run")
    copied(place, "/here/there", "run/f", on_host=False, named=False)
    assert (place / "run/f").read_text() == "copied"
