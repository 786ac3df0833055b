"""Contexts with files that builds seldom see: each is copied as it is, or refused by its name with status 1."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from tests.integration.build.conftest import Builder

COPY = "FROM base\nCOPY . /x/\n"


def bind(path: Path) -> None:
    """Make a socket, whose path may be longer than bind(2) takes."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def test_what_is_copied_as_it_is(builder: Builder) -> None:
    context = builder.context
    builder.file(".dockerignore", ".dockerignore\nDockerfile\n")
    os.mkfifo(context / "fifo")
    bind(context / "socket")
    builder.file(os.fsdecode(b"\xff\n"), "bytes")
    builder.file("first", "linked")
    os.link(context / "first", context / "second")
    with builder.file("sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"x")
    (context / "out").symlink_to("../../../etc/passwd")
    builder.file("sub/run", "y", mode=0o755)
    (context / "sub").chmod(0o2755)
    builder.ok(COPY)
    script = """
        test -p /x/fifo && test ! -e /x/socket && test "$(readlink /x/out)" = ../../../etc/passwd
        stat -c '%h %s' /x/first; stat -c '%s' /x/sparse; test $(stat -c %b /x/sparse) -lt 1000 && echo sparse
        stat -c '%a %u' /x/sub/run; stat -c %a /x/sub; cat /x/*"$(printf '\\377')"*
    """
    assert builder.sh(script).split("\n") == ["2 6", f"{1 << 30}", "sparse", "755 0", "2755", "bytes"]


def test_a_device(builder: Builder) -> None:
    os.mknod(builder.context / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    done = builder.run(COPY)
    if done.returncode:  # an ordinary user can't make one
        assert done.returncode == 1
        assert "Dockerfile:2: COPY: cannot copy 'null': Operation not permitted" in done.stderr
        assert "name it in .dockerignore" in done.stderr
    else:
        assert builder.sh("stat -c '%F %t %T' /x/null") == "character special file 1 3"


def test_a_source_that_cannot_be_copied(builder: Builder) -> None:
    context = builder.context
    (context.parent / "secret").write_text("secret")
    (context / "out").symlink_to("../secret")
    builder.file("skipped.log")
    builder.file(".dockerignore", "*.log\n")
    bind(context / "socket")
    for source, why in (
        ("../secret", "'..' doesn't lead out of the context"),
        ("out", "a link can't lead out"),
        ("skipped.log", ".dockerignore:1 ignores it: '*.log'"),
        ("none", "'none' is not in the context"),
        ("socket", "is a socket"),
        ("[a", "not a valid pattern"),
    ):
        error = builder.refused(f"FROM base\n\nCOPY {source} /x\n")
        assert error.startswith("minibox: Dockerfile:3"), source
        assert why in error


def test_a_file_that_the_user_cannot_read(builder: Builder) -> None:
    builder.file("readable", "a")
    os.chown(builder.file("locked", "b", mode=0), 0, 0)
    done = builder.run(COPY)
    if done.returncode:  # root can read everything
        assert done.returncode == 1
        assert "'locked' in the context: Permission denied" in done.stderr
        builder.file(".dockerignore", "locked\n")
        builder.ok(COPY)
    assert builder.sh("cat /x/readable") == "a"
