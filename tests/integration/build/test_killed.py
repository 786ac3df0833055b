"""What a build leaves that is killed at the worst moments: `builder prune` removes it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.build.conftest import Builder, cached

TEXT = "FROM base\nRUN echo kept > /kept\n"
#: Run minibox, and be killed by the call of a function.
PROGRAM = """\
import os, signal, sys
from importlib import import_module
from minibox.cli.main import main
name, function = sys.argv[1].split(":")
owner = import_module(name)
*path, last = function.split(".")
for each in path:
    owner = getattr(owner, each)
setattr(owner, last, lambda *args, **more: os.kill(os.getpid(), signal.SIGKILL))
sys.argv[1:] = sys.argv[2:]
main()
"""


def layers(builder: Builder) -> set[str]:
    """The layers of builds that are there, marked or unpacked or packed."""
    root = builder.box.directory / "root"
    places = [root / "layers", root / "build/layers", root / "build/packed"]
    found = {path.name.removeprefix("overlay-") for place in places if place.is_dir() for path in place.iterdir()}
    return {name for name in found if "b01d" not in name}  # that of FROM scratch


@pytest.mark.parametrize(
    ("moment", "line", "words"),
    [
        ("minibox.build.failed_shell:open_failed", "RUN echo half > /half; false", ()),
        ("minibox.build.failed_shell:make_image", "RUN echo half > /half; false", ()),
        ("minibox.build.failed_shell:sync", "RUN echo half > /half; false", ()),
        ("minibox.build.failed_shell:forget_failed", "RUN echo half > /half; false", ()),
        ("minibox.build.cache:Cache.put", "RUN echo new > /new", ("--no-cache",)),
    ],
    ids=["layer", "image", "sync", "named", "line"],
)
def test_a_layer_that_nobody_names_is_removed(
    root_builder: Builder, environment: dict[str, str], moment: str, line: str, words: tuple[str, ...]
) -> None:
    builder = root_builder
    builder.ok(TEXT, "--network", "none")
    builder.box.ok("builder", "prune", "--force", "--filter", "until=24h")
    before = layers(builder)
    builder.file("Dockerfile", f"{TEXT}{line}\n")
    argv = ["build", "--network", "none", "-t", "other", *words, str(builder.context)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, moment, *argv], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -9, done.stderr
    assert layers(builder) > before
    builder.box.ok("image", "prune", "--force")
    builder.box.ok("builder", "prune", "--force", "--filter", "until=24h")
    assert layers(builder) == before
    assert cached(builder.ok(TEXT, "--network", "none"))[1:] == [True]
    assert builder.sh("cat /kept") == "kept"
    report = builder.box("system", "check")
    assert report.returncode == 0, report.stdout
