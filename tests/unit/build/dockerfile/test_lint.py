"""``--check``: each rule, in Docker's words, with line and column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibox.build import graph
from minibox.build.dockerfile.lint import check, check_options
from minibox.build.dockerfile.parser import parse
from minibox.build.dockerfile.rules import RULES
from minibox.build.graph import predefined_arguments
from minibox.errors import DockerfileError, MiniboxError
from minibox.image import reference
from minibox.image.platform import Platform

AMD64 = Platform("linux", "amd64")


def is_image(name: str) -> bool:
    try:
        reference.parse(name)
    except MiniboxError:
        return False
    return True


def findings(text: str, **options: Any) -> list[tuple[str, int, int, str]]:
    """What is found, as rule, line, column and message; experimental rules too, and base images without variables."""
    known: dict[str, Any] = {
        "build_args": {} if "check=" in text else {"BUILDKIT_DOCKERFILE_CHECK": "experimental=all"},
        "predefined": predefined_arguments(AMD64, AMD64, ""),
        "env_of": lambda image: {},
        "is_image": is_image,
    }
    found = check(parse(text), **{**known, **options})
    return [(each.rule.name, each.line, each.column, each.message) for each in found]


@pytest.mark.parametrize(
    ("text", "rule", "line", "column", "message"),
    [
        ("FROM debian AS BuilderBase", "StageNameCasing", 1, 16, "Stage name 'BuilderBase' should be lowercase"),
        ("FROM debian as builder", "FromAsCasing", 1, 13, "'as' and 'FROM' keywords' casing do not match"),
        ("FROM a\nRUN b \\\n\n c", "NoEmptyContinuation", 3, 1, "Empty continuation line"),
        (
            "FROM a\nrun b\nRUN c",
            "ConsistentInstructionCasing",
            2,
            1,
            "Command 'run' should match the case of the command majority (uppercase)",
        ),
        (
            "FROM a AS b\nFROM a AS b",
            "DuplicateStageName",
            2,
            11,
            'Duplicate stage name "b", stage names should be unique',
        ),
        (
            "FROM a AS scratch",
            "ReservedStageName",
            1,
            11,
            'Stage name should not use the same name as reserved stage "scratch"',
        ),
        (
            "FROM a\n  ENTRYPOINT b c",
            "JSONArgsRecommended",
            2,
            3,
            "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals",
        ),
        (
            "FROM a\nMAINTAINER me",
            "MaintainerDeprecated",
            2,
            1,
            "Maintainer instruction is deprecated in favor of using label",
        ),
        (
            'ARG VARIANT="-x"\nFROM node:22${VARAINT} AS b',
            "UndefinedArgInFrom",
            2,
            13,
            "FROM argument 'VARAINT' is not declared (did you mean VARIANT?)",
        ),
        (
            "FROM a\nWORKDIR usr/share",
            "WorkdirRelativePath",
            2,
            9,
            'Relative workdir "usr/share" can have unexpected results if the base image changes',
        ),
        (
            "FROM a\nARG VERSION=1\nLABEL \\\n  v=$VERSIO",
            "UndefinedVar",
            4,
            5,
            "Usage of undefined variable '$VERSIO' (did you mean $VERSION?)",
        ),
        (
            'FROM a\nCMD ["b"]\nCMD ["c"]',
            "MultipleInstructionsDisallowed",
            2,
            1,
            "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
        ),
        (
            "FROM a\nENV dir /root",
            "LegacyKeyValueFormat",
            2,
            5,
            '"ENV key=value" should be used instead of legacy "ENV key value" format',
        ),
        (
            "FROM --platform=$TARGETPLATFORM a",
            "RedundantTargetPlatform",
            1,
            6,
            "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        ),
        (
            "FROM a\nARG X NPM_TOKEN",
            "SecretsUsedInArgOrEnv",
            2,
            7,
            'Do not use ARG or ENV instructions for sensitive data (ARG "NPM_TOKEN")',
        ),
        (
            "ARG TAG\nFROM busybox:${TAG}",
            "InvalidDefaultArgInFrom",
            2,
            6,
            "Default value for ARG busybox:${TAG} results in empty or invalid base image name",
        ),
        (
            "FROM --platform=linux/amd64 a AS base",
            "FromPlatformFlagConstDisallowed",
            1,
            6,
            'FROM --platform flag should not use constant value "linux/amd64"',
        ),
        (
            "FROM a\nADD x ./ignored/f b",
            "CopyIgnoredFile",
            2,
            7,
            'Attempting to Add file "ignored/f" that is excluded by .dockerignore',
        ),
        (
            "# some words\nFROM a AS base",
            "InvalidDefinitionDescription",
            2,
            1,
            "Comment for FROM should follow the format: `# base <description>`",
        ),
        (
            "FROM a\nEXPOSE 1 80/TcP",
            "ExposeProtoCasing",
            2,
            10,
            "Defined protocol '80/TcP' in EXPOSE instruction should be lowercase",
        ),
        (
            "FROM a\nEXPOSE 127.0.0.1:80:80",
            "ExposeInvalidFormat",
            2,
            8,
            "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
        ),
    ],
)
def test_each_rule(text, rule, line, column, message):
    options: dict[str, Any] = {"build_args": {"TAG": "1", "BUILDKIT_DOCKERFILE_CHECK": "experimental=all"}}
    found = findings(text, is_ignored=lambda path: path.startswith("ignored/"), **options)
    assert found == [(rule, line, column, message)]


def test_every_rule_has_a_test():
    tested = {values[1] for values in test_each_rule.pytestmark[0].args[1]}
    assert tested == set(RULES)


# What the linter tally 0.45.0, which has BuildKit 0.32.2 in it, said of each; where we say something else, and why.
SAMPLES = json.loads((Path(__file__).parent / "lint_samples.json").read_text())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["dockerfile"].replace("\n", " | ")[:60])
def test_like_buildkit(sample):
    found = sorted([rule, line] for rule, line, _, _ in findings(sample["dockerfile"]))
    assert found == sample.get("ours", sample["tally"])


def test_experimental_rules_are_off():
    assert findings("# some words\nFROM a AS base", build_args={}) == []
    assert len(findings("# check=experimental=InvalidDefinitionDescription\n\n# x y\nFROM a AS base")) == 1


def test_what_to_skip():
    text = "FROM a AS B\nMAINTAINER me"
    assert [found[0] for found in findings(f"# check=skip=StageNameCasing\n{text}")] == ["MaintainerDeprecated"]
    assert findings(f"# check=skip=all\n{text}") == []
    skip = {"BUILDKIT_DOCKERFILE_CHECK": "skip=MaintainerDeprecated,StageNameCasing"}
    assert findings(text, build_args=skip) == []


def test_a_comment_skips_a_rule_for_one_instruction():
    text = "FROM a\n# check=skip=LegacyKeyValueFormat\nENV a b\nENV c d"
    assert [found[:2] for found in findings(text)] == [("LegacyKeyValueFormat", 4)]


def test_findings_may_be_errors():
    assert check_options(parse("# check=skip=A;error=true\nFROM a"), {}).error
    assert not check_options(parse("# check=error=true\nFROM a"), {"BUILDKIT_DOCKERFILE_CHECK": ""}).error


@pytest.mark.parametrize("options", ["error=maybe", "skip", "foo=bar"])
def test_invalid_options(options):
    with pytest.raises(DockerfileError, match="Dockerfile:1: invalid check option"):
        check_options(parse(f"# check={options}\nFROM a"), {})


def test_variables_of_an_unknown_base_are_not_undefined():
    text = "FROM a AS b\nLABEL x=$HOME\nFROM b\nLABEL y=$HOME"
    assert findings(text, env_of=lambda image: None) == []
    assert findings(text, env_of=lambda image: {"HOME": "/root"}) == []
    assert [found[:3] for found in findings(text)] == [("UndefinedVar", 2, 9), ("UndefinedVar", 4, 9)]


def test_all_rules_name_their_page():
    for rule in RULES.values():
        assert rule.url.startswith("https://docs.docker.com/")


WORDS = st.sampled_from(
    "RUN COPY ADD ENV LABEL CMD ENTRYPOINT ARG EXPOSE VOLUME USER WORKDIR HEALTHCHECK FROM SHELL MAINTAINER STOPSIGNAL "
    'ONBUILD from run As AS a b $A ${A:-b} ${A ${A%*b} a=b A= \' " \\ [ ] ["a"] <<E 80 80/TCP 1:2 --from=0 --from=a '
    "--platform=$A --mount=type=cache,target=/x CMD NONE # check=skip=all / . x:y".split(" ")
)
LINES = st.lists(WORDS, max_size=6).map(" ".join)


@settings(max_examples=300)
@given(st.lists(LINES, max_size=6).map("\n".join))
def test_whatever_is_parsed_is_checked_or_refused(text):
    try:
        for rule, line, column, message in findings(f"FROM a\n{text}"):
            assert (
                rule in RULES and 1 <= line <= text.count("\n") + 2 and column >= 1 and "{" not in message.split("$")[0]
            )
    except DockerfileError:
        pass
    try:
        built = graph.Graph(parse(f"FROM a\n{text}"))
        for stage in built.needed():
            scope = built.scope(stage, ())
            for instruction in stage.instructions:
                scope.resolve(instruction)
    except DockerfileError:
        pass
