"""RUN does what it does under Docker, although root is mapped; and the same input makes the same image."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.container_box import Box
from tests.integration.build.conftest import Builder
from tests.probes import requires_user

if TYPE_CHECKING:
    from tests.conftest import Run

PROGRAMS = ("setcap", "getcap")


def add_setcap(builder: Builder) -> None:
    """Put setcap and getcap, with their libraries, into the context, below ``root``."""
    for name in PROGRAMS:
        path = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
        assert path
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout.split()
        for each in (path, *(word for word in listed if word.startswith("/"))):
            where = f"root/bin/{name}" if each == path else f"root{os.path.realpath(os.path.dirname(each))}/x"
            target = builder.context / where
            target = target if each == path else target.with_name(os.path.basename(each))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(each, target)
            loader = builder.context / f"root{each}"
            if each != path and not loader.exists():
                loader.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(each, loader)


LOOK = "getcap /capable; stat -c '%n %a %u:%g' /s /fifo"
SEEN = "/capable cap_net_raw=ep\n/s 6755 7:8\n/fifo 644 60000:60001"


def build_owned(builder: Builder) -> None:
    """Build an image with a file capability, set-user-ID bits and owners, and look at it under other mappings."""
    add_setcap(builder)
    builder.ok("""\
FROM base
COPY root /
RUN cp /bin/busybox /capable && setcap cap_net_raw+ep /capable
RUN touch /s && chown 7:8 /s && chmod 6755 /s && mkfifo /fifo && chown 60000:60001 /fifo
RUN getcap /capable
""")
    for _ in range(2):  # each container has other ids
        assert builder.sh(LOOK) == SEEN


def test_capabilities_owners_and_modes_hold_with_every_driver(minibox_here: Run, state: Path) -> None:
    context = state / "context"
    context.mkdir()
    builder = Builder(Box(minibox_here, state), context)
    build_owned(builder)
    run = ("run", "--rm", "--network", "none", "--userns", "host", "built", "sh", "-c")
    assert builder.box.ok(*run, LOOK) == SEEN
    archive = builder.context / "saved.tar"
    builder.box.ok("save", "-o", str(archive), "built")
    builder.box.ok("rmi", "-f", "built")
    builder.box.ok("builder", "prune", "--force")
    builder.box.ok("load", "-i", str(archive))
    assert builder.sh(LOOK) == SEEN


@requires_user
@pytest.mark.parametrize("driver", ["overlay", "copy"])
def test_capabilities_owners_and_modes_hold_for_an_ordinary_user(user_box: Box, driver: str) -> None:
    context = user_box.directory / "context"
    context.mkdir(mode=0o755)
    build_owned(Builder(Box(partial(user_box, env={"MINIBOX_STORAGE_DRIVER": driver}), user_box.directory), context))


def test_the_same_input_makes_the_same_image(builder: Builder, new_context: Callable[[], Path]) -> None:
    text = """\
FROM base
COPY d /d
WORKDIR /w/x
RUN mkdir -p /made/b /made/a && touch /made/b/2 /made/b/1 && echo x > /made/a/f
COPY --chown=3 d/a /one
"""
    ids: list[str] = []
    for names in (("a", "b"), ("b", "a")):
        other = Builder(builder.box, new_context())
        for name in names:
            other.file(f"d/{name}", name)
            os.utime(other.context / f"d/{name}", (len(ids) * 1000, len(ids) * 1000 + 7))
        other.ok(text, "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1000000000", "--network", "none")
        ids.append(other.image()["Id"])
    assert ids[0] == ids[1]
    assert builder.box.ok("image", "inspect", "--format", "{{.Created}}", "built").startswith("2001-09-09T01:46:40")
    assert builder.sh("stat -c %Y /made/b/1 /d/a /w") == "1000000000\n1000000000\n1000000000"
