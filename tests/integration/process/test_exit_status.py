"""How a run ends: the status that the caller sees, signals passed on, and what a killed minibox leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.leaks import SLOWNESS
from tests.probes import requires_root

pytestmark = requires_root

RUN = ("run", "--rm", "--network", "none")
FORWARDED = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2")
PATIENCE_S = 10 * SLOWNESS


@pytest.fixture
def run(minibox):
    """``run("base", "true")`` -> CompletedProcess."""

    def call(*words, **more):
        return minibox(*RUN, *words, **more)

    return call


@pytest.fixture
def popen(minibox, minibox_command, environment):
    """As `run`, started and not waited for; killed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(*words, run=RUN):
            process = subprocess.Popen(
                [*minibox_command, *run, *words], env=environment, stdout=-1, stderr=-1, stdin=-3, text=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start
    minibox("ps")  # the next command collects what a killed one leaves


def _until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# ---- the command's own ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 2, 42, 124, 125, 126, 127, 128, 130, 137, 254, 255])
def test_the_commands_status_is_ours(run, status):
    done = run("base", "sh", "-c", f"exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.parametrize("init", [(), ("--init",)])
@pytest.mark.parametrize("name", ["KILL", "SEGV", "ABRT"])
def test_a_signal_that_ends_the_command_is_128_plus_its_number(run, name, init):
    """Of a child of the shell's: process 1 is out of its own signals' reach."""
    done = run(*init, "base", "sh", "-c", f"sh -c 'kill -{name} $$'; exit $?")
    assert done.returncode == 128 + getattr(signal, f"SIG{name}")


# ---- what can't be executed ----------------------------------------------------------------------


def test_missing_command(run):
    done = run("base", "no-such-thing")
    assert done.returncode == 127
    assert done.stderr.splitlines() == [
        "minibox: exec no-such-thing: no such command in the image",
        "hint: minibox looked for it in /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]


@pytest.mark.parametrize("word", ["/no/such/thing", "./thing", "/bin/sh/thing"])
def test_missing_path(run, word):
    done = run("base", word)
    assert done.returncode == 127
    assert done.stderr.splitlines()[0] == f"minibox: exec {word}: no such command in the image"


ELF_OTHER = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + b"\xb7\x00" + bytes(44)  # e_machine: aarch64
ELF_DAMAGED = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + b"\x3e\x00" + bytes(44)


def _elf_with_loader(loader: bytes) -> bytes:
    """A program of x86_64 that is one program header, PT_INTERP; elf(5)."""
    number = int.to_bytes
    word = loader + b"\0"
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00" + number(1, 4, "little")
    header += number(0x400000, 8, "little") + number(64, 8, "little") + bytes(8) + bytes(4)
    header += number(64, 2, "little") + number(56, 2, "little") + number(1, 2, "little") + bytes(6)
    fields = (120, 0x400078, 0x400078, len(word), len(word), 1)
    return header + number(3, 4, "little") + number(4, 4, "little") + b"".join(
        number(field, 8, "little") for field in fields
    ) + word  # fmt: skip


CANNOT = {
    "mode": (b"#!/bin/sh\n", 0o644, "its mode 0644 has no execute bit"),
    "empty": (b"", 0o755, "it is empty"),
    "text": (b"echo hi\n", 0o755, "it is neither a program nor a script that begins with #!"),
    "carriage-return": (b"#!/bin/sh\r\necho hi\r\n", 0o755, "its first line ends in a carriage return"),
    "interpreter": (b"#!/usr/bin/perl -w\n", 0o755, "its interpreter /usr/bin/perl is not in the image"),
    "no-interpreter": (b"#!\n", 0o755, ""),
    "machine": (ELF_OTHER, 0o755, "it is a program for aarch64, but this host is x86_64"),
    "damaged": (ELF_DAMAGED, 0o755, "the program is damaged"),
    "loader": (_elf_with_loader(b"/lib/ld-none.so.1"), 0o755, "its loader /lib/ld-none.so.1 is not in the image"),
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the programs here are of x86_64")
@pytest.mark.parametrize("init", [(), ("--init",)], ids=["", "init"])
@pytest.mark.parametrize("kind", CANNOT)
def test_what_cannot_be_executed_says_why(run, state, kind, init):
    content, mode, why = CANNOT[kind]
    (state / "bin").mkdir()
    (state / "bin" / "thing").write_bytes(content)
    (state / "bin" / "thing").chmod(mode)
    done = run(*init, "-v", f"{state}/bin:/opt", "base", "/opt/thing")
    assert done.returncode == 126, done
    first, *rest = done.stderr.splitlines()
    assert first.startswith("minibox: exec /opt/thing: ")
    if not init:
        assert why in first
        assert len(rest) <= 1 and all(line.startswith("hint: ") for line in rest)


def test_a_directory_is_no_command(run):
    done = run("base", "/etc")
    assert (done.returncode, done.stderr) == (126, "minibox: exec /etc: it is a directory\n")


def test_a_symlink_to_nothing(run, state):
    (state / "bin").mkdir()
    (state / "bin" / "thing").symlink_to("/no/where")
    done = run("-v", f"{state}/bin:/opt", "base", "/opt/thing")
    assert done.returncode == 127
    assert done.stderr == "minibox: exec /opt/thing: it is a symlink to a missing file\n"


def test_a_command_the_user_may_not_execute(run, state):
    (state / "bin").mkdir()
    (state / "bin" / "thing").write_text("#!/bin/sh\n")
    (state / "bin" / "thing").chmod(0o700)
    done = run("-u", "1000", "-v", f"{state}/bin:/opt", "base", "/opt/thing")
    assert done.returncode == 126
    assert "Permission denied" in done.stderr


def test_minibox_itself_fails_with_125(run):
    assert run("no-such-image", "true").returncode == 125
    assert run("--no-such-option", "base", "true").returncode == 125
    assert run("-v", "/no/such/source:/mnt", "base", "true").returncode == 125


# ---- signals to minibox --------------------------------------------------------------------------


TRAPS = "".join(f"trap 'echo {name}; exit 9' {name}; " for name in FORWARDED)


@pytest.mark.parametrize("init", [(), ("--init",)], ids=["", "init"])
@pytest.mark.parametrize("name", FORWARDED)
def test_signals_reach_the_command(popen, name, init):
    process = popen(*init, "base", "sh", "-c", f"{TRAPS} echo ready; while :; do sleep 0.05; done")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.stdout.read() == f"{name}\n"
    assert process.wait(PATIENCE_S) == 9


def test_many_signals_in_a_row_all_arrive(popen):
    script = "n=0; trap 'n=$((n+1)); echo $n' USR1; echo ready; while :; do sleep 0.01; done"
    process = popen("base", "sh", "-c", script)
    assert process.stdout.readline() == "ready\n"
    for number in range(1, 51):
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == f"{number}\n"
    process.kill()


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_init_dies_of_a_signal_where_a_bare_command_ignores_it(popen, name):
    process = popen("--init", "base", "sh", "-c", "echo ready; exec sleep 100")
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    number = getattr(signal, f"SIG{name}")
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == 128 + number


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_the_third_time_kills(popen, name):
    process = popen("base", "sh", "-c", "trap 'echo again' INT TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout.readline() == "ready\n"
    for _ in range(2):
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.stdout.readline() == "again\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.wait(PATIENCE_S) == 137


def test_signals_blocked_or_ignored_by_the_caller_are_not_inside(minibox_command, environment, minibox):
    script = "import ctypes,os,sys,signal\nsignal.signal(signal.SIGPIPE, signal.SIG_IGN)\n"
    # 32 is the C library's own, which only the raw rt_sigaction(2) can set: some ancestors of a CI job do.
    script += "number = {'x86_64': 13, 'aarch64': 134}[os.uname().machine]\n"
    script += "ctypes.CDLL(None).syscall(number, 32, (ctypes.c_uint64 * 4)(1, 0, 0, 0), None, 8)\n"
    script += "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\nos.execv(sys.argv[1], sys.argv[1:])"
    words = [*minibox_command, *RUN, "base", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    done = subprocess.run(["/usr/bin/python3", "-c", script, *words], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16]


def test_stop_signal_and_timeout_are_accepted(run):
    assert run("--stop-signal", "SIGQUIT", "--stop-timeout", "3", "base", "true").returncode == 0
    refused = run("--stop-signal", "SIGNONE", "base", "true")
    assert refused.returncode == 125
    assert "SIGNONE" in refused.stderr


# ---- --init --------------------------------------------------------------------------------------


def test_init_is_process_1_and_reaps_orphans(run):
    # Of the children of process 1, living and zombies, only the command is left.
    children = "$(grep -l '^PPid:.1$' /proc/[0-9]*/status)"
    wait = f'until [ "{children}" = /proc/2/status ]; do sleep 0.05; done'
    script = f"for n in 1 2 3 4 5; do (sleep 0.05 &) ; done; {wait}; echo $$"
    assert run("--init", "base", "sh", "-c", script).stdout == "2\n"


def test_without_init_the_command_is_process_1(run):
    assert run("base", "sh", "-c", "echo $$").stdout == "1\n"


@pytest.mark.parametrize("status", [0, 3, 255])
def test_init_ends_as_the_command(run, status):
    assert run("--init", "base", "sh", "-c", f"exit {status}").returncode == status


def test_init_says_when_the_command_is_missing(run):
    done = run("--init", "base", "no-such-thing")
    assert done.returncode == 127
    assert "no-such-thing" in done.stderr


def test_what_the_command_leaves_running_ends_with_it(run):
    assert run("base", "sh", "-c", "sleep 1000 & exit 3").returncode == 3


# ---- a killed minibox ----------------------------------------------------------------------------


def _tree(directory: Path) -> set[str]:
    """Everything below but the caches, which may grow."""
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if not {"cache", "tmp", "layers", "images"} & set(path.relative_to(directory).parts) and path.name != "lock"
    }


def _inside(marker: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if marker.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


HARD_TO_KILL = {
    "plain": ((), "echo ready; exec sleep {marker}"),
    "init": (("--init",), "echo ready; exec sleep {marker}"),
    "host-ids": (("--userns", "host"), "echo ready; exec sleep {marker}"),
    "user": (("-u", "1000"), "echo ready; exec sleep {marker}"),
    # A change of ids forgets the wish to die with the parent; prctl(2), PR_SET_PDEATHSIG.
    "drops-privileges": ((), "echo ready; exec su user -s /bin/sh -c 'exec sleep {marker}'"),
    "children": ((), "trap '' TERM INT; (setsid sleep {marker} &); echo ready; while :; do sleep 1; done"),
}


@pytest.mark.parametrize("kind", HARD_TO_KILL)
def test_sigkill_of_minibox_ends_the_container_and_leaves_nothing(popen, minibox, state, kind):
    options, script = HARD_TO_KILL[kind]
    marker = f"1000{os.getpid()}.{abs(hash(kind)) % 10**6}"
    minibox("run", "--rm", "--name", "first", "base", "true")  # what the first of a state directory makes and keeps
    before = _tree(state)
    words = ("run", "--rm", "--name", "victim", *options, "base", "sh", "-c", script.format(marker=marker))
    process = popen(*words, run=())
    assert process.stdout.readline() == "ready\n"
    assert _until(lambda: _inside(marker)), "it runs"
    time.sleep(0.1)
    (victim,) = (path.name for path in (state / "root/live").iterdir())
    process.kill()
    process.wait()
    assert _until(lambda: not _inside(marker)), "the container is dead"
    again = minibox("run", "--rm", "--name", "victim", "base", "echo", "next")
    assert (again.returncode, again.stdout) == (0, "next\n"), again.stderr
    assert _tree(state) == before
    assert not [*Path("/sys/fs/cgroup").glob(f"minibox-{victim}"), *Path("/sys/fs/cgroup").glob(f"*/minibox-{victim}")]
