"""`minibox.Image`."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

import minibox

pytestmark = pytest.mark.requires("root")


@pytest.fixture
def tree(api: None, tmp_path: Path) -> Path:
    """A root file system: that of `base`, and a file."""
    with minibox.Sandbox("base") as box:
        (tmp_path / "tree").mkdir()
        box.get("/bin", tmp_path / "tree")
    (tmp_path / "tree" / "own").write_text("content\n")
    os.chown(tmp_path / "tree" / "own", 7, 8)
    return tmp_path / "tree"


def test_one_is_built_of_a_directory(tree: Path) -> None:
    image = minibox.Image.build(
        tree, "made:1", command=["sh", "-c", 'echo $0 "$A"; pwd; id -u; stat -c "%u %g" /own'],
        env={"A": 'with "quotes" and $dollars'}, workdir="/bin", user="7", labels={"a.b": "c d"},
    )  # fmt: skip
    assert image.names == ("made:1",) and image.size > 100_000 and image.config["config"]["Labels"] == {"a.b": "c d"}
    done = minibox.run("made:1", capture_output=True, text=True)
    assert done.stdout == 'sh with "quotes" and $dollars\n/bin\n7\n7 8\n'


def test_one_is_built_of_an_archive(tree: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tree.tar.gz", "w:gz") as archive:
        archive.add(tree, ".")
    image = minibox.Image.build(tmp_path / "tree.tar.gz", "made:2", entrypoint=["cat"])
    assert minibox.run("made:2", ["/own"], capture_output=True).stdout == b"content\n"
    assert minibox.Image.get("made:2").id == image.id == minibox.Image.get(image.id[7:19]).id


def test_they_are_listed_named_and_removed(tree: Path) -> None:
    image = minibox.Image.build(tree, "made:3")
    image.tag("other:1")
    assert image.names == ("made:3", "other:1")
    assert ("made:3", "other:1") in [each.names for each in minibox.Image.list()]
    assert len(list(image.history())) == 1
    with pytest.raises(minibox.ImageInUse):
        image.remove()
    image.remove(force=True)
    with pytest.raises(minibox.ImageNotFound):
        minibox.Image.get("made:3")


def test_what_can_not_be_says_so(api: None, tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_text("no tar")
    with pytest.raises(minibox.MiniboxError):
        minibox.Image.build(tmp_path / "no.tar", "made:4")
    with pytest.raises(minibox.ImageNotFound):
        minibox.Image.get("nothing:1")
    assert minibox.Image.get("base").names == ("base:latest",)
