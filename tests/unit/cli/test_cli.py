"""What a user of the command line sees: help, errors, statuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest

from minibox import errors
from minibox.base.home import Home
from minibox.cli import foreground
from minibox.cli import main as cli
from minibox.cli.format.plan import format_plan, format_trace
from minibox.cli.run_options import OPTIONS
from minibox.cli.settings import Settings, make_settings, read_globals
from minibox.cli.tree import COMMANDS, IMAGE_COMMANDS, SYSTEM_COMMANDS
from minibox.engine.container.shell import best_shell_command, shell_options
from minibox.engine.spec.options import RunOptions

NAMES = [
    *(name for _, name, *_ in COMMANDS),
    *(f"image {name}" for _, name, *_ in IMAGE_COMMANDS),
    *(f"system {name}" for _, name, *_ in SYSTEM_COMMANDS),
]


def run_cli(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "minibox", *words],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_fits_the_terminal_and_gives_an_example(name, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: minibox {name}".rstrip())
    assert name in ("version",) or "Example" in text
    assert max(map(len, text.splitlines())) <= columns


def test_no_words_show_the_help_with_every_command(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for _, name, _, _, help_text in COMMANDS:
        assert f"  {name} " in text and help_text in text


def test_help_of_run_shows_every_option_on_one_line(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["run", "--help"])
    lines = capsys.readouterr().out.splitlines()
    for option in OPTIONS:
        assert any(option.names[0] in line and line.endswith(option.help) for line in lines), option.names


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["rnu"], "unknown command rnu", "did you mean run?"),
        (["frobnicate"], "unknown command frobnicate", "minibox --help lists the commands"),
        (["--rooot", "x", "run"], "unknown option --rooot", "did you mean --root?"),
        (["run"], "IMAGE is missing", "usage: minibox run [OPTIONS] IMAGE [COMMAND [ARG]...]"),
        (["run", "--nmae", "x", "base"], "unknown option --nmae", "did you mean --name?"),
        (["run", "-iz", "base"], "unknown option -z", "see minibox run --help"),
        (["run", "base", "--name"][:1] + ["--name"], "option --name needs a value", "see minibox run --help"),
        (["run", "-m", "12x", "base"], "invalid value '12x' for --memory: not a size", "write a number and a unit: 512m, 2g, 65536k"),
        (["run", "--pull", "x", "base"], "invalid value 'x' for --pull: not a valid choice", "one of always, missing, never"),
        (["run", "--tty=yes", "base"], "invalid value 'yes' for --tty: not true or false", "write true, false, or no value"),
        (["run", "--oom-score-adj=1001", "base"], "invalid value '1001' for --oom-score-adj: not between -1000 and 1000", "see minibox run --help"),
        (["run", "-m", "1\n2", "base"], "invalid value '1\\n2' for --memory: not a size", "write a number and a unit: 512m, 2g, 65536k"),
        (["explain", "ls"], "can't explain 'ls'", "give a run command: minibox explain run base true"),
        (["tag", "a", "b", "extra"], "got unexpected extra argument (extra)", "see minibox tag --help"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_and_a_hint(words, message, hint, capsys):
    assert cli.main(words) == 125
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"minibox: {message}\nhint: {hint}\n"


@pytest.mark.parametrize(
    ("error", "status", "output"),
    [
        (errors.CommandNotFound("no 'x' in the image", "look"), 127, "minibox: no 'x' in the image\nhint: look\n"),
        (errors.CommandNotExecutable("'x' is a directory"), 126, "minibox: 'x' is a directory\n"),
        (errors.StoreError("bad\x1b[2J name"), 125, "minibox: bad\\x1b[2J name\n"),
        (errors.StoreError("m", "one\ntwo"), 125, "minibox: m\nhint: one\n      two\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (OSError(28, "x", "/full"), 125, "minibox: '/full': No space left on device (ENOSPC)\n"),
        (ValueError("oops"), 125, "minibox: internal error: ValueError: oops\n"),
    ],
)
def test_errors_become_words_and_statuses(error, status, output, monkeypatch, capsys):
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(foreground, "start", fail)
    monkeypatch.setattr(cli, "_forget_stdout", lambda: None)
    assert cli.main(["run", "base"]) == status
    text = capsys.readouterr().err
    assert text.startswith(output) and "Traceback" not in text
    assert cli.main(["--debug", "run", "base"]) == status
    debugged = capsys.readouterr().err
    assert ("Traceback" in debugged) == bool(output)
    assert debugged.endswith(text) and debugged.count("hint: ") == text.count("hint: ")


def test_a_reader_that_leaves_is_no_error():
    script = f'"{sys.executable}" -m minibox run --help | true; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("141", "0")  # 0 where the pipe took it all before its reader left


def test_the_module_runs():
    done = run_cli("--version")
    assert done.returncode == 0 and done.stdout.startswith("minibox ")


def test_global_options_come_before_the_command_and_win_over_the_environment():
    given, rest = read_globals(["--root", "/a", "--debug", "--runroot=b", "run", "--root", "x"])
    assert rest == ["run", "--root", "x"]
    environ = {"MINIBOX_ROOT": "/other"}
    settings = make_settings(given, environ)
    assert settings == Settings(Home("/a", os.path.abspath("b")), True)
    assert make_settings({}, environ).home.root == "/other"


def test_main_keeps_no_state_and_leaves_the_environment_alone(tmp_path, monkeypatch, capsys):
    before = dict(os.environ)
    assert cli.main(["--root", str(tmp_path / "one"), "version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["root"] == str(tmp_path / "one")
    monkeypatch.setenv("MINIBOX_ROOT", str(tmp_path / "two"))
    assert cli.main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["root"] == str(tmp_path / "two")
    monkeypatch.undo()
    assert dict(os.environ) == before


def test_shell_is_an_interactive_run_without_the_entrypoint():
    options = shell_options(RunOptions("base", network="none"), terminal=True)
    assert options == RunOptions(
        "base", best_shell_command(), network="none", entrypoint="", interactive=True, tty=True, rm=True
    )
    with pytest.raises(errors.UsageError):
        shell_options(RunOptions("base", ("ls",)), terminal=True)


def test_the_best_shell_is_one_that_works(tmp_path):
    """bash is passed over where it is there and can't run; without any other, /bin/sh stays."""
    command = best_shell_command()
    broken = tmp_path / "bash"
    broken.write_text("#!/no/such/loader\n")
    broken.chmod(0o755)
    done = subprocess.run(command, input="echo $0", env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "/bin/sh", "")
    done = subprocess.run(command, input="echo $BASH", env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.stdout.strip().endswith("bash") and done.stderr == ""


def test_ps_shows_what_the_engine_has_written(tmp_path, capsys):
    directory = tmp_path / "containers" / ("ab" * 32)
    directory.mkdir(parents=True)
    (tmp_path / "names").mkdir()
    (tmp_path / "names/web").symlink_to("ab" * 32)
    state = {
        "Id": "ab" * 32,
        "Name": "web",
        "Image": "base",
        "Command": ["sleep", "1"],
        "Status": "exited",
        "ExitCode": 3,
    }
    (directory / "state.json").write_text(json.dumps({**state, "Created": time.time() - 130}))
    place = ["--root", str(tmp_path), "--runroot", str(tmp_path / "run")]
    assert cli.main([*place, "ps", "--all"]) == 0
    text = capsys.readouterr().out.splitlines()[1]
    assert [word.strip() for word in re.split("  +", text)] == [
        "ab" * 6, "base", '"sleep 1"', "2 minutes ago", "Exited (3)", "web",
    ]  # fmt: skip
    assert cli.main([*place, "ps", "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main([*place, "rm", "nobody", "web"]) == 125
    captured = capsys.readouterr()
    assert captured.out == "web\n" and captured.err.startswith("minibox: there is no container 'nobody'\n")
    assert not directory.exists()


ROWS = [
    {"index": 1, "actor": "parent", "operation": "clone", "does": "clone a process", "arguments": {"flags": ["NEWNS", "NEWPID"]},
     "why": "namespaces " * 20, "manual": "clone(2)", "shell": "unshare --mount --pid --fork", "microseconds": 120.4},
    {"index": 2, "actor": "child", "operation": "mount", "arguments": {"target": "/a\x1b", "id": "ab" * 32}, "why": "",
     "manual": "mount(2)", "shell": "", "microseconds": 3, "error": "Invalid argument (EINVAL)"},
]  # fmt: skip


def test_a_plan_is_listed_with_numbers_reasons_and_commands():
    text = format_plan(ROWS, 60)
    lines = text.splitlines()
    assert lines[:3] == ["parent:", "", "1  clone a process [clone(2)]"]
    assert "   clone: flags=NEWNS,NEWPID" in lines
    assert any(line.startswith("   why: namespaces") for line in lines)
    assert "   $ unshare --mount --pid --fork" in lines
    assert lines[lines.index("child:") + 2] == "2  mount [mount(2)]"
    assert "\x1b" not in text and "target=/a\\x1b id=abababababab..." in text
    assert max(map(len, lines)) <= 60


def test_a_trace_shows_times_and_the_step_that_failed():
    lines = format_trace(ROWS).splitlines()
    assert lines[1].split() == ["1", "120", "parent", "clone", "a", "process"]
    assert lines[3].strip() == "FAILED: Invalid argument (EINVAL)"
    assert [line.split() for line in lines[4:6]] == [["sum", "120", "parent"], ["sum", "3", "child"]]
