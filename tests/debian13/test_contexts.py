"""Docker 26 selects the same files of a context, too, but for one kind of exception in .dockerignore."""

from __future__ import annotations

from pathlib import Path

from tests.engines import Docker
from tests.interop.test_build_contexts import (
    IGNORED,
    dockers,
    ours,
    test_a_malformed_pattern,
    test_a_missing_source,
    test_the_sources_of_copy,
    tree,
)
from tests.probes import requires

__all__ = ["test_a_malformed_pattern", "test_a_missing_source", "test_the_sources_of_copy", "tree"]
pytestmark = requires("root", "command:mmdebstrap", "command:iptables", "command:busybox")

#: By patterns, what Docker 20.10 and minibox take and Docker 26 doesn't. While it walks through directories it forgets an
#: exception that matches one which nothing has left out, so that its files aren't taken back in (moby/patternmatcher,
#: MatchesUsingParentResults). Docker's documentation says that the last pattern decides.
ONLY_OURS = {"**/*.go\n!g/h/i\n": {"0/g/h/i/c.go"}}


def test_ignored_files(engine: Docker, tree: Path) -> None:
    for lines in IGNORED:
        (tree / ".dockerignore").write_text(lines)
        found, theirs = ours(tree, ["."]), dockers(engine, tree, ["COPY . /0/"])
        assert found.keys() - theirs.keys() == ONLY_OURS.get(lines, set()), lines
        assert {**found, **theirs} == found, lines
