"""A Plan in words and in shell: every operation has them, and an error names its step."""

from __future__ import annotations

import errno
import inspect
import re
import string
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.engine.container.lifecycle import STOP_STEPS
from minibox.engine.process.steps import STEPS
from minibox.engine.process.undo import UNDO
from minibox.linux.process import signatures
from minibox.plan import operations as op
from minibox.plan.explain import WORDS, arguments, clone_error, describe, rows, step_error, trace_rows
from minibox.plan.operations import Op
from minibox.plan.parent import OPERATIONS, undo_of
from minibox.plan.shell import COMMANDS, command, quote

SIGNATURES = signatures()
CONSTRUCTORS = {
    name.rstrip("_"): made
    for name, made in vars(op).items()
    if inspect.isfunction(made) and made.__module__ == op.__name__ and name != "by_mounter"
}
VALUES: dict[str, Any] = {
    "int": 3,
    "str": "/a b",
    "bytes": b"a b",
    "tuple[int, ...]": (1, 2),
    "tuple[str, ...]": ("/bin/sh", "-c", "a b"),
}
EXAMPLES = {"root": op.ROOT, "slot": op.FIRST_BIND, "device": 0x103}


def example(name: str) -> Op:
    """An operation as its constructor makes it of plain values."""
    parameters = inspect.signature(CONSTRUCTORS[name]).parameters.values()
    values = {
        each.name: "because" if each.name == "why" else EXAMPLES.get(each.name, VALUES[str(each.annotation)])
        for each in parameters
        if each.default is each.empty
    }
    step: Op = CONSTRUCTORS[name](**values)
    return step


def test_every_operation_of_the_interpreter_has_words_for_each_argument():
    for name, (_, kinds) in SIGNATURES.items():
        _, page, names = WORDS[name]
        assert len(names.split()) == len(kinds), name
        assert re.fullmatch(r"[a-z0-9_-]+\([1-9]\)", page), name
    assert set(WORDS) == {*SIGNATURES, *OPERATIONS}


def test_words_name_their_own_arguments_only():
    for name, (words, _, names) in WORDS.items():
        used = {field for _, field, _, _ in string.Formatter().parse(words) if field}
        assert used <= set(names.split()), name


def test_every_operation_that_is_made_has_as_many_arguments_as_the_interpreter_takes():
    for name in CONSTRUCTORS:
        step = example(name)
        assert step.name == name and len(step.args) == len(SIGNATURES[name][1])
    assert set(SIGNATURES) - set(CONSTRUCTORS) <= {"setns"}  # for lessons


KINDS: dict[str, Any] = {"u": 3, "s": "/a b/c", "z": None, "b": b"12345678", "v": ("a:/b c", "d=1")}


def parents_example(name: str) -> Op:
    """An operation of the parent's, of plain values."""
    return Op(name, tuple(KINDS[kind] for kind in OPERATIONS[name][1]), "because", op.PARENT)


def test_every_operation_of_the_parents_is_executed_or_undoes_one():
    assert {*STEPS, *UNDO, *STOP_STEPS} == set(OPERATIONS) and not {*STEPS} & {*UNDO}
    assert {undo.name for name in STEPS if (undo := undo_of(parents_example(name)))} | {"unmount_root"} == set(UNDO)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_of_the_parents_takes_its_arguments(name: str):
    arguments_, kinds, words, page, _, undo = OPERATIONS[name]
    assert len(arguments_.split()) == len(kinds) <= 7 and set(kinds) <= set(KINDS)
    assert set(undo.split()[1:]) <= set(arguments_.split()) and set(undo.split()[:1]) <= set(UNDO)
    assert re.fullmatch(r"([\w.-]+\([1-9]\))?", page) and words
    function = {**STEPS, **UNDO, **STOP_STEPS}[name]
    given = [*(["execution"] if name in STEPS else [1, 2, 3] if name in STOP_STEPS else []), *kinds]
    inspect.signature(function).bind(*given)
    undone = undo_of(parents_example(name))
    assert undone is None or len(undone.args) == len(OPERATIONS[undone.name][1])


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_of_the_parents_can_be_told_in_words_and_in_shell(name: str):
    step = parents_example(name)
    if name in ("make_userns", "send"):
        step = Op(name, (op.TAG_GO if name == "send" else op.FIRST_USERNS, *step.args[1:]), "", op.PARENT)
    words = describe(step)
    assert words and "{" not in words and list(arguments(step)) == OPERATIONS[name][0].split()
    shell = command(step)
    assert shell is None or subprocess.run(["sh", "-n", "-c", shell], capture_output=True).returncode == 0, shell


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_every_operation_can_be_told_in_words_and_in_shell(name: str):
    step = example(name)
    words = describe(step)
    assert words and "{" not in words and list(arguments(step)) == WORDS[name][2].split()
    shell = command(step)
    assert shell is None or subprocess.run(["sh", "-n", "-c", shell], capture_output=True).returncode == 0


