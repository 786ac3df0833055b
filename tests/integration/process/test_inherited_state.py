"""What a program inherits: each of ours works, or says what is wrong, whatever state its caller left it in."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minibox as module
from tests.conftest import AS_USER, Run
from tests.container_box import Box
from tests.leaks import SLOWNESS
from tests.probes import requires, requires_user

pytestmark = requires("root")

RUN = ("run", "--rm", "--network", "none")
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 4
END_S = 60 * SLOWNESS


def ignored() -> None:
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1, signal.SIGTTOU, 40):
        signal.signal(number, signal.SIG_IGN)


def blocked() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())


def timed() -> None:
    signal.setitimer(signal.ITIMER_VIRTUAL, 1000)
    signal.setitimer(signal.ITIMER_PROF, 1000)


def limited(kind: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (value, value))


def field(text: str, name: str) -> str:
    return next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:"))


# ---- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("inherited", [ignored, blocked, timed])
@pytest.mark.parametrize("options", [(), ("--init",), ("--userns", "host")])
def test_a_container_has_clean_signals(minibox: Run, inherited: Any, options: tuple[str, ...]) -> None:
    done = minibox(*RUN, *options, "base", "cat", "/proc/self/status", preexec_fn=inherited)
    assert done.returncode == 0, done.stderr
    assert {int(field(done.stdout, name), 16) for name in ("SigBlk", "SigIgn", "SigPnd", "ShdPnd")} == {0}


def test_ids_of_its_own_though_sigchld_is_ignored(minibox: Run, state: Path) -> None:
    """The answer of a probe was lost, taken for no, and kept: all later containers were real root."""
    normal = minibox(*RUN, "base", "cat", "/proc/self/uid_map").stdout
    shutil.rmtree(state / "root/cache")
    done = minibox(*RUN, "base", "cat", "/proc/self/uid_map", preexec_fn=ignored)
    assert (done.stderr, done.stdout.split()[0::2]) == ("", normal.split()[0::2])


@pytest.mark.parametrize("inherited", [ignored, blocked])
def test_a_detached_container_ends(box: Box, inherited: Any) -> None:
    box.ok("run", "-d", "--network", "none", "--name", "cc", "base", "sh", "-c", "exit 3", preexec_fn=inherited)
    assert box.ok("wait", "cc", preexec_fn=inherited) == "3"
    assert box("start", "-a", "cc", preexec_fn=inherited).returncode == 3
    box.start("dd", "sleep 1000")
    box.ok("stop", "-t", "0", "dd", preexec_fn=inherited)


def test_a_signal_that_was_blocked_ends_it(minibox_command: list[str], environment: dict[str, str]) -> None:
    words = [*minibox_command, *RUN, "base", "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"]
    with subprocess.Popen(words, env=environment, stdout=-1, preexec_fn=blocked) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        process.terminate()
        try:
            assert process.wait(END_S) == 9
        finally:
            process.kill()


# ---- the working directory -----------------------------------------------------------------------


@pytest.fixture
def gone(tmp_path: Path) -> Callable[[], None]:
    """Be in a directory that is removed."""

    def enter() -> None:
        directory = tmp_path / "gone"
        directory.mkdir()
        os.chdir(directory)
        directory.rmdir()

    return enter


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--rm", "--userns", "host", "-v", ".:/m", "base", "ls", "/m"),
        ("run", "--rm", "-v", "../x:/m", "base", "ls", "/m"),
        ("run", "--rm", "-v", "./etc:/m", "base", "ls", "/m"),
        ("create", "-v", ".:/m", "base"),
        ("cp", "etc", "cc:/"),
        ("cp", "cc:/etc/passwd", "."),
        ("--root", "rel", "images"),
        ("--runroot", "rel", "ps"),
    ],
)
def test_a_removed_working_directory_is_no_place(box: Box, gone: Any, words: tuple[str, ...]) -> None:
    box.ok("create", "--network", "none", "--name", "cc", "base")
    assert "the working directory was removed" in box.refused(*words, preexec_fn=gone)


def test_what_needs_no_working_directory_does_without(box: Box, gone: Any, tmp_path: Path) -> None:
    box.ok("create", "--network", "none", "--name", "cc", "base", preexec_fn=gone)
    box.ok("cp", "/etc/hostname", "cc:/tmp/h", preexec_fn=gone)
    box.ok("cp", "cc:/tmp/h", str(tmp_path / "h"), preexec_fn=gone)
    assert box.ok(*RUN, "-v", f"{tmp_path}:/m", "base", "ls", "/m", preexec_fn=gone) == "h"


# ---- standard streams ----------------------------------------------------------------------------


def closed(*fds: int) -> Callable[[], None]:
    def close() -> None:
        for fd in fds:
            os.close(fd)

    return close


WRITERS = [
    ("ps",), ("images",), ("info",), ("version",), ("--help",), ("stats", "--no-stream"), ("save", "base"),
    ("export", "cc"), ("cp", "cc:/etc/passwd", "-"), ("logs", "cc"), ("diff", "base"), ("inspect", "cc"),
    ("events", "--since", "1h", "--until", "0s"), ("system", "df"), ("explain", "run", "base"),
    ("run", "-d", "--name", "new", "base", "true"),
]  # fmt: skip
READERS = [
    ("load",), ("import", "-", "x"), ("login", "-u", "a", "--password-stdin", "localhost:1"), ("system", "prune"),
    ("image", "prune"), ("cp", "-", "cc:/tmp"),
]  # fmt: skip


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_a_closed_output_is_an_error_in_words(box: Box, words: tuple[str, ...]) -> None:
    log = ("--log-driver", "json-file")
    box.ok("run", "--network", "none", "--name", "cc", *log, "base", "sh", "-c", "echo hi; echo new >/etc/new")
    done = box(*words, preexec_fn=closed(1))
    assert done.returncode == 125
    assert done.stderr.splitlines()[0].endswith("write standard output: it is closed"), done.stderr
    assert box(*words, preexec_fn=closed(0, 1, 2)).returncode == 125
    assert set(box.states()) == {"cc"}


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_a_closed_input_is_an_error_in_words(box: Box, words: tuple[str, ...]) -> None:
    box.ok("create", "--network", "none", "--name", "cc", "base")
    done = box(*words, preexec_fn=closed(0))
    assert done.returncode == 125
    assert done.stderr.splitlines()[0].endswith("read standard input: it is closed"), done.stderr


@pytest.mark.parametrize("fds", [(0,), (1,), (2,), (0, 1), (0, 1, 2)], ids=str)
def test_no_file_of_ours_takes_the_place_of_a_closed_stream(box: Box, tmp_path: Path, fds: tuple[int, ...]) -> None:
    """What is written to them afterwards would be in it."""
    box.ok("save", "-o", str(tmp_path / "a.tar"), "base", preexec_fn=closed(*fds))
    box.ok("load", "-q", "-i", str(tmp_path / "a.tar"), preexec_fn=closed(*(fd for fd in fds if fd != 1)))
    script = "echo out; echo err >&2; exit 4"
    done = box("run", "--network", "none", "--name", "cc", "base", "sh", "-c", script, preexec_fn=closed(*fds))
    assert done.returncode == 4
    assert box.state("cc")["ExitCode"] == 4
    box.ok("system", "check", preexec_fn=closed(*(fd for fd in fds if fd != 1)))


def test_a_stream_that_does_not_block_is_waited_for(
    minibox_command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    """O_NONBLOCK belongs to the file, so that another program that has it can set it."""
    archive = tmp_path / "a.tar"
    subprocess.run([*minibox_command, "save", "-o", archive, "base"], env=environment, check=True)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with subprocess.Popen([*minibox_command, "save", "base"], env=environment, stdout=writer) as process:
        os.close(writer)
        with open(reader, "rb") as file:
            assert len(file.read()) == archive.stat().st_size
        assert process.wait(END_S) == 0
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    words = [*minibox_command, "load", "-q"]
    with subprocess.Popen(words, env=environment, stdin=reader, stdout=subprocess.DEVNULL) as process:
        os.close(reader)
        with open(writer, "wb") as file:
            file.write(archive.read_bytes())
        assert process.wait(END_S) == 0


def test_what_the_encoding_lacks_is_written_another_way(box: Box) -> None:
    box.ok("create", "--network", "none", "--label", "x=ü中", "base")
    words = ("ps", "-a", "--format", "{{.Labels}}")
    assert box.ok(*words, env={"PYTHONIOENCODING": "latin-1"}, encoding="latin-1").endswith(r"x=ü\u4e2d")
    assert box.ok(*words, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, encoding="utf-8")


# ---- limits and masks ----------------------------------------------------------------------------


def test_a_supervisor_with_few_descriptors(box: Box) -> None:
    """poll(2) takes no more entries than RLIMIT_NOFILE; it failed unnoticed, and the end was never seen."""
    box.start("cc", "until [ -e /go ]; do sleep 0.1; done; echo hi; exit 3")
    _, supervisor = box.live("cc")
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (20, 20))
    box.tell("cc")
    assert box.ok("wait", "cc") == "3"
    assert box.ok("logs", "cc") == "hi"


def test_few_descriptors_are_enough_for_a_start(box: Box) -> None:
    few = limited(resource.RLIMIT_NOFILE, 20)
    box.ok("run", "-d", "--network", "none", "--name", "cc", "base", "sh", "-c", "ulimit -n; exit 3", preexec_fn=few)
    assert box.ok("wait", "cc") == "3"
    assert box.ok("logs", "cc") == "20"
    assert box.ok(*RUN, "base", "sh", "-c", "ulimit -n", preexec_fn=limited(resource.RLIMIT_NOFILE, 32)) == "32"


def test_too_few_descriptors_are_told(box: Box) -> None:
    for few in (5, 12, 19):
        for words in (("version",), (*RUN, "base", "true")):
            why = box.refused(*words, preexec_fn=limited(resource.RLIMIT_NOFILE, few))
            assert why == f"a program may have only {few} files open here (ulimit -n), and minibox needs at least 20"
    done = box(*RUN, "base", "true", preexec_fn=limited(resource.RLIMIT_NOFILE, 20))
    if done.returncode:  # more or fewer are needed, by what the host has
        assert "Too many open files" in done.stderr and "hint: ulimit -n limits" in done.stderr


@pytest.mark.parametrize("size", [0, 1, 100, 4000])
def test_files_that_may_not_become_large_enough_are_told(box: Box, size: int) -> None:
    done = box(*RUN, "base", "true", preexec_fn=limited(resource.RLIMIT_FSIZE, size))
    assert done.returncode == 125
    assert "File too large (EFBIG)" in done.stderr and "hint: ulimit -f limits" in done.stderr
    assert box.ok(*RUN, "base", "echo", "hi", preexec_fn=limited(resource.RLIMIT_FSIZE, 64 << 10)) == "hi"


@pytest.mark.parametrize("mask", [0, 0o777, 0o700])
def test_the_umask(box: Box, tmp_path: Path, mask: int) -> None:
    """It neither locks us out of what we have written, nor opens it to everybody."""
    box.ok("run", "--network", "none", "--name", "cc", "base", "sh", "-c", "umask; touch /f", preexec_fn=lambda: os.umask(mask))  # fmt: skip
    assert box.ok("run", "--rm", "--network", "none", "base", "sh", "-c", "umask") == "0022"
    box.ok("commit", "cc", "made", preexec_fn=lambda: os.umask(mask))
    box.ok("save", "-o", str(tmp_path / "a.tar"), "made", preexec_fn=lambda: os.umask(mask))
    written = [
        tmp_path / "a.tar",
        *(path for path in box.directory.rglob("*") if not {"layers", "work", "rootfs"} & {*path.parts}),
    ]
    modes = {
        str(path): path.lstat().st_mode for path in written if not path.is_symlink() and "rootfs" not in path.parts
    }
    assert not [path for path, mode in modes.items() if mode & 0o1002 == 0o002 or mode & 0o600 != 0o600]


@requires_user
def test_the_umask_of_an_ordinary_user(user_box: Box) -> None:
    def closed_mask() -> None:
        os.umask(0o777)

    assert user_box.ok(*RUN, "base", "echo", "hi", preexec_fn=closed_mask) == "hi"


def test_securebits_are_not_the_containers(minibox: Run, tmp_path: Path) -> None:
    """With SECBIT_NO_SETUID_FIXUP root inside would keep its capabilities when it becomes another user."""
    (tmp_path / "bits.c").write_text("#include <sys/prctl.h>\nint main(void) { return prctl(PR_GET_SECUREBITS); }")
    subprocess.run(["cc", "-static", "-o", tmp_path / "bits", tmp_path / "bits.c"], check=True)
    words = ("--userns", "host", "-v", f"{tmp_path}:/m", "base", "/m/bits")
    libc = ctypes.CDLL(None)

    def no_fixup() -> None:
        assert libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) == 0

    assert minibox(*RUN, *words, preexec_fn=no_fixup).returncode == 0


# ---- in another's process ------------------------------------------------------------------------


@pytest.fixture
def sigchld_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


def test_an_embedding_program_may_ignore_sigchld(api: None, state: Path, sigchld_ignored: None) -> None:
    shutil.rmtree(state / "root/cache")
    with module.Sandbox("base", network="none") as box:
        assert box.run(["sh", "-c", "exit 3"]).returncode == 3
        assert box.run(["cat", "/proc/self/uid_map"], capture_output=True, text=True).stdout.split()[1] != "0"
        box.write_file("/tmp/x", "hi")
        assert box.read_file("/tmp/x") == b"hi"
        assert ("A", "/tmp/x") in box.diff()
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN


@requires_user
def test_a_umask_that_locks_an_embedding_program_out(user_environment: dict[str, str]) -> None:
    script = "import os, minibox; os.umask(0o777); minibox.run('base', ['true'], network='none')"
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, env=user_environment, capture_output=True, text=True, check=False, **AS_USER)
    assert "the umask of this process is 0777" in done.stderr


def test_an_embedding_programs_state_is_left_alone(api: None) -> None:
    mask = os.umask(0o027)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        done = module.run("base", ["cat", "/proc/self/status"], network="none", capture_output=True, text=True)
        assert int(field(done.stdout, "SigBlk"), 16) == 0
        assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        assert os.umask(mask) == 0o027


@pytest.mark.parametrize("fds", [(0,), (1,), (0, 1, 2)], ids=str)
def test_an_embedding_program_with_closed_streams(
    environment: dict[str, str], tmp_path: Path, fds: tuple[int, ...]
) -> None:
    """A socket of ours had the number, and what a container wrote went to the launcher, as a request."""
    script = """
