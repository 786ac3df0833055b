"""Names of mount points that readers of /proc/PID/mountinfo must not stumble over: the kernel escapes four bytes only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container_box import Box
from tests.probes import requires

pytestmark = requires("root")

# A carriage return, a vertical tab, a file separator, a next line, U+2003, U+2028; blanks that the kernel escapes.
NAMES = ["a\rb", "a\x0bb", "a\x1cb", "a\x85b", "a\u2003b", "a\u2028b", "a b\tc\nd", "a\\040b"]


@pytest.fixture(params=NAMES, ids=ascii)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_file_is_copied_out_of_a_container_with_such_a_mount(box: Box, tmp_path: Path, name: str) -> None:
    (tmp_path / "source").mkdir()
    box.ok("run", "-d", "--name", "web", "-v", f"{tmp_path}/source:/{name}", "base", "sleep", "1000")
    box.ok("cp", "web:/etc/passwd", f"{tmp_path}/passwd")
    assert (tmp_path / "passwd").read_text().startswith("root:")


@pytest.fixture
def mounted(tmp_path: Path, name: str) -> Iterator[Path]:
    """A tmpfs of the host's at such a name."""
    place = tmp_path / name
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_neighbours_mount_costs_no_command(box: Box, mounted: Path) -> None:
    for words in (["info"], ["ps"], ["run", "--rm", "base", "true"]):
        box.ok(*words)
    assert "Traceback" not in box("doctor").stderr


def test_state_can_lie_on_one(box: Box, mounted: Path) -> None:
    root = str(mounted / "root")
    for words in (["info"], ["run", "--rm", "--network", "none", "base", "true"], ["system", "check"]):
        box.ok("--root", root, *words)
