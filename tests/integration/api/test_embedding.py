"""The recipes of docs/embedding.md, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.leaks import SLOWNESS
from tests.probes import requires

RECIPES = re.findall(
    r"^## (\d+)\. .*?^```python\n(.*?)^```$", (CHECKOUT / "docs/embedding.md").read_text(), re.M | re.S
)
#: Of Debian's, unpacked and not set up, without what a server of a test doesn't use: a third of the time.
POSTGRES = {
    "PACKAGES": "postgresql-15 base-files base-passwd bash coreutils dash grep libc-bin sed util-linux",
    "MMDEBSTRAP_OPTIONS": "--variant=extract --dpkgopt=path-exclude=/usr/lib/*/libLLVM* "
    "--dpkgopt=path-exclude=/usr/lib/postgresql/15/lib/bitcode/* --dpkgopt=path-exclude=/usr/share/perl/* "
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "MINIBOX_REFERENCE": "postgres",
}
OF_POSTGRES = ("2", "3", "6")

pytestmark = requires("root", "command:nft")


def written(directory: Path, *numbers: str) -> list[Path]:
    """Recipes as files, by the name in their first line, else by their number."""
    files = []
    for number, text in RECIPES:
        if number in numbers:
            first = re.match(r"# (\w+\.py)\n", text)
            files.append(directory / (first[1] if first else f"test_recipe_{number}.py"))
            files[-1].write_text(text)
    return files


def suite(directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (directory / "pytest.ini").touch()
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--minibox-missing=fail", str(directory)]
    return subprocess.run(words, env=environment, cwd=directory, capture_output=True, text=True, check=False,
                          timeout=200 * SLOWNESS)  # fmt: skip


def test_there_are_thirteen():
    assert [number for number, _ in RECIPES] == [str(number) for number in range(1, 14)]


@pytest.mark.parametrize(
    "number", [number for number, text in RECIPES if "def test_" not in text and "pytest" not in text]
)
def test_a_recipe_that_is_a_program(number, tmp_path, environment, minibox):
    (file,) = written(tmp_path, number)
    done = subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True, check=False,
                          timeout=60 * SLOWNESS)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert minibox("ps", "-aq").stdout == ""


def test_recipes_of_tests(tmp_path, environment, minibox):
    written(tmp_path, *(number for number, text in RECIPES if "def test_" in text and number not in OF_POSTGRES))
    done = suite(tmp_path, environment)
    assert done.returncode == 0, done.stdout
    assert minibox("ps", "-aq").stdout == ""


@pytest.mark.not_in_vm("a network")
@requires("internet", "command:mmdebstrap", "command:apt-get")
def test_recipes_with_a_database(tmp_path, environment, host_netns, minibox, session_directory):
    make = ["nsenter", f"--net={host_netns}", str(CHECKOUT / "rootfs/debian/make"), "bookworm"]
    made = {**os.environ, **POSTGRES, "MINIBOX_ROOT": environment["MINIBOX_ROOT"], "TMPDIR": str(session_directory)}
    done = subprocess.run(make, env=made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written(tmp_path, *OF_POSTGRES)
    done = suite(tmp_path, environment)
    assert done.returncode == 0, done.stdout
    assert minibox("ps", "-aq").stdout == ""
