"""The documents tell the truth: their quotations of `explain` are its output, README's commands run."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

from minibox.cli import main as cli
from minibox.cli.commands.build_refused import REFUSED, WITHOUT_EFFECT
from minibox.cli.tree import (
    BUILDER_COMMANDS,
    COMMANDS,
    CONTAINER_COMMANDS,
    IMAGE_COMMANDS,
    LAB_COMMANDS,
    NETWORK_COMMANDS,
    SYSTEM_COMMANDS,
    VOLUME_COMMANDS,
)
from tests.conftest import CHECKOUT
from tests.leaks import SLOWNESS
from tests.probes import requires

#: Options of the lines of a Dockerfile.
OF_LINES = {"--checksum", "--chmod", "--chown", "--exclude", "--from", "--link", "--parents", "--security"}
DOCUMENTS = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
LESSON = CHECKOUT / "docs" / "how-a-start-works.md"
README_RUNS = ("run --rm", "explain", "doctor")


def fenced(document: Path, language: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


def steps(text: str) -> list[str]:
    return [part for part in text.split("\n\n") if re.match(r" *\d+  ", part)]


def normalised(step: str, root: str) -> str:
    """Without line ends, ids, digests and numbers, all of which differ between machines."""
    words = " ".join(step.split()).replace(root, "ROOT")
    words = re.sub(r"(/sys/fs/cgroup\S* ?)+", "CGROUP ", words)  # in one hierarchy or several
    words = re.sub(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}(\.\.\.)?(?=[ /\]]|$)", "HEX", words)
    return re.sub(r"\d+", "N", words)


def without_commands(step: str) -> str:
    return "\n".join(line for line in step.splitlines() if not line.lstrip().startswith("$ "))


@requires("root", "idmap")
def test_the_steps_that_the_lesson_quotes_are_those_of_explain(minibox, environment):
    words = next(block for block in fenced(LESSON, "sh") if block.startswith("minibox explain")).split()
    done = minibox(*words[1:])
    assert done.returncode == 0, done.stderr
    root = environment["MINIBOX_ROOT"]
    real = steps(done.stdout)
    known = {normalised(text, root) for step in real for text in (step, without_commands(step))}
    quoted = [step for block in fenced(LESSON, "text") for step in steps(block)]
    assert len(quoted) > 25
    wrong = [step for step in quoted if normalised(step, "/var/lib/minibox") not in known]
    assert not wrong, "not in the output of explain:\n" + "\n\n".join(wrong)


def test_the_steps_that_the_lesson_quotes_are_in_order_within_each_quotation():
    for block in fenced(LESSON, "text"):
        numbers = [int(re.match(r" *(\d+)", step).group(1)) for step in steps(block)]  # type: ignore[union-attr]
        assert numbers == sorted(numbers) and numbers


def readme_commands() -> list[str]:
    lines = [line for block in fenced(CHECKOUT / "README.md", "sh") for line in block.splitlines()]
    commands = [line.partition("  #")[0].strip() for line in lines if line.startswith("minibox ")]
    return [command for command in commands if any(word in command for word in README_RUNS)]


def test_the_readme_has_commands_to_run():
    assert len(readme_commands()) >= 6


@requires("root", "idmap")
@pytest.mark.parametrize("command", readme_commands())
def test_a_command_of_the_readme_runs(command, minibox_command, environment, state):
    if "-it" in command:
        pytest.skip("needs a terminal: the tests of streams have one")
    environment = {**environment, "PATH": f"{Path(minibox_command[0]).parent}:{environment['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", command], env=environment, cwd=state, capture_output=True, text=True, check=False, timeout=60 * SLOWNESS,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if "doctor" in command:
        assert " pass, " in done.stdout  # its exit status is the machine's
        return
    assert done.returncode == 0, done.stderr
    assert bool(done.stdout or "--trace" in command) or command.endswith("true")


@requires("root", "idmap")
def test_the_script_that_the_lesson_plays_with_runs(minibox, environment, state):
    words = next(line for block in fenced(LESSON, "sh") for line in block.splitlines() if "--shell" in line).split()
    script = minibox(*words[1 : words.index(">")]).stdout
    (state / "start.sh").write_text(script)
    done = subprocess.run(
        ["sh", "start.sh"], cwd=state, env=environment, input="echo by hand; exit 3\n", capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("by hand\n", 3), done.stderr


EXERCISES = [
    (("wc", "-c", "/proc/keys"), (), r"^0 "),
    (("wc", "-c", "/proc/keys"), ("--security-opt", "systempaths=unconfined"), r"^[1-9]"),
    (("chown", "1", "/tmp"), (), r"^$"),
    (("chown", "1", "/tmp"), ("--cap-drop", "CHOWN"), r"Operation not permitted"),
]


@requires("root", "idmap")
@pytest.mark.parametrize(("command", "options", "answer"), EXERCISES)
def test_an_exercise_has_the_answer_that_the_lesson_gives(command, options, answer, minibox):
    done = minibox("run", "--rm", "--network", "none", *options, "base", *command)
    assert re.search(answer, done.stdout + done.stderr)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_refers_to_is_there(document):
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:docs|tests|tools|rootfs|native|minibox)/[\w./-]*)`", text)
    base = [document.parent / link.partition("#")[0] for link in links] + [CHECKOUT / path for path in paths]
    assert [str(path) for path in base if not os.path.exists(path)] == []


@cache
def help_options(command: str) -> set[str]:
    """The options in a command's help."""
    with redirect_stdout(StringIO()) as text:
        assert cli.main([*command.split(), "--help"]) == 0
    return set(re.findall(r"--[a-z][a-z-]*", text.getvalue()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_an_option_that_a_document_names_is_one(document):
    known = help_options("")
    groups = {
        "": COMMANDS,
        "builder ": BUILDER_COMMANDS,
        "container ": CONTAINER_COMMANDS,
        "image ": IMAGE_COMMANDS,
        "lab ": LAB_COMMANDS,
        "network ": NETWORK_COMMANDS,
        "system ": SYSTEM_COMMANDS,
        "volume ": VOLUME_COMMANDS,
    }
    for group, rows in groups.items():
        known = known.union(*(help_options(f"{group}{name}") for _, name, *_ in rows))
    known |= {"--root", "--runroot", "--debug", "--net"}
    known |= {"--minibox-image", "--minibox-keep", "--minibox-missing"}  # of the pytest plugin
    known |= {*REFUSED, *WITHOUT_EFFECT} | OF_LINES
    named = set(re.findall(r"`(--[a-z][a-z-]*)", document.read_text()))
    assert named - known <= {"--restart", "--mode"}
