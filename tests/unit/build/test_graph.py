"""Stages: what each is based on and reads from, what a target needs, and which variables hold where."""

from __future__ import annotations

from typing import Any

import pytest

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.parser import parse
from minibox.build.graph import Graph, Origin, plan
from minibox.errors import DockerfileError
from minibox.image.platform import Platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def graph(text: str, **options: Any) -> Graph:
    return Graph(parse(text), **{"build_platform": AMD64, **options})


def resolved(graph: Graph, env: dict[str, str] | None = None) -> list[list[Any]]:
    """The instructions of all stages after substitution; ``env`` is what each base image has."""
    scopes: dict[int, Any] = {}
    found = []
    for stage in graph.stages:
        parent = scopes.get(-1 if stage.base.stage is None else stage.base.stage)
        scope = scopes[stage.index] = graph.scope(stage, (parent.env if parent else env or {}).items(), parent)
        found.append([scope.resolve(instruction) for instruction in stage.instructions])
    return found


def labels(text: str, env: dict[str, str] | None = None, **options: Any) -> dict[str, str]:
    """All labels of a Dockerfile, which show what variables there are."""
    lines = [line for stage in resolved(graph(text, **options), env) for line in stage]
    return dict(pair for line in lines if isinstance(line, kinds.Label) for pair in line.pairs)


THREE = """
FROM base AS one
FROM golang AS two
COPY --from=one /a /b
FROM ONE AS three
RUN --mount=from=Two,target=/m x
FROM base AS four
COPY --from=2 / /
COPY --from=debian:12 / /
COPY --from=extra / /
"""


def test_what_a_target_needs_in_order():
    assert [stage.name for stage in graph(THREE).needed()] == ["one", "two", "three", "four"]
    assert [stage.name for stage in graph(THREE, target="TWO").needed()] == ["one", "two"]
    assert [stage.name for stage in plan(parse(THREE), target="0")] == ["one"]


def test_what_names_mean():
    stages = graph(THREE, contexts=["extra"]).stages
    assert stages[2].base == Origin("stage", "one", 0)
    assert dict(stages[2].reads) == {"Two": Origin("stage", "two", 1)}
    assert dict(stages[3].reads) == {
        "2": Origin("stage", "three", 2),
        "debian:12": Origin("image", "debian:12"),
        "extra": Origin("context", "extra"),
    }
    assert graph("FROM scratch").stages[0].base == Origin("scratch", "scratch")


def test_a_named_context_replaces_a_stage_and_an_image():
    stages = graph(
        "FROM debian AS one\nRUN x\nFROM debian:latest\nCOPY --from=one a b", contexts=["one", "debian"]
    ).stages
    assert (stages[0].base, stages[0].instructions) == (Origin("context", "one"), ())
    assert stages[1].base == Origin("context", "debian")
    assert stages[1].needs == (0,)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("FROM a AS one", {"target": "on"}, "Dockerfile: it has no stage 'on'"),
        ("FROM a AS one", {"target": "1"}, "Dockerfile: it has no stage '1'"),
        ("FROM a AS one\nCOPY --from=one a b", {}, "2:13: stages need each other: one -> one"),
        (
            "FROM a AS one\nCOPY --from=three a b\nFROM a AS two\nCOPY --from=one a b\nFROM two AS three",
            {},
            "2:13: stages need each other: one -> three -> two -> one",
        ),
        ("FROM a AS one\nCOPY --from=1 a b\nFROM b", {}, "2:13: stage '1' is defined after stage 'one'"),
        ("FROM a\nCOPY --from=7 a b", {}, "2:13: there is no stage 7"),
        ("FROM a\nCOPY --from=A:: a b", {}, "2:13: 'A::' is neither a stage nor an image"),
        ("FROM $X", {}, r"1:6: the image in FROM is empty: \$X"),
        ("FROM a:${X?which}", {}, "1:6: X: which"),
        ("FROM --platform=$X a", {}, "the platform in FROM is empty"),
        ("FROM --platform=a/b/c/d a", {}, "invalid platform"),
        ("ARG X=${\nFROM a", {}, "Dockerfile:1:"),
        ("FROM a AS one\nONBUILD COPY --from=2 a b\nFROM one\nFROM c", {}, "3:1: stage '2' is defined after stage '1'"),
    ],
)
def test_what_is_refused(text, options, message):
    with pytest.raises(DockerfileError, match=message):
        graph(text, **options)


