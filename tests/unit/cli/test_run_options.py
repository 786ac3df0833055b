"""The two readers of `minibox run`'s command line give the same answer, and it is the one that Docker gives."""

from __future__ import annotations

import json
from collections.abc import Callable

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minibox.base.home import Home
from minibox.cli import exec_options
from minibox.cli.application import application
from minibox.cli.commands import run as commands
from minibox.cli.commands.run import options_of, run
from minibox.cli.run_options import BY_NAME, GROUPS, OPTIONS, Option, convert, parse
from minibox.cli.settings import Settings
from minibox.docker_words.pairs import Variable
from minibox.engine.spec.options import RunOptions, from_given, typed
from minibox.engine.spec.options import given as recorded_of
from minibox.errors import UsageError

WORDS = ["base", "sh", "-", "--", "", "true", "false", "a=b", "1", "0", "-1", "512m", "1.5", "none", "never", "--help"]
VALUES = {
    "flag": ["true", "false", "1", "0", "T", "maybe", ""],
    "size": ["0", "512m", "1.5G", "-1", "64KiB", "12x", ""],
    "int": ["0", "7", "-1", "999999999999", "1_0", "x"],
    "float": ["0", "0.5", "2", ".", "1e3", "nan"],
    "duration": ["5", "5s", "1m30s", "0", "-1s", "1x", ""],
    "choice": ["none", "never", "host", "other"],
    "text": ["x", "", "-x", "--rm", "a b", "=", "é"],
    "list": ["A=1", "", "-x", "--", "B", "=C"],
}


def spellings(option: Option) -> st.SearchStrategy[list[str]]:
    """The ways to write one option, good ones and bad."""

    def write(name: str, value: str, how: int) -> list[str]:
        if how == 0:
            return [f"{name}={value}"]
        if how == 1:
            return [name, value]
        if how == 2 and name[:2] != "--":
            return [name + value]
        return [name]

    values = st.sampled_from(VALUES[option.kind]) | st.text(max_size=4)
    return st.builds(write, st.sampled_from(option.names), values, st.integers(0, 3))


option_words = st.sampled_from(OPTIONS).flatmap(spellings)
clusters = st.lists(st.sampled_from("itewuvmchlxz=1"), min_size=1, max_size=4).map(
    lambda letters: ["-" + "".join(letters)]
)
loose = st.sampled_from(WORDS).map(lambda word: [word]) | st.text(max_size=5).map(lambda word: [word])
command_lines = st.lists(option_words | clusters | loose, max_size=8).map(
    lambda parts: [w for part in parts for w in part]
)


def by_click(words: list[str]) -> RunOptions:
    with application.make_context("minibox", ["version"]) as root, run.make_context("run", words, parent=root) as ctx:
        return options_of(ctx.params)


def answer(read: Callable[[list[str]], RunOptions | None], words: list[str]) -> RunOptions | str | None:
    """What a reader returns, or the error that says which word isn't Docker's."""
    try:
        return read(words)
    except UsageError as error:
        return f"{error}; {error.hint}"


@given(command_lines)
@example(["-it", "--rm", "base", "sh"])
@example(["-e=A=1", "-eB", "-e", "-i", "base", "--", "-x"])
@example(["-m", "512m", "-m", "0", "base"])
@example(["--entrypoint", "", "base"])
@example(["--entrypoint=", "--tty=false", "-i=false", "base"])
@example(["--", "-x"])
def test_what_the_fast_reader_answers_click_answers_too(words):
    fast = answer(parse, words)
    if fast is not None:
        assert answer(by_click, words) == fast


@given(command_lines)
@example(["-m", "soon", "-m", "1", "base"])
def test_what_the_fast_reader_leaves_to_click_is_an_error_or_help(words):
    if answer(parse, words) is None:
        with pytest.raises((click.UsageError, click.exceptions.Exit)):
            by_click(words)


VALID = {
    "flag": st.booleans(),
    "text": st.text(),
    "list": st.lists(st.text(), min_size=1, max_size=3).map(tuple),
    "size": st.integers(1, 1 << 50),
    "int": st.integers(2, 1000),
    "float": st.floats(0.01, 64).map(lambda number: round(number, 2)),
    "duration": st.integers(1, 1000),
}
SYNTAX = {
    "volume": ["/data", "name:/b:ro", "./here:/c:rslave,nosuid"],
    "mount": ["type=bind,source=/a,target=/b,readonly", "target=/v", "type=tmpfs,dst=/t,tmpfs-size=1m"],
    "tmpfs": ["/run", "/tmp:size=1m,exec"],
    "publish": ["80", "8080:80/udp", "127.0.0.1::53", "8000-8001:90-91"],
    "ulimit": ["nofile=1", "core=-1", "nproc=1:unlimited"],
    "label": ["a", "a=", "a=b=c"],
    "sysctl": ["net.a=1", "x="],
    "env": ["A=1", "B", "C=a=b"],
    "device": ["/dev/fuse", "/dev/a:/dev/b:rw", "/dev/kvm:r"],
    "security_opt": ["no-new-privileges", "seccomp=/p", "label:disable", "apparmor=unconfined"],
    "expose": ["80", "53/udp", "8000-8010"],
    "annotation": ["a", "a=", "a=b=c"],
    "device_cgroup_rule": ["c 1:3 rwm", "b *:* r", "a *:* m"],
    "blkio_weight_device": ["/dev/sda:10", "/dev/sdb:0"],
    "device_read_bps": ["/dev/sda:1mb", "/dev/a:b:1"],
    "device_write_bps": ["/dev/sda:1g"],
    "device_read_iops": ["/dev/sda:1000"],
    "device_write_iops": ["/dev/sda:0"],
    "restart": ["no", "always", "on-failure:3", "on-failure"],
    "log_opt": ["max-size=10m", "max-size=-1", "max-file=2"],
    "add_host": ["a:1.2.3.4", "b=::1", "c:[::1]"],
}


