"""What is found again, over contexts and Dockerfiles, what isn't, and what `--why` says about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.integration.build.conftest import Builder, cached

TEXT = """\
FROM base
ARG VERSION=1
RUN echo $VERSION > /version
COPY a b /files/
RUN cat /files/a > /copy
"""


def whys(builder: Builder, text: str, *words: str) -> str:
    return "\n".join(builder.ok(text, "--why", *words))


def test_a_line_is_found_from_another_directory_and_another_dockerfile(
    builder: Builder, new_context: Callable[[], Path]
) -> None:
    builder.file("a", "a")
    builder.file("b", "b")
    builder.ok(TEXT)
    other = Builder(builder.box, new_context())
    other.file("a", "a")
    other.file("b", "b")
    os.utime(other.context / "a", (1, 1))
    lines = other.ok("# another\nFROM base\nLABEL new=1\n" + TEXT.removeprefix("FROM base\n"), "--why")
    assert cached(lines)[1:] == [True, True, True]
    assert any("reused from Dockerfile:" in line for line in lines)


def test_a_file_that_changes_and_keeps_size_and_time_counts(builder: Builder) -> None:
    path = builder.file("a", "a")
    builder.file("b", "b")
    builder.ok(TEXT)
    before = path.stat()
    path.write_text("A")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    said = whys(builder, TEXT)
    assert "a: content" in said
    assert builder.sh("cat /copy") == "A"


def test_why_names_what_has_changed(builder: Builder) -> None:
    builder.file("a", "a")
    builder.file("b", "b")
    assert "never built before" in whys(builder, TEXT)
    assert "arg VERSION is '2', was '1'" in whys(builder, TEXT, "--build-arg", "VERSION=2")
    (builder.context / "b").chmod(0o755)
    assert "b: mode 755, was 644" in whys(builder, TEXT)
    assert "--no-cache" in whys(builder, TEXT, "--no-cache")
    builder.file("a", "another")
    said = whys(builder, TEXT)
    assert "a: content" in said and "what is below it has changed" in said


def test_what_a_stage_reads_counts_by_content(builder: Builder) -> None:
    text = "FROM base AS one\nRUN echo {} > /other && echo same > /file\nFROM base\nCOPY --from=one /file /\nRUN true\n"
    builder.ok(text.format(1))
    assert cached(builder.ok(text.format(2)))[-2:] == [True, True]


def test_pruned_lines_are_made_again_and_images_keep_their_layers(builder: Builder) -> None:
    builder.file("a", "a")
    builder.file("b", "b")
    builder.ok(TEXT)
    assert "RUN cat /files/a > /copy" in builder.box.ok("builder", "du")
    builder.box.ok("builder", "prune", "--force", "--all")
    assert "RUN" not in builder.box.ok("builder", "du")
    assert builder.sh("cat /copy /version") == "a1"
    assert "was pruned" in whys(builder, TEXT)
    builder.box.ok("rmi", "-f", "built")
    builder.box.ok("builder", "prune", "--force", "--all")
    builder.box.ok("rmi", "-f", "base")
    builder.box.ok("image", "prune", "--force")
    layers = Path(builder.box.directory, "root", "layers")
    assert [each.name for each in layers.iterdir() if each.name.strip("0") != "b01d"] == []


def test_the_rules_are_checked_without_building(builder: Builder) -> None:
    done = builder.run("FROM base as one\nMAINTAINER me\nCMD echo\n", "--check")
    assert done.returncode == 1
    assert "WARNING: FromAsCasing" in done.stdout and "Dockerfile:1" in done.stdout
    assert builder.run('FROM base\nCMD ["sh"]\n', "--check").stdout == "Check complete, no warnings found.\n"
    assert builder.box("image", "inspect", "built").returncode != 0


def test_what_is_not_built_is_refused_by_name(builder: Builder) -> None:
    for words in (
        ["--cache-to", "type=gha"],
        ["--sbom", "true"],
        ["--output", "type=cacheonly"],
        ["--network", "mine"],
    ):
        done = builder.run("FROM base\n", *words)
        assert done.returncode == 125 and words[0] in done.stderr, done.stderr