import sys, os, minibox
with minibox.Sandbox("base", network="none") as box:
    for _ in range(3):
        assert box.run(["sh", "-c", "cat; echo lost"]).returncode == 0
    assert box.run(["echo", "hi"], capture_output=True).stdout == b"hi\\n"
assert all(os.readlink(f"/proc/self/fd/{fd}") == "/dev/null" for fd in map(int, sys.argv[1:]))
open("worked", "w")
"""
    words = [sys.executable, "-c", script, *map(str, fds)]
    done = subprocess.run(words, env=environment, cwd=tmp_path, preexec_fn=closed(*fds), check=False, timeout=END_S)
    assert (done.returncode, (tmp_path / "worked").exists()) == (0, True)


def test_a_removed_working_directory_of_an_embedding_program(api: None, gone: Callable[[], None]) -> None:
    before = os.open(".", os.O_RDONLY)
    gone()
    try:
        assert module.run("base", ["true"], network="none").returncode == 0
        with pytest.raises(module.MiniboxError, match="the working directory was removed"):
            module.run("base", ["ls", "/m"], network="none", userns="host", mounts=[(".", "/m")])
    finally:
        os.fchdir(before)
        os.close(before)


def test_little_memory_is_told(minibox: Run) -> None:
    for mebibytes in (24, 28, 32, 36, 40):
        why = minibox("images", preexec_fn=limited(resource.RLIMIT_AS, mebibytes << 20)).stderr
        assert "internal error" not in why
