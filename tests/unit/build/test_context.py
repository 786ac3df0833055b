"""What COPY selects in a context: files, directories, globs, links, --parents and --exclude, and what is bad input."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from minibox.build.context.context import Context
from minibox.build.context.patterns import read_ignore_file
from minibox.build.context.selection import entries
from minibox.errors import BuildError
from tests.probes import requires


def make(root: Path, *names: str) -> Path:
    """Make files, whose content is their name; directories end with a slash, links have an arrow."""
    root.mkdir(exist_ok=True)
    for name in names:
        path, _, target = name.partition(" -> ")
        where = root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        if target:
            where.symlink_to(target)
        elif path.endswith("/"):
            where.mkdir()
        else:
            where.write_text(path)
    return root


@pytest.fixture
def tree(tmp_path):
    return make(
        tmp_path / "context", "a", "b.txt", "d/x.txt", "d/y.md", "d/e/z.txt", "d/empty/", "d2/x.txt", "d2/f/g/h.go", "k.go",
        "link -> d", "up -> ../secret", "absolute -> /d/x.txt", "round -> round", "d/to-a -> ../a", "nowhere -> gone",
    )  # fmt: skip


def selected(tree, *sources, ignore="", **options):
    """The files that are copied, by their name at the destination, for each source."""
    ignored = read_ignore_file(ignore.encode(), ".dockerignore") if ignore else None
    with Context(str(tree), ignored) as context:
        found = context.select(sources, **options)
        return [
            " ".join(each.to or (source.name if not source.is_directory else ".") for each in source.selected())
            for source in found.sources
        ]


@pytest.mark.parametrize(
    "source, found",
    [
        ("a", ["a"]),
        ("./a", ["a"]),
        ("/a", ["a"]),
        ("d/../a", ["a"]),
        ("../../a", ["a"]),
        ("d/x.txt/", ["x.txt"]),
        ("d2", [". f f/g f/g/h.go x.txt"]),
        ("d2/", [". f f/g f/g/h.go x.txt"]),
        ("d/empty", ["."]),
        ("*.txt", ["b.txt"]),
        ("d*/x.txt", ["x.txt", "x.txt"]),
        ("d*/[x-z].*", ["x.txt", "y.md", "x.txt"]),
        ("d?", [". f f/g f/g/h.go x.txt"]),
        ("d/e*", [". z.txt", "."]),
        ("**/*.go", []),
        ("*/f/**/h.go", ["h.go"]),
        ("*.none", []),
        ("link", [". e e/z.txt empty to-a x.txt y.md"]),
        ("link/x.txt", ["x.txt"]),
        ("link/to-a", ["to-a"]),
        ("absolute", ["absolute"]),
        (r"\a", ["a"]),
    ],
)
def test_a_source(tree, source, found):
    assert selected(tree, source) == found


def test_a_link_within_a_directory_stays_a_link_and_a_source_is_followed(tree):
    with Context(str(tree)) as context:
        within = next(each for each in next(iter(context.select(["d"]).sources)).selected() if each.to == "to-a")
        source = next(iter(next(iter(context.select(["d/to-a"]).sources)).selected()))
    assert stat.S_ISLNK(within.mode)
    assert source.path == "a"


@pytest.mark.parametrize(
    "source, hint",
    [
        ("none", None),
        ("A", "there is 'a'"),
        ("a/b", None),
        ("up", "it is a link that leads nowhere: a link can't lead out of the directory"),
        ("nowhere", "it is a link that leads nowhere: a link can't lead out of the directory"),
        ("../secret", "'..' doesn't lead out of the context: a source must be in it"),
        ("d/x.txt", ".dockerignore:2 ignores it: 'd/*.txt'"),
    ],
)
def test_a_missing_source_is_told_with_the_reason(tree, source, hint):
    (tree.parent / "secret").write_text("secret")
    with pytest.raises(BuildError, match=f"^{ascii(source)} is not in the context(?m:$)") as told:
        selected(tree, source, ignore="# no\nd/*.txt")
    assert told.value.hint == hint


def test_links_in_a_circle(tree):
    with pytest.raises(BuildError, match="'round' in the context: too many levels of symbolic links"):
        selected(tree, "round")


@pytest.mark.parametrize(
    "source, found",
    [
        ("d2/f/g/h.go", [". d2 d2/f d2/f/g d2/f/g/h.go"]),
        ("d2/./f/g/h.go", [". f f/g f/g/h.go"]),
        ("./d2/f", [". d2 d2/f d2/f/g d2/f/g/h.go"]),
        ("d*/x.txt", [". d d/x.txt d2 d2/x.txt"]),
        ("d*/./x.txt", [". x.txt", ". x.txt"]),
        ("**/*.go", [". d2 d2/f d2/f/g d2/f/g/h.go k.go"]),
        ("./**/h.go", [". d2 d2/f d2/f/g d2/f/g/h.go"]),
        ("d/./**/*.txt", [". e e/z.txt x.txt"]),
        ("d/empty", [". d d/empty"]),
        ("d/.", [". d d/e d/e/z.txt d/empty d/to-a d/x.txt d/y.md"]),
        ("none*", []),
    ],
)
def test_parents(tree, source, found):
    assert selected(tree, source, parents=True) == found


@pytest.mark.parametrize("source", ["none", "d/none", "d/./none", "none/./x", "link/x.txt"])
def test_parents_of_a_missing_source(tree, source):
    with pytest.raises(BuildError, match="is not in the context"):
        selected(tree, source, parents=True)


@pytest.mark.parametrize(
    "sources, exclude, found",
    [
        (["d"], ["*.txt"], [". e e/z.txt empty to-a y.md"]),
        (["d"], ["**/*.txt"], [". e empty to-a y.md"]),
        (["d"], ["e"], [". empty to-a x.txt y.md"]),
        (["d"], ["*", "!e/z.txt"], [". e e/z.txt"]),
        (["d"], ["/x.txt"], [". e e/z.txt empty to-a y.md"]),
        (["*.txt", "a", "*.go"], ["*.txt"], ["a", "k.go"]),
        (["."], ["d*", "*.txt", "*o*"], [". a link up"]),
    ],
)
def test_exclude(tree, sources, exclude, found):
    assert selected(tree, *sources, exclude=exclude) == found


def test_exclude_and_parents(tree):
    assert selected(tree, "d2", exclude=["**/*.txt"], parents=True) == [". d2 d2/f d2/f/g d2/f/g/h.go"]


@pytest.mark.parametrize(
    "ignore, found",
    [
        ("d*", ". a absolute b.txt k.go link nowhere round up"),
        ("*\n!d2/f", ". d2 d2/f d2/f/g d2/f/g/h.go"),
        ("*\n!**/*.md", ". d d/y.md"),
        ("**/*.txt\n**/*.md\n?\n[l-u]*\nabs*", ". d2 d2/f d2/f/g d2/f/g/h.go k.go"),
        ("d\n!d/e\nd/e/z.txt\nd2\nlink\nup\nround\nnowhere\nabsolute", ". a b.txt d d/e k.go"),
    ],
)
def test_ignored_files_are_not_there(tree, ignore, found):
    assert selected(tree, ".", ignore=ignore) == [found]


def test_what_is_ignored_is_never_opened(tree):
    (tree / "d").chmod(0)
    try:
        assert selected(tree, ".", ignore="*\n!k.go") == [". k.go"]
        assert selected(tree, "a") == ["a"]
    finally:
        (tree / "d").chmod(0o755)


def digest(tree, *sources, **options):
    with Context(str(tree), **options) as context:
        return context.select(sources or ["."]).digest


def test_the_digest_is_of_content_and_not_of_times_places_or_the_order_on_disk(tmp_path):
    names = ["a", "b/c", "b/d", "link -> a"]
    one, other = make(tmp_path / "one", *names), make(tmp_path / "other", *reversed(names))
    os.utime(other / "a", (1, 1))
    other.chmod(0o700)
    assert digest(one) == digest(other)
    assert digest(one, "b") == digest(other, "b")


def test_hard_links_count_and_are_told(tmp_path):
    one, other = make(tmp_path / "one", "a/x", "a/y"), make(tmp_path / "other", "a/x")
    (one / "a/y").write_text("a/x")
    os.link(other / "a/x", other / "a/y")
    os.link(other / "a/x", other / "outside")
    assert digest(one, "a") != digest(other, "a")
    with Context(str(other)) as context:
        assert [each.link for each in context.select(["a"]).sources[0].selected()] == ["", "", "x"]
        assert [each.link for each in context.select(["a/y"]).sources[0].selected()] == [""]


MIB = 1 << 20


@pytest.mark.parametrize(
    "start, data", [(0, b""), (5 * MIB, b"x"), (3 * MIB - 1, b"xy"), (0, b"x"), (2 * MIB, b"x" * MIB)]
)
def test_sparse_files_are_their_content(tmp_path, start, data):
    one, other = make(tmp_path / "one"), make(tmp_path / "other")
    content = bytes(start) + data + bytes(7 * MIB - start - len(data))
    (one / "a").write_bytes(content)
    with (other / "a").open("wb") as file:
        file.truncate(len(content))
        file.seek(start)
        file.write(data)
    found = digest(one, "a")
    assert digest(other, "a") == found
    with (other / "a").open("r+b") as file:
        file.seek(start + 1)
        file.write(b"z")
    assert digest(other, "a") != found


def test_a_sparse_file_of_a_terabyte_is_read_at_once(tmp_path):
    tree = make(tmp_path / "context")
    with (tree / "a").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"x")
    assert digest(tree, "a") != digest(make(tmp_path / "other", "a"), "a")


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB])
def test_the_size_and_every_byte_count(tmp_path, size):
    tree = make(tmp_path / "context")
    contents = {bytes(size), bytes(size + 1), b"\1" * size, b"\1" * size + b"\0", b"\0" * size + b"\1"}
    seen = set()
    for content in contents:
        (tree / "a").write_bytes(content)
        seen.add(digest(tree, "a"))
    assert len(seen) == len(contents)


def test_attributes_count(tree):
    before = digest(tree, "a")
    try:
        os.setxattr(tree / "a", "user.note", b"1")
    except OSError:
        pytest.skip("this file system has no attributes")
    assert digest(tree, "a") != before
    os.removexattr(tree / "a", "user.note")
    assert digest(tree, "a") == before


@requires("root")
def test_file_capabilities_count_and_not_whose_namespace_they_are_of(tree):
    revision_2 = bytes.fromhex("0100000200200000000000000000000000000000")
    revision_3 = bytes.fromhex("010000030020000000000000000000000000000000000100")
    before = digest(tree, "a")
    os.setxattr(tree / "a", "security.capability", revision_2)
    plain = digest(tree, "a")
    assert plain != before
    os.setxattr(tree / "a", "security.capability", revision_3)
    assert digest(tree, "a") == plain


def test_sockets_are_left_out_and_refused_by_name(tree):
    here = os.getcwd()
    os.chdir(tree / "d2")
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
    finally:
        os.chdir(here)
    assert selected(tree, "d2") == [". f f/g f/g/h.go x.txt"]
    with pytest.raises(BuildError, match="'d2/socket' in the context is a socket"):
        selected(tree, "d2/socket")


def test_a_fifo_is_never_opened(tree):
    os.mkfifo(tree / "d2/fifo")
    assert selected(tree, "d2") == [". f f/g f/g/h.go fifo x.txt"]


@requires("root")
def test_a_device_is_its_number(tree):
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    before = digest(tree, "null")
    (tree / "null").unlink()
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    assert digest(tree, "null") != before


def test_names_that_are_no_utf8(tree):
    (tree / os.fsdecode(b"d2/\xff\n")).write_text("x")
    assert selected(tree, "d2") == [". f f/g f/g/h.go x.txt \udcff\n"]
    assert selected(tree, os.fsdecode(b"d2/\xff*")) == [os.fsdecode(b"\xff\n")]
    with Context(str(tree)) as context:
        assert "\udcff\n" in entries(context.select(["d2"]).manifest)


def test_an_unreadable_file_is_told_with_what_to_do(tree):
    (tree / "d2/x.txt").chmod(0)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.chdir(tree)
            if not os.geteuid():  # root can read everything
                os.setresuid(1234, 1234, 1234)
            digest(Path("."), "d2")
        except BuildError as error:
            status = 0 if "'d2/x.txt' in the context: Permission denied" in str(error) and error.hint else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_context_that_is_no_directory(tree):
    for path, why in ((tree / "a", "Not a directory"), (tree / "none", "No such file")):
        with pytest.raises(BuildError, match=f"^open the context .*{why}"):
            Context(str(path))


def test_a_file_that_changes_between_the_digest_and_the_copy_is_told(tree):
    with Context(str(tree)) as context:
        each = next(iter(context.select(["a"]).sources[0].selected()))
        (tree / "a").write_text("other")
        with pytest.raises(BuildError, match="'a' in the context was changed during the build"):
            context.open(each)


def test_what_is_copied_of_small_files_is_what_their_digests_were_made_of(tree, monkeypatch):
    with Context(str(tree)) as context:
        each = next(iter(context.select(["a"]).sources[0].selected()))
        before = (tree / "a").read_bytes()
        (tree / "a").write_text("other")
        assert context.read_small([each]) == [before]
        assert context.read_small([each]) == [None]  # it isn't kept for a second copy: whoever opens it is told
    monkeypatch.setattr("minibox.build.context.context.KEPT_BYTES_MAX", 0)
    with Context(str(tree)) as context:
        each = next(iter(context.select(["a"]).sources[0].selected()))
        assert context.read_small([each]) == [b"other"]
        (tree / "a").write_text("other")
        assert context.read_small([each]) == [None]


def test_a_file_that_becomes_a_link_is_not_followed(tree):
    with Context(str(tree)) as context:
        each = next(iter(context.select(["a"]).sources[0].selected()))
        (tree / "a").unlink()
        (tree / "a").symlink_to("/etc/passwd")
        with pytest.raises(BuildError, match="was changed during the build"):
            context.open(each)


def test_a_file_that_changes_before_it_is_read_counts_as_it_is_then(tree):
    with Context(str(tree)) as context:
        assert context.tree.children("")["a"]
        (tree / "a").write_text("other")
        selection = context.select(["a"])
        assert selection.digest == digest(tree, "a")
        os.close(context.open(next(iter(selection.sources[0].selected()))))


def test_the_built_directory_may_be_written_to_meanwhile(tree):
    with Context(str(tree)) as context:
        each = next(iter(context.select(["d2"]).sources[0].selected()))
        (tree / "d2/new").touch()
        os.close(context.open(each))


def test_large_files_are_read_by_threads_and_count_like_others(tmp_path):
    tree = make(tmp_path / "context", "small")
    for name in ("a", "b", "c"):
        (tree / name).write_bytes(name.encode() * (3 << 20))
    found = entries_of(tree)
    one_by_one = {}
    for name in "abc":
        with Context(str(tree)) as context:
            one_by_one.update(entries(context.select([name]).manifest))
    assert {name: found[name] for name in "abc"} == one_by_one
    (tree / "b").chmod(0o600)
    assert entries_of(tree)["a"] == found["a"]


def entries_of(tree):
    with Context(str(tree)) as context:
        return entries(context.select(["."]).manifest)


def test_threads_that_read_give_up_if_one_fails(tmp_path, monkeypatch):
    tree = make(tmp_path / "context")
    for name in ("a", "b"):
        (tree / name).write_bytes(bytes(2 << 20))
    with Context(str(tree)) as context:
        read = context._reader.read

        def interrupted(path, record):
            if path == "a":
                raise KeyboardInterrupt
            return read(path, record)

        monkeypatch.setattr(context._reader, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            context.select(["."])
        assert context._reader._is_stopped


def nested(root, depth):
    """Make directories in directories, and a file in the last one."""
    make(root)
    here = os.getcwd()
    os.chdir(root)
    try:
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        Path("x").write_text("x")
    finally:
        os.chdir(here)
    return root


@pytest.fixture
def deep(tmp_path):
    yield nested(tmp_path / "context", 2500)
    subprocess.run(["rm", "-r", tmp_path / "context"], check=True)  # pytest's own removal doesn't come so far


def test_directories_that_are_nested_deeper_than_a_path_may_be_long(deep):
    deepest = "d/" * 2500 + "x"
    assert list(entries_of(deep))[-1] == deepest
    with Context(str(deep)) as context:
        selection = context.select([deepest])
        os.close(context.open(next(iter(selection.sources[0].selected()))))
    with pytest.raises(BuildError, match="directories are nested too deep"):
        selected(deep, ".", ignore=f"*\n!{deepest}")
