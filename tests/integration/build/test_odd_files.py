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


def test_many_files_over_others(builder: Builder) -> None:
    """Small files are written together; where one is in the way, each takes its place."""
    for number in range(30):
        builder.file(f"d/{number}", f"{number}", mode=0o4754 if number % 2 else 0o604)
        os.utime(builder.context / f"d/{number}", ns=(0, number * 1_000_000_000))
    builder.ok(
        "FROM base\nRUN mkdir /x && echo old > /x/7 && ln -s /bin/busybox /x/9 && echo kept > /x/other\n"
        "COPY --chown=3:4 d /x\nCOPY --chmod=600 d /y/\n"
    )
    script = "cd /x && for each in 0 7 8 9 29; do stat -c '%F %a %u %g %Y' $each; cat $each; echo; done; cat other"
    told = [
        line
        for number in (0, 7, 8, 9, 29)
        for line in (f"regular file {4754 if number % 2 else 604} 3 4 {number}", f"{number}")
    ]
    assert builder.sh(script).split("\n") == [*told, "kept"]
    assert set(builder.sh("stat -c '%a %u' /y/*").split("\n")) == {"600 0"}
    assert builder.sh("head -c 4 /bin/busybox | tail -c 3") == "ELF"  # what a link led to is as it was


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
