"""The same input makes the same image: with every storage driver, for every user, under another host name."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.container_box import Box
from tests.integration.build.conftest import Builder
from tests.probes import requires_user

if TYPE_CHECKING:
    from tests.conftest import Run

TEXT = """\
FROM base AS first
COPY d /d
RUN rm /d/c && rm -rf /d/sub && mkdir /d/sub && echo z > /d/sub/z
RUN mkdir -p /m/b /m/a && touch /m/b/2 /m/b/1 && ln /m/b/1 /m/a/0 && ln -s /x /m/l && mkfifo /m/f && chown -R 7:8 /m && chmod 6755 /m/b/2
RUN cp -a /etc /etc2 && mv /d/sub /moved && chmod 755 /d && touch /d/a && cat /bin/busybox > /dev/null
RUN (hostname; cat /etc/hostname /etc/hosts; env | sort; id; pwd; umask; ls -a / /dev /proc/self/fd) > /seen
RUN chmod 4755 /d/b; chown 0:0 /d/b; mkdir /e && rmdir /e; mv /d /dd
RUN for i in 9 3 7 1; do mkdir -p /o/$i; for j in z y x; do echo $j > /o/$i/$j; done; done
WORKDIR /w/x
COPY --chown=3 d/a /one
ADD --chmod=600 d /w/
FROM scratch AS other
COPY d/a /a
FROM first
COPY --from=other /a /from/
"""
EPOCH = "1000000000"


def fill(builder: Builder, names: str) -> None:
    """Make the context: its files in this order."""
    for name in names:
        builder.file(f"d/{name}", name, 0o4755 if name == "b" else 0o644)
    builder.file("d/sub/y")
    (builder.context / "d/link").symlink_to("a")
    for number, path in enumerate(sorted(builder.context.rglob("*"))):
        if not path.is_symlink():
            os.utime(path, (number * 100, os.getpid() * 1000 + len(names) * ord(names[0])))


def digests(builder: Builder, *words: str) -> tuple[str, str]:
    """Build anew; the image's id and the digest of its manifest."""
    out = builder.box.directory / "metadata"
    builder.ok(
        TEXT, "--no-cache", "--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}", "--network", "none", "--metadata-file", str(out), *words
    )  # fmt: skip
    found = json.loads(out.read_text())
    out.unlink()
    return found["containerimage.config.digest"], found["containerimage.digest"]


def another(builder: Builder, box: Box, name: str, files: str) -> Builder:
    context = box.directory / name
    context.mkdir(mode=0o755)
    os.chown(context, box.directory.stat().st_uid, box.directory.stat().st_gid)
    made = Builder(box, context)
    fill(made, files)
    return made


def test_with_every_driver(minibox_here: Run, root_builder: Builder, state: Path) -> None:
    fill(root_builder, "abc")
    other = another(root_builder, Box(minibox_here, state), "other", "cab")
    assert digests(other) == digests(root_builder)


@pytest.fixture
def elsewhere(environment: Mapping[str, str], minibox_command: list[str], state: Path) -> Box:
    """The command on a machine with another name."""

    def run(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        argv = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh", *minibox_command, *words]
        return subprocess.run(argv, env=dict(environment), capture_output=True, text=True, check=False, timeout=60)

    return Box(run, state)


def test_under_another_host_name(root_builder: Builder, elsewhere: Box) -> None:
    fill(root_builder, "abc")
    other = another(root_builder, elsewhere, "other", "bca")
    found = digests(root_builder)
    assert digests(other) == found
    assert root_builder.sh("head -n 2 /seen") == "buildkitsandbox\nbuildkitsandbox"
    assert digests(other, "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=mine") != found
    assert root_builder.sh("head -n 2 /seen") == "mine\nmine"


@requires_user
def test_for_an_ordinary_user(root_builder: Builder, user_box: Box) -> None:
    fill(root_builder, "abc")
    user = another(root_builder, user_box, "context", "cba")
    assert digests(user) == digests(root_builder)
    assert digests(user, "--pull=false") == digests(root_builder)  # once more, with other ids


def test_an_archive_is_the_same_byte_for_byte(root_builder: Builder, state: Path) -> None:
    fill(root_builder, "abc")
    written = []
    for number, kind in enumerate(("oci", "oci", "tar", "tar", "docker", "docker")):
        out = state / f"out-{number}"
        digests(root_builder, "-o", f"type={kind},dest={out}", "-o", "type=image")
        written.append(out.read_bytes())
    assert written[0] == written[1]
    assert written[2] == written[3]
    assert written[4] == written[5]