def test_shell_commands_are_of_known_operations():
    assert set(COMMANDS) <= set(WORDS)


def test_arguments_are_as_a_reader_wants_them():
    mount = op.mount("tmpfs", op.ROOT, "/run", "", options="size=1k", attributes=op.NOSUID | op.NODEV)
    assert arguments(mount) == {
        "fstype": "tmpfs", "source": "", "options": "size=1k", "root": "the container's root", "target": "/run",
        "attributes": "nosuid|nodev", "slot": "the current mount",
    }  # fmt: skip
    assert arguments(op.unshare(0x2020000, "")) == {"flags": "NEWNS|NEWCGROUP"}
    assert arguments(op.setgroups((5, 70000), ""))["groups"] == "5,70000"
    assert arguments(op.capset(1 << 5, 1 << 5 | 1, 0, ""))["permitted"] == "chown kill"
    assert arguments(op.setrlimit(7, 1, 2, ""))["resource"] == "nofile"
    assert arguments(op.mkdir(op.HOST, "/x", "")) == {"root": "the host's root", "path": "/x", "mode": "0755"}
    assert arguments(op.attach(op.FIRST_BIND + 1, op.ROOT, "/x", ""))["mount"] == "bind source 2"
    mask = op.mask(op.CONTAINERS_PROC | op.NO_LINKS, "/kcore", "")
    assert arguments(mask) == {"root": "the container's /proc, without symlinks", "path": "/proc/kcore"}
    assert describe(mask) == "mask /proc/kcore" and '"$ROOT"/proc/kcore' in (command(mask) or "")
    assert describe(op.setgroups((), "")) == "set the supplementary groups to (none)"
    assert describe(op.chdir("{braces}", "")) == "change to the directory {braces}"


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])))
def test_quoted_text_reaches_a_command_unchanged(text: str):
    from shlex import split

    assert split(quote(text)) == [text]


# ---- errors -------------------------------------------------------------------------------------


def test_an_error_names_step_object_kernel_and_remedy():
    step = op.mount_overlay("/c/root", "lowerdir=0", "root", "")
    error = step_error(13, 31, step, errno.EINVAL)
    assert str(error) == "mount overlay on /c/root/root: Invalid argument (EINVAL from mount(2), step 14 of 31)"
    assert error.hint and "--root" in error.hint and "ext4" in error.hint
    assert (error.index, error.errno, error.status) == (13, errno.EINVAL, 125)


def test_a_process_that_was_killed_has_no_errno():
    error = step_error(0, 2, op.setsid(""), 0)
    assert str(error) == "begin a session: the process was killed in step 1 of 2" and error.hint


@pytest.mark.parametrize("name", CONSTRUCTORS)
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSPC, 9999])
def test_every_step_can_fail_in_one_line(name: str, number: int):
    message = str(step_error(3, 9, example(name), number))
    assert message[0].islower() and message.endswith(", step 4 of 9)") and "\n" not in message


def test_a_full_disk_is_told():
    error = step_error(3, 9, op.mount_overlay("/c", "", "root", ""), errno.ENOSPC)
    assert error.hint and "disk is full" in error.hint


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSPC, errno.EUSERS, errno.EAGAIN, errno.ENOSYS])
def test_a_refused_clone_says_what_to_do(number: int):
    error = clone_error(OSError(number, ""), 0x20020000)
    assert str(error).startswith("clone a process with NEWNS|NEWPID: ") and errno.errorcode[number] in str(error)
    assert error.hint
    assert str(clone_error(OSError(number, ""), 0)).startswith("clone a process: ")


# ---- rows ---------------------------------------------------------------------------------------


def test_rows_are_numbered_from_one():
    from minibox.plan.compiler import Plan

    plan = Plan(
        (Op("clone", (0x20000, (), 1), "a", op.PARENT), op.by_mounter(op.setsid("b")), op.chdir("/", "c")), 0x20000
    )
    found = rows(plan)
    assert [(row["index"], row["actor"], row["operation"], row["why"]) for row in found] == [
        (1, "parent", "clone", "a"), (2, "mounter", "setsid", "b"), (3, "init", "chdir", "c"),
    ]  # fmt: skip
    assert found[0]["shell"] == "unshare --mount" and found[2]["manual"] == "chdir(2)"


def test_a_trace_has_what_was_reached_and_marks_what_failed():
    failed = step_error(1, 3, op.chdir("/x", ""), errno.ENOENT)
    trace = [(0, op.setsid(""), 1000, 3500), (1, op.chdir("/x", ""), 4000, 5000), (2, op.umask(0, ""), 0, 0)]
    found = trace_rows(trace, failed)
    assert [(row["index"], row["microseconds"], bool(row["error"])) for row in found] == [
        (1, 2.5, False),
        (2, 1.0, True),
    ]
