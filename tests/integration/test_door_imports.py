"""What each door imports when it is used, by ``python -X importtime``: a start has no time for more.

Of the modules outside minibox the public ones, exactly, beside those that a bare interpreter has; of minibox's own how many
there may be, packages counted. What may never be there says tests/unit/cli/test_imports.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKOUT
from tests.container_box import Box
from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = requires("root", "command:busybox")

PATHS = [str(CHECKOUT), *(path for path in sys.path if path.endswith("site-packages"))]
# As bin/ has them.
COMMAND = "from minibox.base import own_modules as own; own.use('minibox-others'); from minibox.cli.main import program; program()"
RUNTIME = "from minibox.base import own_modules as own; own.use('minibox-oci'); from minibox.oci_cli.main import program; program()"

#: By door: modules outside minibox, and how many of minibox's own there may be at most.
ALLOWED: dict[str, tuple[str, int]] = {
    "minibox run": ("atexit errno fcntl gc genericpath os posixpath select stat struct", 113),
    "minibox run, bridge": ("atexit binascii errno fcntl gc genericpath os posixpath select stat struct", 121),
    "minibox exec": (
        "atexit encodings errno fcntl gc genericpath os posixpath select stat struct", 81,
    ),
    "minibox ps": ("errno fcntl gc genericpath os posixpath stat", 49),
    "minibox images": (
        "collections contextlib copyreg datetime enum errno fcntl functools gc genericpath hashlib itertools json keyword "
        "math operator os posixpath re reprlib select stat struct types weakref", 100,
    ),
    "minibox rm": ("binascii errno fcntl gc genericpath os posixpath stat", 80),
    "minibox stop": ("errno fcntl gc genericpath os posixpath pwd select stat", 60),
    "minibox build": (
        "collections contextlib copyreg datetime enum errno fcntl functools gc genericpath hashlib heapq itertools json "
        "keyword math mmap operator os posixpath queue re reprlib select stat struct threading types zlib", 150,
    ),
    "minibox --help": ("errno gc genericpath os posixpath stat", 15),
    "minibox --version": ("errno gc genericpath os posixpath stat", 20),
    "minibox-oci create": ("atexit binascii encodings errno fcntl gc genericpath os posixpath select stat struct", 73),
    "minibox-oci state": ("errno fcntl gc genericpath os posixpath stat", 17),
    "minibox-oci start": ("errno fcntl gc genericpath os posixpath select stat struct", 19),
    "minibox-oci delete": ("errno fcntl gc genericpath os posixpath select stat struct", 29),
    "import minibox": ("", 1),
    "minibox.run": (
        "atexit collections contextlib copyreg datetime enum errno fcntl functools gc genericpath importlib itertools "
        "json keyword math operator os posixpath re reprlib select signal stat struct threading types typing warnings "
        "weakref", 137,
    ),
}  # fmt: skip


def imported(code: str, *words: str, environment: dict[str, str]) -> tuple[list[str], int]:
    """Modules outside minibox, and how many of its own."""
    bare, own = _modules("pass", environment), 0
    outside = set()
    for name in _modules(code, environment, *words) - bare:
        if name.partition(".")[0] == "minibox":
            own += 1
        elif not name.startswith("_"):
            outside.add(name.partition(".")[0])
    return sorted(outside), own


def _modules(code: str, environment: dict[str, str], *words: str) -> set[str]:
    script = f"import sys; sys.path[:0] = {PATHS!r}; {code}"
    with tempfile.TemporaryFile("w+") as stderr:  # a pipe would be held by what is left running
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-X", "importtime", "-c", script, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env=environment, cwd="/",
        )  # fmt: skip
        stderr.seek(0)
        lines = stderr.read().splitlines()
    assert done.returncode == 0, lines[-5:]
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")} - {"imported package"}


def check(door: str, found: tuple[list[str], int]) -> None:
    outside, most = ALLOWED[door]
    assert found[0] == outside.split(), (door, " ".join(found[0]))
    assert found[1] <= most, door


@pytest.mark.parametrize("words", ["--help", "--version", "ps", "images"])
def test_a_command_that_starts_nothing(words: str, environment: dict[str, str]):
    check(f"minibox {words}", imported(COMMAND, words, environment=environment))


def test_the_end_of_a_container(box: Box, environment: dict[str, str]):
    box.start("web", "sleep 1000")
    check("minibox stop", imported(COMMAND, "stop", "-t", "0", "web", environment=environment))
    check("minibox rm", imported(COMMAND, "rm", "web", environment=environment))


def test_a_build_that_finds_all_in_the_cache(minibox: Any, environment: dict[str, str], tmp_path: Path):
    (tmp_path / "Dockerfile").write_text("FROM base\nCOPY . /srv\nENV A=b\n")
    words = ("build", "-q", "-t", "web", str(tmp_path))
    minibox(*words)
    check("minibox build", imported(COMMAND, *words, environment=environment))


def test_a_run(minibox: Any, environment: dict[str, str]):
    minibox("run", "--rm", "base", "true")  # the caches are there
    check("minibox run", imported(COMMAND, "run", "--rm", "--network", "none", "base", "true", environment=environment))
    check("minibox run, bridge", imported(COMMAND, "run", "--rm", "base", "true", environment=environment))


def test_an_exec(box: Box, environment: dict[str, str]):
    box.start("web", "sleep 1000")
    check("minibox exec", imported(COMMAND, "exec", "web", "true", environment=environment))


def test_the_package(minibox: Any, environment: dict[str, str]):
    check("import minibox", imported("import minibox", environment=environment))
    run = "import minibox; minibox.run('base', ['true'], network='none', check=True)"
    minibox("run", "--rm", "base", "true")
    check("minibox.run", imported(run, environment=environment))


def test_an_oci_runtime(runtime: Runtime):
    runtime.write(runtime.bundle.shell("true"))
    root = ["--root", str(runtime.root)]
    environment = {**os.environ}
    for words in (
        ["create", "--bundle", str(runtime.bundle.path), "box"],
        ["state", "box"],
        ["start", "box"],
        ["delete", "--force", "box"],
    ):
        check(f"minibox-oci {words[0]}", imported(RUNTIME, *root, *words, environment=environment))