def test_an_image_named_like_a_later_stage_is_an_image():
    assert graph("FROM two AS one\nFROM base AS two").stages[0].base == Origin("image", "two")


def test_the_hint_for_an_argument_without_value():
    with pytest.raises(DockerfileError) as caught:
        graph("ARG X\nFROM $X")
    assert caught.value.hint == "give X a value: ARG X=VALUE before the first FROM, or --build-arg X=VALUE"


def test_arguments_before_from():
    text = "ARG A=1\nARG B=$A.2 C\nFROM base:${B}${C:-no}"
    assert graph(text).stages[0].base.name == "base:1.2no"
    assert graph(text, build_args={"A": "3", "C": ""}).stages[0].base.name == "base:3.2no"


def test_a_platform_from_an_argument():
    stage = graph("FROM --platform=$BUILDPLATFORM base", platform=ARM64).stages[0]
    assert stage.platform == AMD64


def test_platform_arguments_count_where_they_are_declared():
    text = "FROM base AS x\nLABEL a=$TARGETARCH\nARG TARGETARCH BUILDARCH TARGETSTAGE\n"
    text += "LABEL b=$TARGETARCH.$BUILDARCH.$TARGETSTAGE"
    assert labels(text, platform=ARM64) == {"a": "", "b": "arm64.amd64.x"}


def test_an_argument_holds_from_its_line_to_the_end_of_its_stage():
    text = "ARG G=global\nFROM a AS one\nLABEL a=$A$G\nARG A=1 G\nLABEL b=$A$G\nFROM a\nLABEL c=$A$G\nARG G=own\nLABEL d=$G"
    assert labels(text) == {"a": "", "b": "1global", "c": "", "d": "own"}
    assert labels(text, build_args={"A": "2", "G": "g"}) == {"a": "", "b": "2g", "c": "", "d": "g"}


def test_a_stage_from_a_stage_has_its_arguments_and_variables():
    text = "FROM a AS one\nARG A=1\nENV E=e\nFROM one\nLABEL x=$A$E"
    assert labels(text) == {"x": "1e"}


def test_env_takes_the_values_from_before_its_line():
    assert labels("FROM a\nENV A=1\nENV A=2 B=$A\nLABEL x=$A$B", {}) == {"x": "21"}


def test_the_base_images_env_can_be_used():
    assert labels("FROM a\nENV P=$HOME/bin\nLABEL x=$P", {"HOME": "/root"}) == {"x": "/root/bin"}


def test_only_env_goes_into_the_image():
    built = graph("FROM a\nARG A=1\nENV E=$A")
    scope = built.scope(built.stages[0], [("BASE", "b")])
    for instruction in built.stages[0].instructions:
        scope.resolve(instruction)
    assert scope.env == {"BASE": "b", "PATH": scope.env["PATH"], "E": "1"}
    assert scope.arguments == {"A": "1"}


@pytest.mark.parametrize(
    "line",
    ["RUN echo $A", "CMD echo $A", 'CMD ["$A"]', "ENTRYPOINT $A", 'SHELL ["$A"]', "HEALTHCHECK CMD $A", "MAINTAINER $A",
     "ONBUILD USER $A"],
)  # fmt: skip
def test_where_nothing_is_substituted(line):
    ((_, result),) = resolved(graph(f"FROM a\nARG A=1\n{line}"))
    assert result == parse(f"FROM a\nARG A=1\n{line}").instructions[-1]


