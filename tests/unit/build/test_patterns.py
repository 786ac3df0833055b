"""The patterns of `.dockerignore`, --exclude and --parents: as Docker's documentation and BuildKit have them."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.build.context.patterns import Patterns, clean, glob, has_wildcards, patterns_of, read_ignore_file
from minibox.errors import BuildError


def is_matched(patterns: Patterns, path: str) -> bool:
    """As for a file that is found while its directories are walked through."""
    flags, matched, parts = patterns.none, False, path.split("/")
    for length in range(1, len(parts) + 1):
        matched, flags = patterns.matches("/".join(parts[:length]), flags)
    return matched


@pytest.mark.parametrize(
    "text, matched, others",
    [
        ("a", "a a/b a/b/c", "b/a ab aa"),
        ("/a", "a a/b", "b/a"),
        ("./a/../b/", "b b/c", "a a/b"),
        ("*", "a a/b .a", ""),
        ("*.md", "a.md a.md/x", "a.mdx d/a.md md"),
        ("*/*.md", "d/a.md", "a.md d/e/a.md"),
        ("a?", "ab a.", "a abc a/b"),
        ("a/*", "a/b a/b/c", "a b/a/c"),
        ("**", "a a/b", ""),
        ("**/a", "a b/a b/c/a a/x", "ba b/ba"),
        ("**/*.go", "a.go b/a.go b/c/a.go", "a.gox go"),
        ("**.go", "a.go b/a.go b/c.go/x", "a.gox"),
        ("a/**", "a/b a/b/c", "a ab"),
        ("a**", "a ab a/b ab/c", "b ba"),
        ("a/**/b", "a/b a/x/b a/x/y/b", "a ab a/xb"),
        ("a/**/*.x", "a/b.x a/c/b.x", "b.x a/b.y"),
        ("**/a/**", "a/b x/a/b", "a x/a b"),
        ("a**b", "ab a/b axx/b", "axb"),
        ("**/**/**/a", "a b/a b/c/a", "ba b/ba"),
        ("**/" * 30 + "x", "x a/x", "a"),
        ("[a-c]x", "ax bx cx ax/y", "dx x"),
        ("[^a-c]x", "dx", "ax bx"),
        (r"[\]\-]x", "]x -x", r"\x"),
        (r"a\*b", "a*b", "axb a/b"),
        (r"\!a", "!a", "a"),
        ("a.b", "a.b", "axb"),
        ("a+(b)|{c}$", "a+(b)|{c}$", "aab"),
        ("é?", "éé éa", "é é/a"),
    ],
)
def test_one_pattern(text, matched, others):
    patterns = patterns_of([text], "--exclude")
    assert [path for path in matched.split() if not is_matched(patterns, path)] == []
    assert [path for path in others.split() if is_matched(patterns, path)] == []


@pytest.mark.parametrize(
    "lines, matched, others",
    [
        ("*.md\n!README.md", "a.md", "README.md a.txt"),
        ("*.md\n!README*.md\nREADME-secret.md", "a.md README-secret.md", "README.md README-a.md"),
        ("*.md\nREADME-secret.md\n!README*.md", "a.md", "README.md README-secret.md"),
        ("*\n!src", "a b/c", "src src/a src/b/c"),
        ("src\n!src/a\nsrc/a/b", "src src/x src/a/b src/a/b/c", "src/a src/a/c"),
        ("!a", "", "a"),
        ("a\n!a\na", "a a/b", ""),
        ("# a\n #b\n\n  c  \n", "#b c", "a"),
        ("\ufeffa\nb\r\n", "a b", "c"),
        ("! a\nb\n!  b", "", "a b"),
        (".\n/\n..", "", "a a/b"),
        ("foo\n!foo/bar\nf*", "foo foo/x foo/bar fa fa/b", ""),
        ("**/*.md\n!docs", "a.md x/a.md", "docs docs/a.md docs/x/a.md"),
    ],
)
def test_an_ignore_file(lines, matched, others):
    patterns = read_ignore_file(lines.encode(), ".dockerignore")
    assert [path for path in matched.split() if not is_matched(patterns, path)] == []
    assert [path for path in others.split() if is_matched(patterns, path)] == []


@pytest.mark.parametrize("text, why", [
    ("a[", "isn't closed"), ("a[b", "isn't closed"), ("[]a]", "needs a backslash"), ("[a-]", "needs a backslash"),
    ("[-a]", "needs a backslash"), ("a\\", "ends with a backslash"), ("!", "without a pattern"), ("!/", "without a pattern"),
])  # fmt: skip
def test_a_malformed_pattern_is_told_with_its_line(text, why):
    with pytest.raises(BuildError, match=rf"^\.dockerignore:2: .*{why}"):
        read_ignore_file(f"x\n{text}\n".encode(), ".dockerignore")


def test_names_that_are_no_utf8():
    patterns = read_ignore_file(b"\xff?.c\n", ".dockerignore")
    assert is_matched(patterns, "\udcffx.c")
    assert not is_matched(patterns, "\udcfe.c")


def test_the_pattern_that_decides():
    patterns = read_ignore_file(b"# docs\n*.md\n!a.md\n", ".dockerignore")
    decides = patterns.deciding("b.md/c")
    assert decides
    assert (decides.text, decides.line, decides.is_exception) == ("*.md", 2, False)
    assert patterns.deciding("b.txt") is None


@pytest.mark.parametrize("text, path, matches", [
    ("*.c", "a.c", True), ("*.c", "a/b.c", False), ("**", "a", True), ("**", "a/b", False), ("[^a]", "b", True),
    (r"\*", "*", True), (r"\*", "a", False), ("a", "a\n", False),
])  # fmt: skip
def test_a_glob_of_a_source(text, path, matches):
    assert glob(text, "COPY")(path) is matches


PATTERNS = st.lists(st.text("ab*?/!.[]^-\\", max_size=8), max_size=4)
PATHS = st.text("ab./", min_size=1, max_size=8).filter(lambda path: clean(path) == path and path[0] not in "./")


@given(PATTERNS, st.lists(PATHS, max_size=4))
def test_any_list_is_read_or_refused(texts, paths):
    try:
        patterns = patterns_of(texts, "--exclude")
    except BuildError:
        return
    for path in paths:
        matched = is_matched(patterns, path)
        decides = patterns.deciding(path)
        assert matched == (decides is not None and not decides.is_exception)


@given(st.text("ab*?.", min_size=1, max_size=6), st.text("ab.", min_size=1, max_size=6))
def test_within_a_directory_a_glob_is_the_shells(text, path):
    assert glob(text, "COPY")(path) == bool(re.fullmatch(fnmatch.translate(text), path))


@given(
    st.lists(st.sampled_from(["a", "b", "*", "**", "?", "a/b", "*/a", "**/b", "!a", "!**/b", "!a/b"]), max_size=5),
    PATHS,
)
def test_a_directory_is_pruned_only_if_nothing_in_it_comes_back(texts, path):
    patterns = patterns_of(texts, "--exclude")
    directory = path.rpartition("/")[0]
    if directory and is_matched(patterns, directory) and not is_matched(patterns, path):
        assert patterns.may_except_below(directory)


def test_wildcards():
    assert [text for text in ("a", "a*", "a?", "[a]", r"a\*", r"a\\*") if has_wildcards(text)] == [
        "a*",
        "a?",
        "[a]",
        r"a\\*",
    ]
