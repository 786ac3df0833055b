"""Completion, as bash, zsh and fish ask for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from minibox.cli.tree import COMMANDS


def complete(shell: str, line: str, word: str, root: str = "/nonexistent") -> list[str]:
    """What `minibox` answers to the shell's script: with zsh, the third word of each answer is its help."""
    cword = {"bash": word, "zsh": str(len(line.split()) - (1 if word else 0)), "fish": word}[shell]
    environment = {"_MINIBOX_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": cword}
    done = subprocess.run(
        [sys.executable, "-m", "minibox", "--root", root],
        env={**os.environ, **environment, "MINIBOX_ROOT": root},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_and_options_are_completed(shell):
    assert any("doctor" in line for line in complete(shell, "minibox d", "d"))
    assert any("--memory-swap" in line for line in complete(shell, "minibox run --mem", "--mem"))
    assert any("base" in line for line in complete(shell, "minibox run -it --rm ba", "ba"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(shell):
    done = subprocess.run([sys.executable, "-m", "minibox", "completion", shell], capture_output=True, text=True)
    assert done.returncode == 0 and f"_MINIBOX_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        ("minibox run --network ", "", ["none", "host", "bridge"]),
        ("minibox run --network=ho", "ho", ["host"]),
        ("minibox run --cap-add NET_A", "NET_A", ["NET_ADMIN"]),
        ("minibox run --stop-signal SIGU", "SIGU", ["SIGUSR1", "SIGUSR2"]),
        ("minibox shell b", "b", ["base"]),
        ("minibox completion ", "", ["bash", "zsh", "fish"]),
        ("minibox --debug exp", "exp", ["explain", "export"]),
    ],
)
def test_values_are_completed(line, word, expected):
    assert complete("bash", line, word) == [f"plain,{value}" for value in expected]


def test_files_are_left_to_the_shell():
    assert complete("bash", "minibox run -v /et", "/et") == ["file,/et"]


BASH = """
minibox() { "$PYTHON" -m minibox "$@"; }
export -f minibox
source <(minibox completion bash)
COMP_LINE=$1 COMP_POINT=${#1}
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_minibox_completion "$PROGRAM"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def in_bash(tmp_path, line: str, *words: str) -> list[str]:
    """Let a real bash source the script and ask it, with its own idea of the words."""
    program = tmp_path / "minibox"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m minibox "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PYTHON": sys.executable, "PROGRAM": str(program), "MINIBOX_ROOT": str(tmp_path)}
    command = ["bash", "--norc", "-c", BASH, "bash", line, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_bash_completes_commands(tmp_path):
    names = [name for _, name, *_ in COMMANDS]
    assert in_bash(tmp_path, "minibox ", "minibox", "") == names


def test_bash_completes_behind_its_word_breaks(tmp_path):
    assert in_bash(tmp_path, "minibox run --network=b", "minibox", "run", "--network", "=", "b") == ["bridge"]
    assert in_bash(tmp_path, "minibox run --network=", "minibox", "run", "--network", "=") == ["none", "host", "bridge"]
