"""The values of build options, in Docker's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from minibox.build.words import annotation_of, label_of, secret_of
from minibox.errors import UsageError


@pytest.mark.parametrize(
    ("text", "pair"), [("a=b", ("a", "b")), ("a=b=c", ("a", "b=c")), ("a=", ("a", "")), ("a", ("a", ""))]
)
def test_a_label_needs_no_value(text: str, pair: tuple[str, str]) -> None:
    assert label_of(text) == pair


def test_a_label_needs_a_name() -> None:
    with pytest.raises(UsageError, match="invalid --label '=b'"):
        label_of("=b")


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a=b", ("a", "b")),
        ("manifest:a=b", ("a", "b")),
        ("manifest:a:b=c:d", ("a:b", "c:d")),
        ("a=index:b", ("a", "index:b")),
    ],
)
def test_an_annotation_is_the_manifests(text: str, pair: tuple[str, str]) -> None:
    assert annotation_of(text) == pair


@pytest.mark.parametrize("kind", ["index", "manifest-descriptor", "manifest[linux/amd64]", "index,manifest", "x"])
def test_an_annotation_of_something_else_is_refused_by_name(kind: str) -> None:
    with pytest.raises(UsageError) as refused:
        annotation_of(f"{kind}:a=b")
    assert str(refused.value) == f"--annotation '{kind}:a=b': {kind!r} is not supported"


def test_a_secret_is_there_when_the_build_begins(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert secret_of(f"id=s,src={tmp_path}/file", {}) == ("s", "src", f"{tmp_path}/file")
    with pytest.raises(UsageError, match=f"{tmp_path}/none: No such file or directory"):
        secret_of(f"id=s,src={tmp_path}/none", {})
    with pytest.raises(UsageError, match="nowhere: No such file or directory"):
        secret_of("id=nowhere", {})
    assert secret_of("id=nowhere", {"nowhere": "x"}) == ("nowhere", "env", "nowhere")