def test_where_variables_are_substituted():
    text = """FROM a
ARG A=v P=8080 M=0600
ADD --chown=$A --checksum=$A $A.tar /$A
COPY --chown=$A:$A --chmod=$M --exclude=$A $A /$A
COPY <<E <<'Q' /$A
$A
E
$A
Q
EXPOSE $P/tcp
STOPSIGNAL ${N:-TERM}
USER $A
VOLUME /$A ["/x"]
WORKDIR /$A
LABEL $A=$A
RUN --mount=type=cache,target=/$A,id=$A,uid=$P --mount=type=secret,id=$A --network=${N:-none} echo $A
"""
    ((_, add, copy, heredocs, expose, stop, user, volume, workdir, label, run),) = resolved(graph(text))
    assert (add.sources, add.destination, add.chown, add.checksum) == (("v.tar",), "/v", "v", "v")
    assert (copy.sources, copy.destination, copy.chown, copy.chmod) == (("v",), "/v", "v:v", "0600")
    assert [each.text for each in heredocs.heredocs] == ["v\n", "$A\n"]
    assert (expose.ports, stop.signal, user.user) == (("8080/tcp",), "TERM", "v")
    assert (volume.paths, workdir.path, label.pairs) == (("/v", "[/x]"), "/v", (("v", "v"),))
    assert [(each.target, each.id, each.uid) for each in run.mounts] == [("/v", "v", 8080), ("", "v", None)]
    assert (run.network, run.command.words) == ("none", ("echo $A",))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COPY --chmod=$A a b", "invalid --chmod 'v'"),
        ("RUN --network=$A x", "unknown --network 'v'"),
        ("RUN --mount=type=$A x", "unknown mount type 'v'"),
        ("ENV $B=1", "empty after substitution"),
        ("VOLUME $B", "empty after substitution"),
        ("USER ${A", "'}' is missing"),
    ],
)
def test_what_is_found_only_after_substitution(line, message):
    with pytest.raises(DockerfileError, match=f"Dockerfile:3:.*{message}"):
        resolved(graph(f"FROM a\nARG A=v\n{line}"))


@pytest.mark.parametrize(
    ("text", "options", "notices"),
    [
        ("# syntax=docker/dockerfile:1\nFROM a", {}, []),
        ("# syntax=docker.io/docker/dockerfile:1.7-labs@sha256:" + "a" * 64 + "\nFROM a", {}, []),
        (
            "# syntax=example/other:1 with words\nFROM a",
            {},
            ["Dockerfile: syntax=example/other:1 has no effect: minibox reads Docker's own language"],
        ),
        ("ARG A\nFROM a\nARG B\nONBUILD ARG C", {"build_args": dict.fromkeys(["A", "B", "C"], "")}, []),
        ("FROM a", {"build_args": {"http_proxy": "", "TARGETARCH": "", "BUILDKIT_INLINE_CACHE": "1"}}, []),
        ("FROM a", {"build_args": {"X": "1"}}, ["--build-arg X has no effect: no ARG X takes it"]),
        (
            "FROM a\nARG VERSION",
            {"build_args": {"VERSOIN": "1"}},
            ["--build-arg VERSOIN has no effect: did you mean VERSION?"],
        ),
    ],
)
def test_what_has_no_effect_is_told(text, options, notices):
    assert graph(text, **options).notices() == notices


def test_triggers_of_a_stage_run_first_in_the_stage_from_it():
    text = "FROM x AS zero\nFROM a AS one\nONBUILD RUN first\nONBUILD COPY --from=zero a b\nFROM one AS two\nRUN own"
    built = graph(text)
    assert [each.text for each in built.stages[2].instructions] == ["RUN first", "COPY --from=zero a b", "RUN own"]
    assert [each.span.first for each in built.stages[2].instructions] == [5, 5, 6]
    assert [stage.name for stage in built.needed()] == ["zero", "one", "two"]


def test_triggers_of_an_image_may_need_further_stages():
    built = graph("FROM a AS tools\nFROM b\nRUN own")
    assert [stage.index for stage in built.needed()] == [1]
    stage = built.add_triggers(1, ["COPY --from=tools /x /y", "RUN cat <<E\n1\nE"])
    assert [type(each).__name__ for each in stage.instructions] == ["Copy", "Run", "Run"]
    run = stage.instructions[1]
    assert isinstance(run, kinds.Run)
    assert run.heredocs[0].content == "1\n"
    assert [stage.index for stage in built.needed()] == [0, 1]


@pytest.mark.parametrize("trigger", ["ONBUILD RUN x", "FROM b", "MAINTAINER me", "RUN x\nRUN y", "", "RNU x"])
def test_a_trigger_that_is_none(trigger):
    with pytest.raises(DockerfileError, match="Dockerfile:1:1: the base image's ONBUILD"):
        graph("FROM b").add_triggers(0, [trigger])
