"""Mistakes in a Dockerfile: each is told with file, line, column, what is wrong and what was meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.build.dockerfile.parser import parse
from minibox.build.dockerfile.suggest import closest, did_you_mean
from minibox.errors import DockerfileError


def error_of(text: str, head: str = "FROM base\n") -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        parse(head + text, "sub/Dockerfile")
    return caught.value


@pytest.mark.parametrize(
    ("text", "place", "reason", "hint"),
    [
        ("RNU x", "2:1", "unknown instruction 'RNU'", "did you mean RUN?"),
        ("  frmo x", "2:3", "unknown instruction 'frmo'", "did you mean FROM?"),
        ("\\\n\n", "2:1", "a line is continued, but nothing follows", "remove the escape at its end"),
        ("RUN", "2:1", "RUN needs a command", 'write RUN COMMAND, or RUN ["PROGRAM", "ARGUMENT"]'),
        ("RUN --mout=x y", "2:5", "unknown flag --mout of RUN", "did you mean mount?"),
        ("RUN --mount y", "2:5", "the flag --mount of RUN needs a value", "write --mount=VALUE"),
        (
            "RUN a && \\\n b --network=x",
            None,
            "",
            "",
        ),
        ("RUN --network=x y", "2:5", "unknown --network 'x' of RUN", "known are default, none, host"),
        ("RUN --security=insecur y", "2:5", "unknown --security 'insecur' of RUN", "did you mean insecure?"),
        (
            "RUN --mount=type=cahce,target=/x y",
            "2:13",
            "unknown mount type 'cahce'",
            "did you mean cache?",
        ),
        (
            "RUN --mount=type=bind,traget=/x y",
            "2:13",
            "unknown mount option 'traget'",
            "did you mean target?",
        ),
        (
            "RUN --mount=type=bind,target=/x,mode=0700 y",
            "2:13",
            "a mount of type bind has no option 'mode'",
            "mode is for mounts of type cache or secret or ssh",
        ),
        (
            "RUN --mount=type=cache,target=/x,sharing=lockd y",
            "2:13",
            "unknown sharing 'lockd' of a cache",
            "did you mean locked?",
        ),
        (
            "RUN --mount=type=bind,from=$X,target=/x y",
            "2:13",
            "--mount from=$X can't use a variable",
            "define a stage with FROM and that variable, and name the stage",
        ),
        ("RUN --mount= y", "2:5", "--mount is empty", "write --mount=type=TYPE,target=PATH"),
        ('RUN ["a", 1]', "2:1", "1 in a JSON list is no text", "put each word in double quotes"),
        ("RUN <<EOF\nx", "2:5", "the heredoc EOF has no end", "end it with a line EOF"),
        ("ENV A", "2:5", "ENV A has no value", "write ENV A=VALUE"),
        (
            "ENV A=b \\\n  c d=e",
            "3:3",
            "'c' in ENV has no =",
            "write c=VALUE, or put the value before it in quotes if c belongs to that",
        ),
        ("LABEL =x", "2:7", "'=x' in LABEL has no name", "write LABEL NAME=VALUE"),
        ("ARG", "2:1", "ARG needs a name", "write ARG NAME or ARG NAME=DEFAULT"),
        ("COPY", "2:1", "COPY needs a source and a destination", "write COPY SOURCE... DESTINATION"),
        ("COPY a", "2:6", "COPY needs a destination after the source", "write COPY SOURCE... DESTINATION"),
        ("COPY --form=x a b", "2:6", "unknown flag --form of COPY", "did you mean from?"),
        ("ADD --from=x a b", "2:5", "unknown flag --from of ADD", "known are checksum, chown, chmod, exclude, link, "
         "keep-git-dir, unpack"),
        ("COPY --link=yes a b", "2:6", "--link is true or false, not 'yes'", "write --link"),
        ("COPY --link --link a b", "2:6", "the flag --link of COPY stands there twice", "remove one"),
        (
            "COPY --chmod=u+q a b",
            "2:6",
            "invalid --chmod 'u+q'",
            "write an octal mode such as 0755, or u=rwX,go=rX",
        ),
        (
            "COPY --from=$X a b",
            "2:6",
            "--from=$X can't use a variable",
            "define a stage with FROM and that variable, and name the stage",
        ),
        ("COPY a <<E\nE", "2:8", "COPY can't have a heredoc as the destination", "add a path after it"),
        (
            "COPY << E /x\nE",
            "2:6",
            "a heredoc of COPY has a space in its word, or before it",
            "write <<WORD without a space, and without one in WORD",
        ),
        ("EXPOSE", "2:1", "EXPOSE needs a port", "write EXPOSE 80 or EXPOSE 53/udp"),
        ("USER", "2:1", "USER needs an argument", "write USER NAME"),
        ("SHELL bash", "2:7", "SHELL needs a JSON list of words", 'write SHELL ["/bin/bash", "-c"]'),
        ("VOLUME [ ]", "2:1", "VOLUME needs a path", "write VOLUME /PATH"),
        (
            "HEALTHCHECK curl x",
            "2:13",
            "HEALTHCHECK has no 'curl'",
            "write HEALTHCHECK CMD COMMAND, or HEALTHCHECK NONE",
        ),
        ("HEALTHCHECK NONE x", "2:18", "HEALTHCHECK NONE takes no arguments", "remove what follows NONE"),
        (
            "HEALTHCHECK --interval=1us CMD x",
            "2:13",
            "--interval 1us of HEALTHCHECK is too short",
            "write at least 1ms",
        ),
        ("HEALTHCHECK --retries=-1 CMD x", "2:13", "invalid --retries '-1' of HEALTHCHECK", "write a number"),
        (
            "ONBUILD FROM x",
            "2:9",
            "FROM can't be a trigger of ONBUILD",
            "write it in the Dockerfile that needs it",
        ),
        ("ONBUILD RNU x", "2:9", "unknown instruction 'RNU'", "did you mean RUN?"),
        ("ONBUILD \\\n  COPY a", "3:8", "COPY needs a destination after the source", "write COPY SOURCE... DESTINATION"),
        ("FROM a x b", "2:8", "FROM takes an image, and a name after AS, not 'a x b'", "write FROM IMAGE or FROM IMAGE "
         "AS NAME"),
        (
            "FROM a AS 1b",
            "2:11",
            "invalid stage name '1b'",
            "begin it with a letter; letters, digits, -, _ and . may follow",
        ),
    ],
)  # fmt: skip
def test_a_mistake(text, place, reason, hint):
    if place is None:  # what looks like a mistake, but isn't
        parse(f"FROM base\n{text}")
        return
    error = error_of(text)
    assert str(error) == f"sub/Dockerfile:{place}: {reason}"
    assert error.hint == hint
    assert error.status == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "sub/Dockerfile: it has no instructions"),
        ("# only\n\n", "sub/Dockerfile: it has no instructions"),
        ("FROM a\nRUN \0", "sub/Dockerfile:2: it has a NUL byte, so it is no text"),
        ("ARG X", "sub/Dockerfile: it has no FROM"),
        ("ARG X\nRUN x\nFROM a", "sub/Dockerfile:2:1: RUN stands before the first FROM"),
        ("# escape=x\nFROM a", "sub/Dockerfile:1:1: invalid escape character 'x'"),
        ("# syntax=a\n# syntax=b\nFROM a", "sub/Dockerfile:2:1: the directive syntax stands there twice"),
    ],
)
def test_a_mistake_in_the_whole(text, message):
    error = error_of(text, "")
    assert str(error) == message
    assert error.hint


def test_what_a_word_was_meant_to_be():
    assert closest("RNU", ["RUN", "CMD"]) == "RUN"
    assert closest("COPPY", ["COPY", "CMD"]) == "COPY"
    assert closest("XYZ", ["RUN", "CMD"]) is None
    assert did_you_mean("XYZ", ["RUN", "CMD"]) == "known are RUN, CMD"


@given(st.text(alphabet="abcd", min_size=6, max_size=9), st.data())
def test_two_letters_swapped_are_one_mistake(word, data):
    at = data.draw(st.integers(0, len(word) - 2))
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    assert closest(swapped, [word]) == word


# What BuildKit 0.32.2's parser, as the linter tally 0.45.0 has it, said of each: a message, or nothing. With "ours", we
# refuse it at once, where BuildKit does so only during the build, or lets the shell or the kernel do so.
SAMPLES = json.loads((Path(__file__).parent / "refused_samples.json").read_text())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: ascii(sample["dockerfile"])[1:71])
def test_what_buildkit_refuses_is_refused_and_nothing_else(sample):
    if sample["buildkit"] or sample.get("ours"):
        with pytest.raises(DockerfileError):
            parse(sample["dockerfile"])
    else:
        parse(sample["dockerfile"])
