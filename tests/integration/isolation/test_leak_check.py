"""The leak check finds cgroups that this session has left, and not those of a test run beside it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minibox.linux import cgroup
from tests.conftest import CHECKOUT
from tests.leaks import snapshot
from tests.probes import requires

pytestmark = requires("root")

#: A session, as of another TMPDIR, with a container of this id on a mount that only it sees.
SESSION = """
import subprocess, sys
from pathlib import Path
from tests import isolation
from tests.leaks import announce
directory, container_id = Path(sys.argv[1]), sys.argv[2]
isolation.enter(directory)
(directory / "disk").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "none", str(directory / "disk")], check=True)
(directory / "disk/root/live").mkdir(parents=True)
(directory / "disk/root/live" / container_id).touch()
told = announce(directory)
print("ready", flush=True)
sys.stdin.read()
told.unlink()
"""


@pytest.fixture
def make() -> Iterator[Callable[[str], str]]:
    """Make an empty cgroup; its directory in one of the hierarchies."""
    groups = []

    def made(name: str) -> str:
        groups.append(cgroup.create(cgroup.detect(), name, {}))
        return groups[-1].directories[0]

    yield made
    for group in groups:
        group.remove()


def test_what_this_session_leaves_is_found(make: Callable[[str], str]) -> None:
    left = {make(f"minibox-{secrets.token_hex(32)}"), make(f"minibox-test{os.getpid()}")}
    assert left <= snapshot()["cgroup"]


def test_what_a_test_of_another_process_makes_is_none_of_it(make: Callable[[str], str]) -> None:
    others = {make(f"minibox-oci-test-{os.getppid()}-1"), make(f"minibox-oci-test-frozen-{os.getppid()}")}
    assert not others & snapshot()["cgroup"]


def test_a_container_of_another_session_is_none_of_it(make: Callable[[str], str], tmp_path: Path) -> None:
    container_id = secrets.token_hex(32)
    others = make(f"minibox-{container_id}")
    assert others in snapshot()["cgroup"]
    words = [sys.executable, "-c", SESSION, str(tmp_path), container_id]
    with subprocess.Popen(words, cwd=CHECKOUT, stdin=-1, stdout=-1, text=True) as session:
        assert session.stdin and session.stdout and session.stdout.readline() == "ready\n"
        assert others not in snapshot()["cgroup"]
        session.stdin.close()
    assert others in snapshot()["cgroup"]
