"""`minibox shell CONTAINER`, and what a kept sandbox is good for."""

from __future__ import annotations

import pytest

from minibox import Sandbox
from tests.probes import requires

pytestmark = requires("root")


@pytest.fixture
def kept(api):
    with Sandbox("base", name="kept") as box:
        box.run(["sh", "-c", "echo hi >/made"], check=True)
        box.keep()
    return box.id


def test_on_the_files_of_one_that_has_ended(kept, minibox):
    before = minibox("inspect", "kept").stdout
    done = minibox("shell", kept[:12], input="cat /made; echo more >/more; exit 3\n")
    assert (done.stdout, done.returncode) == ("hi\n", 3), done.stderr
    assert minibox("shell", "kept", input="cat /more\n").stdout == "more\n"
    assert minibox("inspect", "kept").stdout == before  # but for its files
    assert minibox("diff", "kept").stdout == "A /made\nA /more\n"


def test_beside_what_runs_in_one_that_runs(minibox):
    minibox("run", "-d", "--rm", "--name", "box", "base", "sleep", "1000")
    done = minibox("shell", "box", input="ps -o args | grep -c '^sleep'; exit 4\n")
    minibox("rm", "-f", "box")
    assert (done.stdout, done.returncode) == ("1\n", 4), done.stderr


def test_a_kept_sandbox_starts_again_and_is_exported_and_removed(kept, minibox):
    assert minibox("start", "kept").stdout == "kept\n"
    assert minibox("exec", "kept", "cat", "/made").stdout == "hi\n"
    minibox("stop", "-t0", "kept")
    assert b"made" in minibox("export", "kept", text=False).stdout
    assert minibox("rm", "kept").returncode == 0
    assert minibox("ps", "-aq").stdout == ""


def test_an_image_comes_first_and_a_container_has_its_options(kept, minibox):
    assert "can't be changed: container kept exists already" in minibox("shell", "-e", "A=1", "kept").stderr
    minibox("rename", "kept", "base")
    assert minibox("shell", "base", input="ls /made\n").returncode != 0
    assert minibox("shell", kept[:12], input="ls /made\n").stdout == "/made\n"


def test_neither_an_image_nor_a_container(minibox):
    done = minibox("shell", "--pull", "never", "nowhere")
    assert done.returncode == 125 and "nowhere" in done.stderr
