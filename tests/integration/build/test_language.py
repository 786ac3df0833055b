"""The language in real builds: variables, stages, heredocs; what is told of a Dockerfile, and its mistakes."""

from __future__ import annotations

import io
import tarfile

import pytest

from tests.integration.build.conftest import Builder


def test_variables_go_where_docker_has_them(builder: Builder) -> None:
    builder.file("one.txt", "1")
    builder.ok(
        """\
ARG BASE=base NAME=unset
FROM ${BASE} AS one
ARG NAME TARGETARCH
ENV GREET="hello ${NAME:?}" TAIL=${NAME%.*} LATER=\\$GREET
WORKDIR /srv/$TAIL
COPY ${NAME/two/one} $GREET.txt
RUN echo "$NAME|$GREET|$LATER|${UNSET-shell}|$TARGETARCH" > said
FROM one
ARG NAME=other
RUN echo "$NAME" >> said
LABEL name=$NAME tail='$TAIL' ${TAIL}=x
""",
        "--build-arg",
        "NAME=two.txt",
    )
    labels = builder.config()["Labels"]
    assert {name: labels.get(name) for name in ("name", "tail", "two")} == {
        "name": "two.txt",
        "tail": "$TAIL",
        "two": "x",
    }
    said = builder.sh("cd '/srv/two'; cat 'hello two.txt.txt'; echo; cat said").splitlines()
    assert said[0] == "1"
    assert said[1].startswith("two.txt|hello two.txt|$GREET|shell|")
    assert said[1].split("|")[-1]
    assert said[2] == "two.txt"
    assert "NAME=two.txt" not in builder.config()["Env"]


def test_heredocs_as_scripts_files_and_input(builder: Builder) -> None:
    builder.ok("""\
FROM base
ARG WHO=me
RUN <<EOF
set -e
echo "one $WHO" > /said
EOF
RUN <<-'EOF'
	#!/bin/sh
	echo "two $0" >> /said
	EOF
RUN cat <<A >> /said && cat <<-'B' >> /said
three $WHO
A
	four $WHO
	B
COPY <<expanded <<'raw' /files/
five $WHO \\$WHO it's
expanded
six $WHO
raw
""")
    assert builder.sh("cat /said /files/expanded /files/raw").splitlines() == [
        "one me",
        "two /dev/pipes/EOF",
        "three me",
        "four $WHO",
        "five me $WHO it's",
        "six $WHO",
    ]


def test_mounts_are_relative_to_the_working_directory(builder: Builder) -> None:
    builder.file("a/f", "content")
    builder.ok("""\
FROM base
ARG DIRECTORY=a
WORKDIR /w
RUN --mount=type=bind cat a/f > /one
RUN --mount=source=$DIRECTORY,target=b cat b/f > /two
RUN --mount=type=tmpfs,target=c touch c/gone
""")
    assert builder.sh("cat /one /two; ls -R /w | grep gone || true") == "contentcontent"
    error = builder.refused("FROM base\nRUN --mount=target=. true\n")
    assert "Dockerfile:2" in error and "destination can't be '/'" in error


def test_what_has_no_effect_and_what_the_rules_find_is_told(builder: Builder) -> None:
    text = "# syntax=example/other:1\nFROM base\nARG VERSION\nENV a b\n"
    told = [line for line in builder.ok(text, "--build-arg", "VERSOIN=1") if line.startswith("minibox: ")]
    assert told == [
        "minibox: Dockerfile: syntax=example/other:1 has no effect: minibox reads Docker's own language",
        "minibox: --build-arg VERSOIN has no effect: did you mean VERSION?",
        'minibox: Dockerfile:4:5: LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy '
        '"ENV key value" format',
    ]
    assert "lint violation found for rules: LegacyKeyValueFormat" in builder.refused(
        "# check=error=true\nFROM base\nENV a b\n"
    )
    builder.ok("# check=skip=all;error=true\nFROM base\nENV a b\n")


