"""From a Dockerfile's text to its instructions: every kind, its flags and forms."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.heredocs import Heredoc
from minibox.build.dockerfile.instructions import Command
from minibox.build.dockerfile.parser import parse
from minibox.errors import DockerfileError


def only(text: str, head: str = "FROM base\n") -> Any:
    """The one instruction of ``text``, which follows ``head``."""
    instructions = parse(head + text).instructions
    assert len(instructions) == head.count("\n") + 1
    return instructions[-1]


def fields(instruction: kinds.Instruction) -> dict[str, object]:
    """What an instruction says, without where."""
    return {name: getattr(instruction, name) for name in type(instruction).__annotations__ if name != "line"}


@pytest.mark.parametrize(
    ("text", "image", "name", "platform"),
    [
        ("FROM debian", "debian", "", ""),
        ("from debian:12 as Build", "debian:12", "build", ""),
        ("FROM --platform=$BUILDPLATFORM golang:1 AS a.b-c_1", "golang:1", "a.b-c_1", "$BUILDPLATFORM"),
        ("FROM base@sha256:" + "a" * 64, "base@sha256:" + "a" * 64, "", ""),
        ("FROM\tscratch\r", "scratch", "", ""),
    ],
)
def test_from(text, image, name, platform):
    assert fields(only(text, "")) == {"image": image, "name": name, "platform": platform}


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("CMD echo hi", Command(("echo hi",), shell=True)),
        ('CMD ["echo", "hi"]', Command(("echo", "hi"), shell=False)),
        ("CMD []", Command((), shell=False)),
        ("CMD [ 'echo' ]", Command(("[ 'echo' ]",), shell=True)),  # no JSON: a shell's text, as in Docker
        ('CMD ["a", "b"] c', Command(('["a", "b"] c',), shell=True)),
        ('CMD ["\\u00e4\\n"]', Command(("ä\n",), shell=False)),
        ("CMD [NaN]", Command(("[NaN]",), shell=True)),
        ("CMD " + "[" * 5000, Command(("[" * 5000,), shell=True)),
    ],
)
def test_a_command_in_both_forms(text, command):
    assert only(text).command == command


@pytest.mark.parametrize(
    ("text", "pairs", "legacy"),
    [
        ("ENV A=1 B=2", (("A", "1"), ("B", "2")), False),
        ('ENV A="x y" B=c\\ d', (("A", '"x y"'), ("B", "c\\ d")), False),
        ("ENV A=", (("A", ""),), False),
        ("ENV A the rest = of it", (("A", "the rest = of it"),), True),
        ("ENV A=it's\\ 1 B=it's", (("A", "it's\\ 1 B=it's"),), False),
        ("ENV A=b=c", (("A", "b=c"),), False),
    ],
)
def test_names_and_values(text, pairs, legacy):
    assert fields(only(text)) == {"pairs": pairs, "legacy": legacy}
    assert fields(only(text.replace("ENV", "LABEL", 1))) == {"pairs": pairs, "legacy": legacy}


def test_arg_has_several_names_with_and_without_defaults():
    assert only("ARG A B=1 C=", "FROM base\n").pairs == (("A", None), ("B", "1"), ("C", ""))


def test_copy_with_all_flags():
    text = "COPY --from=build --chown=1:2 --chmod=u=rwX,go=rX --link --parents --exclude=*.o --exclude=a/** a b /c/"
    assert fields(only(text)) == {
        "sources": ("a", "b"),
        "destination": "/c/",
        "heredocs": (),
        "from_name": "build",
        "chown": "1:2",
        "chmod": "u=rwX,go=rX",
        "link": True,
        "parents": True,
        "exclude": ("*.o", "a/**"),
    }


def test_add_with_all_flags():
    text = "ADD --checksum=sha256:00 --keep-git-dir=true --unpack=false --link=FALSE --chmod=0755 https://host/a /a"
    add = only(text)
    assert (add.checksum, add.keep_git_dir, add.unpack, add.link) == ("sha256:00", True, False, False)
    assert (add.chmod, add.sources, add.destination) == ("0755", ("https://host/a",), "/a")
    assert only("ADD a b").unpack is None


def test_a_json_copy_has_spaces_in_its_names():
    assert only('COPY ["a b", "/c d/"]').sources == ("a b",)


@pytest.mark.parametrize(
    ("text", "heredocs"),
    [
        ("COPY <<a /x\n1\na", (Heredoc("a", "1\n"),)),
        ("COPY <<a <<b /x\n1\na\n2\nb", (Heredoc("a", "1\n"), Heredoc("b", "2\n"))),
        ('COPY <<"a" f /x\n$1\na', (Heredoc("a", "$1\n", expand=False),)),
        ("COPY <<\\a /x\n1\na", (Heredoc("a", "1\n"),)),
        ("COPY <<-a /x\n\t1\n\ta", (Heredoc("a", "\t1\n", chomp=True),)),
        ("COPY 3<<a /x\na", (Heredoc("a", ""),)),
        ("ADD <<a /x\n# no comment \\\n\na", (Heredoc("a", "# no comment \\\n\n"),)),
    ],
)
def test_heredocs_of_copy(text, heredocs):
    assert only(text).heredocs == heredocs


def test_a_heredoc_is_none_where_docker_has_none():
    assert only("CMD cat <<a").command.words == ("cat <<a",)
    assert only("RUN cat '<<a'").heredocs == ()
    assert only('RUN ["cat", "<<a"]').heredocs == ()
    assert only("RUN echo $((1<<2))").heredocs == ()


@pytest.mark.parametrize(
    ("text", "shell_text"),
    [
        ("RUN <<a\n\tset -e\n\techo\na", "\tset -e\n\techo\n"),
        ("RUN <<-a\n\tset -e\na", "set -e\n"),
        ("RUN cat <<a >f && cat <<b\n1\na\n2\nb", "cat <<a >f && cat <<b\n1\na\n2\nb"),
        ("RUN python3 <<a\nprint()\na", "python3 <<a\nprint()\na"),
    ],
)
def test_what_the_shell_gets_of_heredocs(text, shell_text):
    run = only(text)
    assert run.script is None
    assert run.shell_text == shell_text


def test_a_script_with_an_interpreter_runs_by_itself():
    assert only("RUN <<-a\n\t#!/usr/bin/python3\n\tprint()\na").script.text == "#!/usr/bin/python3\nprint()\n"


def test_healthcheck():
    check = only("HEALTHCHECK --interval=5m --timeout=3s --start-period=1s --start-interval=100ms --retries=2 CMD x y")
    assert check.command == Command(("x y",), shell=True)
    times = (check.interval_ns, check.timeout_ns, check.start_period_ns, check.start_interval_ns, check.retries)
    assert times == (300 * 10**9, 3 * 10**9, 10**9, 10**8, 2)
    assert only("HEALTHCHECK none").command is None
    assert only('HEALTHCHECK CMD ["x"]').command == Command(("x",), shell=False)


def test_the_simple_kinds():
    assert fields(only("EXPOSE 80 53/udp 1-3")) == {"ports": ("80", "53/udp", "1-3")}
    assert fields(only("USER me:us")) == {"user": "me:us"}
    assert fields(only("WORKDIR /a b")) == {"path": "/a b"}
    assert fields(only('VOLUME ["/a b"]')) == {"paths": ("/a b",)}
    assert fields(only("VOLUME /a /b")) == {"paths": ("/a", "/b")}
    assert fields(only("STOPSIGNAL SIGQUIT")) == {"signal": "SIGQUIT"}
    assert fields(only("MAINTAINER Jo <jo@host>")) == {"author": "Jo <jo@host>"}
    assert fields(only('SHELL ["/bin/bash", "-ec"]')) == {"words": ("/bin/bash", "-ec")}


def test_onbuild_keeps_the_text_with_heredocs():
    onbuild = only("ONBUILD RUN cat <<a\n1\na\n")
    assert onbuild.trigger == "RUN cat <<a\n1\na"
    assert onbuild.instruction.heredocs == (Heredoc("a", "1\n"),)


@given(st.text(alphabet="FROMRUNCPYXabc \n\t\\\"'$<>-={}[]#`1,:/", max_size=200))
def test_any_text_parses_or_is_refused_with_a_place(text):
    try:
        parse(f"FROM a\n{text}")
    except DockerfileError as error:
        assert 0 <= error.line <= text.count("\n") + 2
        assert str(error).startswith("Dockerfile:")


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(content):
    try:
        parse(content)
    except DockerfileError:
        pass
