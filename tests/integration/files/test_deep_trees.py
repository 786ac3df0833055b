"""Directories that are deeper than Python recurses, and than the kernel takes a path: whoever reads or writes trees."""

from __future__ import annotations

import io
import os
import tarfile

import minibox
from minibox.linux.removal import remove_tree
from tests.container_box import Box
from tests.probes import requires

DEEP = "/".join("d" * 1200)
NAME = "long" * 50
LONG = "/".join([NAME] * 18)  # nearly PATH_MAX
LONGER = f"mkdir -p /w/{LONG}; cd -P /w/{LONG}; mkdir -p {LONG}; cd -P {LONG}; echo hi > f; ln f g; ls; echo ready"


def test_a_deep_directory_goes_every_way(any_box: Box) -> None:
    script = f"mkdir -p /w/{DEEP}; echo hi > /w/{DEEP}/f; ln /w/{DEEP}/f /w/g; ln /w/g /w/h; echo ready; sleep 600"
    any_box.start("cc", script)
    any_box.until_logged("cc", "ready")
    out = any_box.directory / "out"
    out.mkdir()
    os.chown(out, any_box.directory.stat().st_uid, -1)
    try:
        any_box.ok("cp", "cc:/w", str(out))
        assert (out / "w" / DEEP / "f").read_text() == "hi\n" and (out / "w/g").stat().st_nlink == 3
        any_box.ok("cp", str(out / "w"), "cc:/again")
        assert len(any_box.ok("diff", "cc").splitlines()) == 2 * (1 + 1200 + 3)
        with tarfile.open(fileobj=io.BytesIO(any_box("export", "cc", text=False).stdout)) as file:
            assert file.getmember(f"w/{DEEP}/f").isreg() and file.getmember("w/g").islnk()
        any_box.ok("commit", "cc", "deep")
        # Three names of one file in the image are three of one in a new volume.
        look = f"stat -c %h /w/g /w/h /w/{DEEP}/f; cat /w/{DEEP}/f"
        for options in ((), ("-v", "deep:/w"), ("-v", "deep:/w"), ("-v", "/w")):
            done = any_box("run", "--rm", "--network", "none", *options, "deep", "sh", "-c", look)
            assert done.stdout.split() == ["3", "3", "3", "hi"], done
        assert [path.name for path in (any_box.directory / "root/volumes/deep").iterdir() if "_data" in path.name] == [
            "_data"
        ]
        any_box.ok("volume", "rm", "deep")
        any_box.ok("rm", "-f", "cc")
        any_box.ok("rmi", "deep")
    finally:
        remove_tree(str(out))  # as the rest: too deep for who tidies up after a test


def test_what_no_archive_takes_is_refused_in_words_and_goes_the_other_ways(any_box: Box) -> None:
    any_box.start("cc", f"{LONGER}; sleep 600")
    any_box.until_logged("cc", "ready")
    lines = any_box.ok("diff", "cc").splitlines()
    assert lines[-1] == f"A /w/{LONG}/{LONG}/g" and len(lines) == 1 + 36 + 2
    for words in (
        ("commit", "cc", "long"),
        ("export", "cc", "-o", str(any_box.directory / "tar")),
        ("cp", "cc:/w", "-"),
    ):
        done = any_box(*words)
        assert done.returncode == 125 and "its path is longer than 4096 bytes" in done.stderr, words
    assert "long" not in any_box.ok("images", "--format", "{{.Repository}}")
    any_box.ok("rm", "-f", "cc")


@requires("root")
def test_snapshots_of_any_depth(api: None) -> None:
    for driver in ("overlay", "copy"):
        with minibox.Sandbox("base", storage_driver=driver) as box:
            assert box.run(["sh", "-c", LONGER], capture_output=True, text=True).stdout == "f\ng\nready\n"
            with box.snapshot() as snapshot, snapshot.sandbox() as fork:
                look = ["sh", "-c", f"cd -P /w/{LONG}; cd -P {LONG}; stat -c %h f g; cat f"]
                assert fork.run(look, capture_output=True, text=True).stdout == "2\n2\nhi\n"
