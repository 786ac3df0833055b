"""RUN does what it does under Docker, although root is mapped; and the same input makes the same image."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.build.conftest import Builder

PROGRAMS = ("setcap", "getcap")


@pytest.fixture
def with_setcap(builder: Builder) -> Builder:
    """A builder whose context has setcap and getcap, with their libraries, below ``root``."""
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
    return builder


def test_capabilities_owners_and_modes_hold_under_another_mapping(with_setcap: Builder) -> None:
    builder = with_setcap
    builder.ok("""\
FROM base
COPY root /
RUN cp /bin/busybox /capable && setcap cap_net_raw+ep /capable
RUN touch /s && chown 7:8 /s && chmod 6755 /s && mkfifo /fifo && chown 60000:60001 /fifo
RUN getcap /capable
""")
    look = "getcap /capable; stat -c '%n %a %u:%g' /s /fifo"
    want = "/capable cap_net_raw=ep\n/s 6755 7:8\n/fifo 644 60000:60001"
    for _ in range(2):  # each container has other ids
        assert builder.sh(look) == want
    if builder.box.directory.stat().st_uid == 0:
        run = ("run", "--rm", "--network", "none", "--userns", "host", "built", "sh", "-c")
        assert builder.box.ok(*run, look) == want
        archive = builder.context / "saved.tar"
        builder.box.ok("save", "-o", str(archive), "built")
        builder.box.ok("rmi", "-f", "built")
        builder.box.ok("builder", "prune", "--force")
        builder.box.ok("load", "-i", str(archive))
        assert builder.sh(look) == want


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
