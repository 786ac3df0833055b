"""Reading a container's or an image's merged tree from outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minibox.engine.files.tree import Directories, Tree
from minibox.engine.files.writable_rootfs import writable_root
from minibox.image.archive.importer import add_image
from minibox.image.store import ImageStore
from tests.conftest import CHECKOUT
from tests.images import prepared
from tests.probes import requires
from tests.unit.layers import directory, entry, tar

LAYERS = (
    [directory("d"), entry("d/old", content=b"1"), entry("gone"), entry("kept", content=b"1", uid=7)],
    [entry(".wh.gone"), entry(".wh.never-there"), entry("d/.wh..wh..opq"), entry("d/new", content=b"2")],
)


def names(fd):
    return sorted(os.listdir(f"/proc/self/fd/{fd}/.")), sorted(os.listdir(f"/proc/self/fd/{fd}/d"))


def listed(stack):
    return sorted(stack.root.children()), sorted(stack.find("d").children())


@requires("root")
def test_a_stack_of_layers_and_a_container_are_one_tree(state):
    store = ImageStore(str(state / "root"))
    image = add_image(store.layout, "two", [tar(list(members)) for members in LAYERS])
    snapshot = prepared(store, image, "c1")
    for chain_ids, expected in (
        (image.chain_ids, (["d", "kept"], ["new"])),
        (image.chain_ids[:1], (["d", "gone", "kept"], ["old"])),
    ):
        with Directories(store.root) as directories, directories.stack(Tree("overlay", chain_ids)) as stack:
            assert listed(stack) == expected
            kept = stack.find("kept")
            assert kept is not None
            with kept:
                assert kept.status.st_uid == 7
    Path(snapshot.upper, "written").write_text("x")
    with writable_root(store.root, "c1", (), read_only=True) as fd:
        assert names(fd) == (["d", "kept", "written"], ["new"])
        Path(snapshot.upper, "meanwhile").write_text("x")
        assert Path(f"/proc/self/fd/{fd}/meanwhile").read_text() == "x"
    assert os.listdir(f"{store.root}/tmp") == []


CODE = """
import os, sys
from minibox.engine.host.user_namespace import run_inside
from minibox.engine.files.tree import Directories, Tree
from minibox.engine.files.writable_rootfs import writable_root
from minibox.image.archive.importer import add_image
from minibox.image.store import ImageStore
from tests.images import prepared
from tests.integration.files.test_view import LAYERS, listed, names
from tests.unit.layers import tar

def show():
    image = add_image(store.layout, "two", [tar(list(members)) for members in LAYERS])
    prepared(store, image, "c1")
    with Directories(store.root) as directories, directories.stack(Tree("overlay", image.chain_ids)) as stack:
        print(listed(stack), stack.find("kept").status.st_uid, flush=True)
    with writable_root(store.root, "c1", (), read_only=True) as fd:
        print(names(fd), os.stat("kept", dir_fd=fd).st_uid, flush=True)

store = ImageStore(sys.argv[1])
run_inside(show) if sys.argv[2] == "range" else show()
"""


@requires("user")
@pytest.mark.parametrize("ids", ["range", "one"])
def test_an_ordinary_user_looks_too(user_state, session_directory, ids):
    from tests import isolation

    copies = session_directory / "view-as-user"
    if not copies.exists():
        for name in ("minibox", "tests"):  # without what another session's compiler is just about to rename
            shutil.copytree(CHECKOUT / name, copies / name, ignore=shutil.ignore_patterns("*.pyc.*"))
    done = subprocess.run(
        [os.path.realpath(sys.executable), "-c", CODE, str(user_state / "root"), ids],
        capture_output=True, text=True, user=isolation.USER_ID, group=isolation.USER_ID, extra_groups=[], cwd="/",
        env={"PYTHONPATH": os.pathsep.join([str(copies), *filter(None, sys.path)]), "PATH": "/usr/bin:/bin:/usr/sbin"},
        check=False,
    )  # fmt: skip
    owner = 7 if ids == "range" else isolation.USER_ID
    assert done.stdout.splitlines() == [f"(['d', 'kept'], ['new']) {owner}"] * 2, done.stderr
