"""Docker with BuildKit and minibox select the same files of a context: `.dockerignore`, and the sources of COPY."""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibox.build.context.context import Context
from minibox.build.context.patterns import read_ignore_file
from minibox.errors import BuildError
from tests.engines import Docker
from tests.probes import requires

pytestmark = requires("root", "command:dockerd", "command:containerd")

FILES = [
    "a", "b.txt", "c.md", "d/a", "d/b.txt", "d/e/a", "d/e/c.md", "d/f/", "g/a.go", "g/h/b.go", "g/h/i/c.go", ".hid",
    "abc/x", "ab", "dd/d/a", "link -> d", "abs -> /d/e",
]  # fmt: skip
KINDS = {stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE}
SOURCES = [
    ".", "a", "./a", "/a", "../a", "d", "d/", "d/*", "*", "d*", "*.md", "*/a", "**", "**/a", "**/*.go", "a/", "a b.txt",
    "link", "link/a", "abs", "abs/a", "a?c", "ab*", "[a-b]*", "[^a]*", "d/f", "d/e/..", "nope*", "link/*", "l*",
    "./d/../g", "d/../../../b.txt", ".hid", ".*", "d//b.txt", "g/h/*/*",
]  # fmt: skip
MISSING = ["nope", "out", "o*", "a/b", "d/nope", "../nope"]
IGNORED = [
    "*.md\n", "**/*.go\n!g/h/i\n", "d\n!d/e\nd/e/a\n", "*\n!d/*.txt\n!g/h\n", "**/a\n", "a*\n!ab\n", "/d/e/\n./g/../c.md\n",
    "g/**\n", "g/**/c.go\n", "**\n!d/b.txt\n", "# c\n\n  b.txt  \n!*.none\n", "[a-c]*\n!abc\nabc/x\n", "?\n!d\n!g/*.go\n",
]  # fmt: skip


@pytest.fixture(scope="module")
def engine(session_directory: Path) -> Iterator[Docker]:
    found = Docker(session_directory / "docker-build", "--bridge", "none", "--iptables=false", DOCKER_BUILDKIT="1")
    try:
        found.daemon.start()
        yield found
    finally:
        found.end()


@pytest.fixture
def tree(state: Path) -> Path:
    root = state / "context"
    root.mkdir()
    for name in FILES:
        path, _, target = name.partition(" -> ")
        where = root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        if target:
            where.symlink_to(target)
        elif path.endswith("/"):
            where.mkdir(mode=0o750)
        else:
            where.write_text(path)
    (root / "a").chmod(0o640)
    return root


def dockers(engine: Docker, tree: Path, lines: list[str]) -> dict[str, tuple]:
    """What a Dockerfile with these lines gives."""
    archive = tree.parent / "built.tar"
    options = ["--quiet", "--file", "-", "--output", f"type=tar,dest={archive}"]
    engine("build", *options, tree, input="\n".join(["FROM scratch", *lines, ""]), timeout_s=120)
    with tarfile.open(archive) as tar:
        return {each.name.rstrip("/"): (each.type, each.mode, each.linkname) for each in tar.getmembers()}


def ours(tree: Path, sources: list[str]) -> dict[str, tuple]:
    """What ``COPY SOURCES[n] /n/`` for each of them gives, by what is selected."""
    ignore = tree / ".dockerignore"
    ignored = read_ignore_file(ignore.read_bytes(), ".dockerignore") if ignore.exists() else None
    found: dict[str, tuple] = {}
    with Context(str(tree), ignored) as context:
        for number, text in enumerate(sources):
            for source in context.select(text.split()).sources:
                found.setdefault(f"{number}", (tarfile.DIRTYPE, 0o755, ""))
                for each in source.selected():
                    kind = KINDS[stat.S_IFMT(each.mode)]
                    parts = [f"{number}", "" if source.is_directory else source.name, each.to]
                    target = context.tree.readlink(each.path) if kind == tarfile.SYMTYPE else ""
                    if not source.is_directory or each.to:
                        found["/".join(filter(None, parts))] = (kind, stat.S_IMODE(each.mode), target)
    return found


def test_the_sources_of_copy(engine, tree):
    lines = [f"COPY {text} /{number}/" for number, text in enumerate(SOURCES)]
    assert ours(tree, SOURCES) == dockers(engine, tree, lines)


@pytest.mark.parametrize("source", MISSING)
def test_a_missing_source(engine, tree, source):
    (tree.parent / "secret").write_text("secret")
    (tree / "out").symlink_to("../secret")
    with pytest.raises(BuildError, match="is not in the context"):
        ours(tree, [source])
    with pytest.raises(AssertionError, match="not found|no such file|not a directory"):
        dockers(engine, tree, [f"COPY {source} /0/"])


def test_ignored_files(engine, tree):
    for lines in IGNORED:
        (tree / ".dockerignore").write_text(lines)
        assert ours(tree, ["."]) == dockers(engine, tree, ["COPY . /0/"]), lines


def test_a_malformed_pattern(engine, tree):
    (tree / ".dockerignore").write_text("a\n[b\n")
    with pytest.raises(BuildError, match=r"^\.dockerignore:2: "):
        ours(tree, ["."])
    with pytest.raises(AssertionError, match="syntax error in pattern"):
        dockers(engine, tree, ["COPY . /0/"])
