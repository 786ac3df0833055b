"""Files of a sandbox, in a program with threads or much memory: by a small process, that is started once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import minibox
from minibox.engine.files import worker
from minibox.linux import launcher
from tests.conftest import AS_USER, Run
from tests.probes import requires_user

root = pytest.mark.requires("root")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process counts as too large to be forked."""
    monkeypatch.setattr(worker, "FORKED_BYTES_MAX", 0)


def forks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The results of each fork of this process from now on."""
    found: list[int] = []
    fork = os.fork

    def noted() -> int:
        found.append(fork())
        return found[-1]

    monkeypatch.setattr(os, "fork", noted)
    return found


@root
def test_files_are_written_read_and_copied_without_a_fork(
    api: None, large: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_text("of the host")
    forked = forks(monkeypatch)
    with minibox.Sandbox("base") as box:
        box.write_file("/own", b"x" * 1_000_000, user="nobody", mode=0o600)
        assert box.read_file("/own") == b"x" * 1_000_000
        box.put(tmp_path / "tree", "/tree")
        assert box.run(["stat", "-c", "%u %a", "/own", "/tree/sub/file"], capture_output=True, text=True).stdout == (
            "65534 600\n0 644\n"
        )
        box.get("/tree", tmp_path / "back")
        assert (tmp_path / "back" / "sub" / "file").read_text() == "of the host"
    assert forked == []


@root
def test_errors_are_those_of_a_fork(api: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def errors() -> list[str]:
        found = []
        for attempt in (
            lambda: box.write_file("/etc", "x"),
            lambda: box.write_file("/none/x", "x" * 1_000_000),
            lambda: box.write_file("/dev/null", "x"),
            lambda: box.read_file("/none"),
            lambda: box.get("/none", tmp_path / "x"),
            lambda: box.put(tmp_path, "/etc/passwd"),
        ):
            with pytest.raises(minibox.MiniboxError) as raised:
                attempt()
            found.append(f"{raised.value} {raised.value.hint}")
        return found

    with minibox.Sandbox("base") as box:
        by_fork = errors()
        monkeypatch.setattr(worker, "FORKED_BYTES_MAX", 0)
        assert errors() == by_fork


@root
def test_no_link_leads_out(api: None, large: None, tmp_path: Path) -> None:
    with minibox.Sandbox("base") as box:
        box.run(["ln", "-s", str(tmp_path), "/link"], check=True)
        box.run(["sh", "-c", f"mkdir -p {tmp_path}"], check=True)
        box.write_file("/link/file", "inside")
        assert not list(tmp_path.iterdir())
        box.run(["ln", "-s", "/proc/1/root/etc/hostname", "/magic"], check=True)
        with pytest.raises(minibox.MiniboxError):
            box.read_file("/magic")


@root
def test_all_threads_use_one(api: None) -> None:
    with minibox.Sandbox("base") as box, ThreadPoolExecutor(8) as pool:

        def exchange(number: int) -> bytes:
            box.write_file(f"/{number}", str(number))
            return box.read_file(f"/{number}")

        assert list(pool.map(exchange, range(64))) == [str(number).encode() for number in range(64)]
        assert worker.of_caller() is worker.of_caller()


@root
@pytest.mark.usefixtures("minibox")  # what it had forked for a job may be left to this process, as init
def test_one_that_was_killed_is_started_anew(api: None, large: None) -> None:
    with minibox.Sandbox("base") as box:
        box.write_file("/x", "1")
        first = worker.of_caller()
        assert first
        os.kill(first.pid, signal.SIGKILL)
        while first.is_alive():
            time.sleep(0.01)
        assert box.read_file("/x") == b"1"


@root
def test_a_child_by_fork_has_its_own(api: None, large: None) -> None:
    with minibox.Sandbox("base") as box:
        box.write_file("/x", "of the parent")
        child = os.fork()
        if child == 0:
            try:
                with minibox.Sandbox("base") as other:
                    other.write_file("/x", "of the child")
                    found = other.read_file("/x")
                worker.close_all()
                launcher.end_all()
                os._exit(found != b"of the child")
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert box.read_file("/x") == b"of the parent"


PROGRAM = """
import minibox, os
from minibox.engine.files import worker
worker.FORKED_BYTES_MAX = 0
with minibox.Sandbox("base") as box:
    box.write_file("/own", "text", user="nobody", mode=0o600)
    print(box.read_file("/own").decode(), box.run(["stat", "-c", "%u", "/own"], capture_output=True, text=True).stdout.strip())
    print(worker.of_caller().pid, flush=True)
    {end}
"""


@root
@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), 9)"], ids=["ends", "is killed"])
def test_it_ends_with_its_program(environment: dict[str, str], request: pytest.FixtureRequest, end: str) -> None:
    command: Run = request.getfixturevalue("minibox")
    program = PROGRAM.replace("{end}", end)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    words = done.stdout.split()
    assert words[:2] == ["text", "65534"], done.stderr
    while runs(words[2]):
        time.sleep(0.01)
    command("ps")  # collects what a killed program left


def runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@requires_user
def test_an_ordinary_users_has_the_ids_of_the_sandbox(
    user_command: list[str], user_environment: dict[str, str]
) -> None:
    command = user_command
    python = command[:-2] if command[0] == "/usr/bin/env" else [str(Path(command[0]).parent / "python")]
    program = PROGRAM.replace("{end}", "pass")
    done = subprocess.run(
        [*python, "-c", program], capture_output=True, text=True, env=user_environment, check=False, **AS_USER
    )
    assert done.stdout.split()[:2] == ["text", "65534"], done.stderr