def test_a_check_tells_findings_and_mistakes(builder: Builder) -> None:
    builder.file("Dockerfile", "FROM base\nENV a b\nCOPY --from=later x y\nFROM base AS later\n")
    done = builder.box("build", "--check", str(builder.context))
    assert done.returncode == 1
    assert "WARNING: LegacyKeyValueFormat" in done.stdout
    assert "Dockerfile:3:13: stage 'later' is defined after stage '0', which reads it" in done.stderr
    builder.file("Dockerfile", "FROM base\nCOPY --from=1 x y\n")
    done = builder.box("build", "--check", str(builder.context))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Dockerfile:2:13: there is no stage 1" in done.stderr


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "FROM base\nRUN a && \\\n  b\nCOPPY a b\n",
            "Dockerfile:4:1: unknown instruction 'COPPY'",
            "did you mean COPY?",
        ),
        ("FROM base\nWORKDIR ${A\n", "Dockerfile:2:9: '}' is missing in '${A'", ""),
        ("FROM $X\n", "Dockerfile:1:6: the image in FROM is empty: $X", "give X a value: ARG X=VALUE before the first"),
        (
            "FROM base AS a\nCOPY --from=b x y\nFROM base AS b\nCOPY --from=a x y\n",
            "Dockerfile:2:13: stages need each other: a -> b -> a",
            "copy in one direction",
        ),
        ("FROM base\nRUN <<EOF\necho\n", "Dockerfile:2:5: the heredoc EOF has no end", "end it with a line EOF"),
    ],
)
def test_a_mistake_is_told_with_its_place(builder: Builder, text: str, message: str, hint: str) -> None:
    error = builder.refused(text)
    assert f"minibox: {message}" in error
    assert hint in error


@pytest.mark.parametrize(
    ("lines", "config", "directory"),
    [
        (("/d/../e/./f/",), "/d/../e/./f/", "/e/f"),
        (("/a/", "b/"), "/a/b", "/a/b"),
        (("//x//y",), "//x//y", "/x/y"),
        (("/a/b/", ".."), "/a", "/a"),
        ((".",), "/", "/"),
        (("/q/.", "./z/"), "/q/z", "/q/z"),
    ],
)
def test_a_working_directory_is_named_as_docker_26_names_it(
    lines: tuple[str, ...], config: str, directory: str, builder: Builder
) -> None:
    """Its config has an absolute path as it is written, and a relative one joined to that before."""
    text = "".join(f"WORKDIR {line}\n" for line in lines)
    builder.ok(f"FROM base\n{text}RUN pwd > /seen\n")
    assert builder.config()["WorkingDir"] == config
    assert builder.sh("cat /seen; pwd").split() == [directory] * 2


@pytest.mark.parametrize("words", [("-q",), ("--progress", "quiet")])
def test_a_quiet_build_prints_the_id(words: tuple[str, ...], builder: Builder) -> None:
    done = builder.run("FROM base\nLABEL a=b\n", *words)
    assert (done.stdout.strip(), done.stderr) == (builder.image()["Id"], "")


@pytest.mark.parametrize(
    ("user", "owner"),
    [
        ("7:8", "7:8"),
        ("guest", "7:8"),
        ("7", "7:7"),
        ("99", "99:99"),
        ("guest:root", "7:0"),
        ("7:guests", "7:8"),
        ("$NUMBER", "7:7"),
        ("root", "0:0"),
        ("nosuch", "0:0"),
        ("guest:nosuch", "7:8"),
    ],
)
def test_a_working_directory_is_made_for_the_user(user: str, owner: str, builder: Builder) -> None:
    """As Docker 20.10 and 26.1 and buildah 1.39 make it: with all directories above it that are missing."""
    builder.ok(
        f"""\
FROM base
ENV NUMBER=7
RUN mkdir /there && echo guest:x:7:8::/:/bin/sh >> /etc/passwd && echo guests:x:8: >> /etc/group
USER {user}
WORKDIR /there/a
WORKDIR b
COPY Dockerfile /copied/
USER 0
"""
    )
    assert builder.sh("stat -c %u:%g /there /there/a /there/a/b /copied").split() == ["0:0", owner, owner, "0:0"]


def test_a_working_directory_that_is_there_keeps_its_owner(builder: Builder) -> None:
    builder.ok("FROM base\nRUN mkdir /there && chown 3:4 /there\nUSER 7:8\nWORKDIR /there\nUSER 0\n")
    assert builder.sh("stat -c %u:%g /there") == "3:4"


def test_the_user_is_part_of_a_working_directorys_key(builder: Builder) -> None:
    for user in ("7:8", "9:10"):
        builder.ok(f"FROM base\nUSER {user}\nWORKDIR /there\nUSER 0\n")
        assert builder.sh("stat -c %u:%g /there") == user


@pytest.mark.parametrize("output", ["-", "type=tar", "type=tar,dest=-"])
def test_files_go_to_standard_output(output: str, builder: Builder) -> None:
    builder.file("a", "content")
    builder.file("Dockerfile", "FROM scratch\nCOPY a /\n")
    done = builder.box("build", "-o", output, str(builder.context), text=False)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert [(each.name, each.size) for each in tar] == [("a", 7)]
