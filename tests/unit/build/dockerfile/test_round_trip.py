"""Round trips: what is written in Docker's language is read as it was meant."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.heredocs import Heredoc
from minibox.build.dockerfile.instructions import Command
from minibox.build.dockerfile.parser import parse
from minibox.build.dockerfile.substitute import substitute
from minibox.build.graph import Graph

NAMES = st.text("abcXYZ_019", min_size=1, max_size=6).filter(lambda name: not name[0].isdigit())
TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"], blacklist_characters="\x85"), max_size=12)
WORDS = st.text(
    st.characters(whitelist_categories=["Ll", "Lu", "Nd"], whitelist_characters="./:@=,+"), min_size=1, max_size=8
)
CONTENTS = st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=8).filter(lambda line: line != "END"),
                    max_size=3).map(lambda lines: "".join(f"{line}\n" for line in lines))  # fmt: skip


def quoted(text: str) -> str:
    """A value that means ``text``, whatever is in it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


def read(text: str) -> Any:
    return parse(f"FROM a\n{text}\n").instructions[-1]


@given(st.lists(st.tuples(NAMES, TEXTS), min_size=1, max_size=4), st.sampled_from(["ENV", "LABEL"]))
def test_names_and_values(pairs, keyword):
    line = " ".join([keyword, *(f"{name}={quoted(value)}" for name, value in pairs)])
    graph = Graph(parse(f"FROM a\n{line}"))
    found: Any = graph.scope(graph.stages[0], ()).resolve(graph.stages[0].instructions[0])
    assert list(found.pairs) == pairs


@given(TEXTS)
def test_quotes_are_undone(text):
    assert substitute(quoted(text), {"a": "x"}) == text


@given(st.lists(TEXTS, min_size=1, max_size=4), st.sampled_from(["CMD", "ENTRYPOINT", "HEALTHCHECK CMD"]))
def test_a_command_as_json(words, keyword):
    if not any(words):
        words = ["x", *words]
    assert read(f"{keyword} {json.dumps(words)}").command == Command(tuple(words), shell=False)


@given(st.lists(WORDS, min_size=2, max_size=4), st.booleans(), st.booleans(), st.lists(WORDS, max_size=2))
def test_copy(words, link, as_json, exclude):
    flags = [f"--exclude={pattern}" for pattern in exclude] + ["--link"] * link
    text = " ".join(["COPY", *flags, json.dumps(words) if as_json else " ".join(words)])
    copy = read(text)
    assert (copy.sources, copy.destination) == (tuple(words[:-1]), words[-1])
    assert (copy.link, copy.exclude, copy.text) == (link, tuple(exclude), text)


@given(
    st.lists(st.tuples(CONTENTS, st.booleans(), st.booleans()), min_size=1, max_size=3),
    st.sampled_from(["COPY", "RUN cat"]),
)
def test_heredocs(parts, keyword):
    begins, bodies, meant = [], [], []
    for number, (content, expand, chomp) in enumerate(parts):
        name = f"END{number}"
        begins.append(f"<<{'-' if chomp else ''}{name if expand else quoted(name)}")
        bodies.append(f"{content}{name}\n")
        meant.append(Heredoc(name, content, expand, chomp))
    assert list(read(f"{keyword} {' '.join(begins)} /x\n{''.join(bodies)}").heredocs) == meant


@given(st.lists(st.sampled_from(["RUN a b", "ENV A=b", "# comment", "", "  RUN c", "COPY a b"]), max_size=8), st.data())
def test_continuations_and_comments_change_nothing(lines, data):
    plain = parse("\n".join(["FROM a", *lines])).instructions
    broken = []
    for line in lines:
        if line and not line.startswith("#") and data.draw(st.booleans()):
            keyword, rest = line.split(" ", 1) if not line.startswith(" ") else (line[:5], line[6:])
            line = f"{keyword} \\\n# in between\n{rest}"
        broken.append(line)
    assert [each.text.split() for each in parse("\n".join(["FROM a", *broken])).instructions] == [
        each.text.split() for each in plain
    ]


@given(st.lists(st.tuples(NAMES, st.none() | WORDS), min_size=1, max_size=3))
def test_a_trigger_means_what_the_line_means(pairs):
    line = "ARG " + " ".join(name if value is None else f"{name}={value}" for name, value in pairs)
    onbuild = read(f"ONBUILD {line}")
    assert onbuild.trigger == line
    assert isinstance(onbuild.instruction, kinds.Arg)
    assert onbuild.instruction.pairs == read(line).pairs == tuple(pairs)
