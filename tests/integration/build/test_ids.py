"""Ids above 65535 in builds, and errors that say what the user namespace refuses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import isolation
from tests.container_box import Box
from tests.integration.build.conftest import Builder
from tests.probes import requires_user

if TYPE_CHECKING:
    from tests.conftest import Run

LARGE = 2147483646
TEXT = f"""\
FROM base
RUN touch /a && chown 100000:200000 /a && mkdir /d && chown {LARGE}:65536 /d && chmod 2750 /d
COPY --chown=300000:7 file /given/file
RUN test "$(stat -c %u:%g /a)" = 100000:200000 && chown 65536 /given
USER 100000:200000
RUN test $(id -u) = 100000 && echo x >> /a && touch /tmp/own
USER root
"""
OWNERS = {
    "a": "100000:200000", "d": f"{LARGE}:65536", "given": "65536:7", "given/file": "300000:7", "tmp/own": "100000:200000",
}  # fmt: skip
LOOK = ("sh", "-c", f"cd / && stat -c '%n %u:%g' {' '.join(OWNERS)}")


def rows(owners: dict[str, str]) -> str:
    return "\n".join(f"{name} {owner}" for name, owner in owners.items())


def test_large_ids_are_stored_by_every_driver(minibox_here: Run, state: Path) -> None:
    context = state / "context"
    context.mkdir()
    builder = Builder(Box(minibox_here, state), context)
    builder.file("file", "x")
    archive = state / "files.tar"
    builder.ok(TEXT, "--network", "none", "-o", "type=image", "-o", f"type=tar,dest={archive}")
    run = ("run", "--rm", "--network", "none")
    assert builder.box.ok(*run, "--userns", "host", "built", *LOOK) == rows(OWNERS)
    # Other containers have ids up to 65535 only: what belongs to others belongs to nobody.
    seen = {name: re.sub(r"\d{5,}", "65534", owner) for name, owner in OWNERS.items()}
    assert builder.box.ok(*run, "built", *LOOK) == rows(seen)
    with tarfile.open(archive) as tar:
        assert {name: f"{tar.getmember(name).uid}:{tar.getmember(name).gid}" for name in OWNERS} == OWNERS
    assert builder.ok("FROM built\nRUN test $(stat -c %u /a) = 100000\n", "--network", "none")


TOOLS = ("tar", "cp", "install")


@pytest.fixture
def with_tools(builder: Builder) -> Builder:
    """A builder whose context has GNU's programs below ``root/gnu``, and archives of a device and of a large owner."""
    for name in TOOLS:
        path = shutil.which(name, path="/usr/bin:/bin")
        assert path
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout.split()
        for each in (path, *(word for word in listed if word.startswith("/"))):
            target = builder.context / (f"root/gnu/{name}" if each == path else f"root{each}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(each, target)
    for name, kind, uid in (("device", tarfile.CHRTYPE, 0), ("owner", tarfile.REGTYPE, 3_000_000_000)):
        with tarfile.open(builder.context / f"root/{name}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            member = tarfile.TarInfo("made")
            member.type, member.devmajor, member.devminor, member.uid = kind, 1, 3, uid
            tar.addfile(member)
    return builder


DEVICES = ["mknod /x c 1 3", "/gnu/tar xf /device.tar", "cp -a /dev/null /x",
           "/gnu/cp -a /dev/null /x", "mknod /x b 7 0 >&2 || exit 3"]  # fmt: skip
OWNED = ["touch /x && chown 3000000000 /x", "touch /x && chgrp 3000000000 /x", "/gnu/tar xf /owner.tar",
         "/gnu/install -o 3000000000 /device.tar /x"]  # fmt: skip


def test_what_a_user_namespace_refuses_is_told_with_the_fix(with_tools: Builder) -> None:
    is_root = with_tools.box.directory.stat().st_uid == 0
    for command in DEVICES:
        said = with_tools.refused(f"FROM base\nCOPY root /\nRUN {command}\n")
        assert "--userns host lets them be made, if you build as root" in said, command
    for command in OWNED:
        said = with_tools.refused(f"FROM base\nCOPY root /\nRUN {command}\n")
        want = "below 2147483647; with --userns host" if is_root else "usermod --add-subuids"
        assert want in said, command
    for command in ("false", "echo mknod; ls /missing", "echo chown; exit 1"):
        said = with_tools.refused(f"FROM base\nCOPY root /\nRUN {command}\n")
        assert "--userns" not in said and "usermod" not in said, said


@requires_user
def test_a_users_ids_are_those_of_etc_subuid(user_box: Box) -> None:
    context = user_box.directory / "context"
    context.mkdir()
    os.chown(context, user_box.directory.stat().st_uid, user_box.directory.stat().st_gid)
    builder = Builder(user_box, context)
    builder.file("file", "x")
    for line in ("COPY --chown=300000 file /x", "COPY --chown=300000 file /new/x", "ADD --chown=0:300000 file /x"):
        said = builder.refused(f"FROM base\n{line}\n")
        assert "300000" in said and "/etc/subuid and /etc/subgid" in said, said
    secret = ("--secret", f"id=a,src={builder.context / 'file'}")
    for mount in ("type=secret,id=a,uid=300000", "type=cache,target=/c,gid=300000"):
        said = builder.refused(f"FROM base\nRUN --mount={mount} true\n", *secret)
        assert "300000" in said and "/etc/subuid and /etc/subgid" in said, said
    assert not list(builder.box.directory.glob("root/build/caches/*/data*"))
    said = builder.refused("FROM base\nUSER 300000\nRUN true\n")
    assert "uid 300000 is not mapped" in said and "/etc/subuid" in said, said
    said = builder.refused("FROM base\nRUN true\n", "--userns", "host")
    assert "--userns host needs root" in said, said


@pytest.fixture
def second_range(state: Path) -> Iterator[None]:
    """Another range for the user in /etc/subuid and /etc/subgid, in the tests' own mount namespace."""
    files = ("/etc/subuid", "/etc/subgid")
    for path in files:
        longer = state / Path(path).name
        longer.write_text(f"{Path(path).read_text()}{isolation.USER_NAME}:800000000:300000\n")
        subprocess.run(["mount", "--bind", str(longer), path], check=True)
    yield
    for path in files:
        subprocess.run(["umount", path], check=True)


@requires_user
def test_a_user_with_several_ranges_has_all_of_them(user_box: Box, second_range: None) -> None:
    context = user_box.directory / "context"
    context.mkdir()
    os.chown(context, user_box.directory.stat().st_uid, user_box.directory.stat().st_gid)
    builder = Builder(user_box, context)
    builder.file("file", "x")
    builder.ok(TEXT.replace(str(LARGE), "70000"), "--network", "none")
    assert builder.sh(LOOK[2]) == rows({**OWNERS, "d": "70000:65536"})  # each container has the user's ids


def test_mounts_belong_to_large_ids(root_builder: Builder) -> None:
    secret = root_builder.file("file", "x", 0o600)
    text = """\
FROM base
USER 100000:200000
RUN --mount=type=secret,id=a,uid=100000,mode=0400 cat /run/secrets/a
RUN --mount=type=cache,target=/c,uid=100000,mode=0700 touch /c/x && stat -c %u:%g /c /c/x
"""
    lines = root_builder.ok(text, "--network", "none", "--secret", f"id=a,src={secret}")
    assert [line.split(" ", 2)[2] for line in lines if ":" in line and "100000" in line and "RUN" not in line] == [
        "100000:0", "100000:200000",
    ]  # fmt: skip


def test_root_can_have_all_ids(root_builder: Builder) -> None:
    builder, box = root_builder, root_builder.box
    text = "FROM base\nRUN mknod /null c 1 3 && touch /a && chown 4294967294:3000000000 /a\n"
    assert "mknod" in builder.refused(text)
    builder.ok(text, "--userns", "host")
    run = ("run", "--rm", "--network", "none", "--userns", "host", "built")
    assert box.ok(*run, "stat", "-c", "%F %t:%T", "/null") == "character special file 1:3"
    assert box.ok(*run, "stat", "-c", "%u:%g", "/a") == "4294967294:3000000000"
