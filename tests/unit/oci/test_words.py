"""The options of `minibox-oci`, read by the rules of runc's parser."""

from __future__ import annotations

import pytest

from minibox.oci_cli.commands import COMMANDS, GLOBALS
from minibox.oci_cli.help import help_of, overview
from minibox.oci_cli.words import BadWords, HelpAsked, read

BY_NAME = {command.name: command for command in COMMANDS}


def words_of(name: str, *words: str):
    command = BY_NAME[name]
    return read(list(words), command.options, mixed=command.mixed)


@pytest.mark.parametrize("words", [("--bundle", "/b"), ("--bundle=/b",), ("-bundle", "/b"), ("-b=/b",), ("-b", "/b")])
def test_one_dash_or_two_and_a_value_either_way(words):
    values, others = words_of("create", *words, "id")
    assert (values["bundle"], others) == ("/b", ["id"])


def test_defaults():
    values, others = words_of("create", "id")
    assert others == ["id"] and values["bundle"] == "" and values["preserve-fds"] == 0 and not values["no-pivot"]
    assert words_of("exec", "id")[0]["env"] == []


def test_flags_take_a_value_only_behind_an_equals_sign():
    assert words_of("kill", "--all=false", "id")[0] == {"all": False, "regex": None}
    assert words_of("kill", "--all", "id", "KILL") == ({"all": True, "regex": None}, ["id", "KILL"])


def test_options_may_follow_the_id():
    assert words_of("kill", "id", "KILL", "--all") == ({"all": True, "regex": None}, ["id", "KILL"])
    assert words_of("run", "id", "-b", "/b", "--detach")[0]["bundle"] == "/b"


def test_but_not_where_a_command_follows():
    values, others = words_of("exec", "-t", "--env", "A=1", "-e=B=2", "id", "ls", "-t", "--cwd")
    assert (values["tty"], values["env"], others) == (True, ["A=1", "B=2"], ["id", "ls", "-t", "--cwd"])


def test_two_dashes_end_the_options():
    assert words_of("kill", "--", "--all") == ({"all": None, "regex": None}, ["--all"])
    assert words_of("exec", "id", "--", "ls")[1] == ["id", "--", "ls"]  # as runc


def test_numbers_and_durations():
    assert words_of("create", "--preserve-fds", "0x2", "id")[0]["preserve-fds"] == 2
    assert words_of("events", "--interval=1m1s", "id")[0]["interval"] == 61


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--foo", "id"), "flag provided but not defined: -foo"),
        (("--bundle",), "flag needs an argument: -bundle"),
        (("--preserve-fds", "x", "id"), 'invalid value "x" for flag -preserve-fds: parse error'),
        (("--no-pivot=maybe", "id"), 'invalid boolean value "maybe" for -no-pivot: parse error'),
        (("---b", "id"), "bad flag syntax: ---b"),
    ],
)
def test_what_cannot_be_read(words, says):
    with pytest.raises(BadWords, match=says):
        words_of("create", *words)


@pytest.mark.parametrize("word", ["--help", "-h", "-help"])
def test_help(word):
    with pytest.raises(HelpAsked):
        words_of("state", word)


def test_every_option_is_in_the_help():
    for command in COMMANDS:
        text = help_of(command)
        for name in (name for option in command.options for name in option.names):
            assert f"-{name}" in text
    assert all(f"   {command.name} " in overview() for command in COMMANDS)


def test_what_conmon_and_the_shim_pass():
    words = "--root /r --log /l --log-format json --systemd-cgroup --rootless=true create --bundle /b x".split()
    values, rest = read(words, GLOBALS, mixed=False)
    assert (values["root"], values["log"], values["log-format"], values["systemd-cgroup"]) == ("/r", "/l", "json", True)
    assert rest[0] == "create"