@given(st.data(), st.lists(st.text()))
def test_options_written_on_a_command_line_come_back(data, command):
    image = data.draw(st.text(min_size=1).filter(lambda text: text[0] != "-"))
    fields, words = {}, []
    for option in data.draw(
        st.lists(st.sampled_from([each for each in OPTIONS if each.field != "label_file"]), unique=True)
    ):
        strategy = st.sampled_from(option.choices) if option.kind == "choice" else VALID[option.kind]
        if option.field in SYNTAX:
            strategy = st.sampled_from(SYNTAX[option.field])
            if option.kind == "list":
                strategy = st.lists(strategy, min_size=1, max_size=3).map(tuple)
        if option.kind == "int" and option.most < 1000:
            strategy = st.integers(2, option.most)
        value = fields[option.field] = data.draw(strategy)
        name = data.draw(st.sampled_from(option.names))
        for text in value if option.kind == "list" else [str(value).lower() if option.kind == "flag" else str(value)]:
            words += [name, text] if option.kind != "flag" and data.draw(st.booleans()) else [f"{name}={text}"]
    options = parse([*words, image, *command])
    assert options == RunOptions(image, tuple(command), **typed(fields))
    recorded = json.loads(json.dumps(recorded_of(options)))
    assert {name: recorded[name] for name in fields.keys() & SYNTAX} == {
        name: words if isinstance(words, str) else list(words) for name, words in fields.items() if name in SYNTAX
    }
    assert from_given(recorded) == options


def test_words_behind_the_image_belong_to_the_command():
    assert parse(["--rm", "base", "ls", "-l", "--rm=x", "--"]) == RunOptions(
        "base", ("ls", "-l", "--rm=x", "--"), rm=True
    )


def test_flags_in_one_word_and_the_last_with_a_value():
    assert parse(["-ite", "A=1", "base"]) == RunOptions("base", interactive=True, tty=True, env=(Variable("A", "1"),))
    assert parse(["-itw/x", "base"]) == RunOptions("base", interactive=True, tty=True, workdir="/x")
    assert parse(["-it=false", "base"]) == RunOptions("base", interactive=True, tty=False)


def test_short_h_is_the_hostname_as_in_docker():
    assert parse(["-h", "box", "base"]) == RunOptions("base", hostname="box")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100", 100), ("1b", 1), ("64k", 65536), ("512M", 512 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("1kb", 1024)],
)
def test_sizes_are_read_as_docker_reads_them(text, expected):
    assert convert(BY_NAME["--memory"], text) == expected


@pytest.mark.parametrize("text", ["", "m", "12x", "-5", "1 2", "1..5", "9999999999t", "0x10", "١", "nan"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError):
        convert(BY_NAME["--memory"], text)


def test_minus_one_is_a_size_only_for_swap():
    assert convert(BY_NAME["--memory-swap"], "-1") == -1
    with pytest.raises(ValueError):
        convert(BY_NAME["--memory"], "-1")


def test_zero_means_no_limit_as_in_docker():
    words = ["-m", "0", "--cpus", "0", "--pids-limit=0", "-c0", "--memory-swap", "0", "--shm-size", "0", "base"]
    assert parse(words) == RunOptions("base")


def test_the_table_covers_every_field_once_and_explains_each_option():
    fields = [option.field for option in OPTIONS]
    of_the_api, others = ["cpu_time_s", "idle", "output_bytes"], ["publish_address", "large_ids"]
    fields.remove("label_file")  # its lines are labels
    assert sorted([*fields, *of_the_api, *others, "command", "image"]) == sorted(RunOptions.__annotations__)
    names = [name for option in OPTIONS for name in option.names]
    assert len(names) == len(set(names))
    for option in OPTIONS:
        assert option.help and option.help[0].isprintable() and not option.help.endswith(".")
        assert option.group in GROUPS
        assert bool(option.metavar) == (option.kind != "flag")


@pytest.mark.parametrize(
    "words",
    [
        ["web", "true"],
        ["-it", "-e", "A=b", "-eC", "--env=D=e", "web", "sh", "-c", "x", "-it"],
        ["-d", "--privileged=false", "-u0:0", "-w", "/tmp", "--detach-keys", "ctrl-x", "--", "web", "ls", "-l"],
    ],
)
def test_exec_is_read_at_once_as_click_reads_it(words, monkeypatch):
    read = exec_options.parse(words)
    assert read
    called = []
    monkeypatch.setattr("minibox.engine.container.exec.exec_", lambda home, *given: called.append(given))
    with commands.exec_.make_context("exec", list(words), obj=Settings(Home("/root", "/run"))) as ctx:
        commands.exec_.invoke(ctx)
    assert called == [read]


@pytest.mark.parametrize(
    "words", [[], ["web"], ["--help"], ["-x", "web", "true"], ["-e"], ["--tty=maybe", "web", "true"]]
)
def test_what_click_has_words_for_is_left_to_it(words):
    assert exec_options.parse(words) is None
