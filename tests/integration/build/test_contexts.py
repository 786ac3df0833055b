"""Where contexts and Dockerfiles come from, and where results go."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.integration.build.conftest import Builder

TEXT = "FROM base\nCOPY a /a\n"


def test_a_tar_on_standard_input_is_a_context(builder: Builder) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, text in (("Dockerfile", TEXT), ("a", "from a tar")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    done = builder.box("build", "-t", "built", "-", input=data.getvalue(), text=False)
    assert done.returncode == 0, done.stderr
    assert builder.sh("cat /a") == "from a tar"


def test_a_dockerfile_on_standard_input(builder: Builder) -> None:
    builder.file("a", "beside")
    done = builder.box("build", "-t", "built", "-f", "-", str(builder.context), input=TEXT)
    assert done.returncode == 0, done.stderr
    assert builder.sh("cat /a") == "beside"
    done = builder.box("build", "-t", "built", "-", input="FROM base\nRUN echo alone > /a\n")
    assert done.returncode == 0, done.stderr
    assert builder.sh("cat /a") == "alone"


def test_ignored_files_are_not_there(builder: Builder) -> None:
    builder.file("a", "a")
    builder.file("b.log", "b")
    builder.file("d/c.log", "c")
    builder.file("d/keep.log", "k")
    builder.file(".dockerignore", "**/*.log\n!d/keep.log\nDockerfile\n")
    builder.ok("FROM base\nCOPY . /all\n")
    assert builder.sh("cd /all && find . -type f | sort").splitlines() == ["./.dockerignore", "./a", "./d/keep.log"]
    assert "ignores it" in builder.refused("FROM base\nCOPY b.log /\n")


def test_named_contexts(builder: Builder, new_context: Callable[[], Path]) -> None:
    other = new_context()
    (other / "a").write_text("other")
    words = ("--build-context", f"other={other}", "--build-context", "image=docker-image://base")
    builder.ok("FROM image\nCOPY --from=other a /a\nRUN --mount=from=other,target=/o cat /o/a > /b\n", *words)
    assert builder.sh("cat /a /b") == "otherother"


def test_ids_and_digests_go_to_files(builder: Builder) -> None:
    builder.file("a", "a")
    words = (
        "--iidfile",
        f"{builder.context}/id",
        "--metadata-file",
        f"{builder.context}/metadata",
        "-q",
        "-t",
        "two:2",
    )
    done = builder.run(TEXT, *words, "--label", "x=y")
    assert done.returncode == 0, done.stderr
    found = builder.image()["Id"]
    assert (builder.context / "id").read_text() == found == done.stdout.strip()
    metadata = json.loads((builder.context / "metadata").read_text())
    assert metadata["containerimage.config.digest"] == found
    assert metadata["image.name"] == "docker.io/library/built:latest,docker.io/library/two:2"
    assert builder.config()["Labels"]["x"] == "y"


def test_a_source_outside_of_the_context_is_refused(builder: Builder) -> None:
    (builder.context / "link").symlink_to("/etc/passwd")
    assert "Dockerfile:2" in builder.refused("FROM base\nCOPY ../x /\n")
    assert "Dockerfile:2" in builder.refused("FROM base\nCOPY link/ /x/\n")


def test_progress_as_json(builder: Builder) -> None:
    done = builder.run("FROM base\nRUN echo said\n", "--progress", "rawjson", "--network", "none")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [each["event"] for each in events] == [
        "LineStarted", "LineEnded", "LineStarted", "LineOutput", "LineEnded", "ImageMade",
    ]  # fmt: skip
    assert events[3]["data"] == "said\n"
