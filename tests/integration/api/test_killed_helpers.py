"""A process that makes others for us is killed while it is waited for: that is an error, and never a wait for ever.

Its end of a socket isn't closed by its death where a process that it made has a copy; so who waits watches it itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import minibox
from minibox.base.home import Home
from minibox.engine.container import removal, start
from minibox.engine.files import worker
from minibox.engine.host import user_namespace
from minibox.engine.process import steps
from minibox.engine.spec.options import RunOptions
from minibox.errors import MiniboxError
from minibox.linux import launcher, requests, supervisor
from minibox.linux.launcher import LaunchedChild, Launcher
from minibox.linux.process import signatures
from minibox.linux.supervisor import Supervisor
from minibox.plan import operations as op
from minibox.plan.encode import encode
from tests.container_box import until
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = [requires("root"), pytest.mark.usefixtures("orphans")]

WAIT_S = 20 * SLOWNESS


class Waiting:
    """A plan whose process waits for a word of ours, and dies with nobody: it holds what its parent has open."""

    def __init__(self) -> None:
        self.buffer = encode([op.wait(op.TAG_GO, "until it may end")], signatures())
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    plan = Waiting()
    yield plan
    plan.close()


def outcome(ask: Callable[[], object], pid: int) -> BaseException:
    """What comes of asking a helper that is stopped, and then killed."""
    os.kill(pid, signal.SIGSTOP)

    def kill() -> None:
        os.kill(pid, signal.SIGKILL)

    return within_time(ask, kill)


def within_time(ask: Callable[[], object], then: Callable[[], None] = lambda: None) -> BaseException:
    """What is raised by asking a helper that dies meanwhile."""
    raised: list[BaseException] = []

    def asks() -> None:
        try:
            ask()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=asks, daemon=True)
    thread.start()
    thread.join(0.1)  # it waits by now; that it doesn't yet is fine, too
    then()
    thread.join(WAIT_S)
    assert not thread.is_alive(), "it waits for a helper that was killed"
    return raised[0]


def test_a_supervisor_whose_socket_a_child_of_it_holds(waiting):
    helper = Supervisor("0123456789abcdef")
    child = helper.spawn(waiting.buffer, 0, [waiting.theirs.fileno()], 1)
    waiting.theirs.close()
    assert isinstance(outcome(lambda: helper.spawn_helper(waiting.buffer, 0, [], 1), helper.pid), ConnectionError)
    os.waitpid(helper.pid, 0)
    helper.close()
    child.end(signal.SIGKILL)
    child.close()


def test_a_launcher_whose_socket_a_child_of_it_holds(waiting):
    helper = Launcher()
    helper.start()
    child = helper.spawn(waiting.buffer, 0, [waiting.theirs.fileno()], 1, -1, lambda: None)
    waiting.theirs.close()

    def ask() -> None:
        helper.spawn(waiting.buffer, 0, [], 1, -1, lambda: None)

    assert isinstance(outcome(ask, helper.pid), ConnectionError)
    assert child.wait() == -signal.SIGKILL  # nobody knows better, and it is dead
    helper.close()
    helper.reap(0)
    child.close()


def at_message(monkeypatch: pytest.MonkeyPatch, number: int, module: ModuleType) -> list[int]:
    """Stop a helper before the message of that number is sent to it, and kill it afterwards; which were sent."""
    name = "minibox-launcher" if module is launcher else "minibox-supervisor"
    sent: list[int] = []
    real = requests.send

    def send(*arguments: Any) -> None:
        sent.append(len(sent))
        if len(sent) - 1 != number:
            real(*arguments)
            return
        pid = child_named(name)
        os.kill(pid, signal.SIGSTOP)
        real(*arguments)
        threading.Timer(0.05, os.kill, (pid, signal.SIGKILL)).start()

    monkeypatch.setattr(module, "send", send)
    return sent


def child_named(name: str) -> int:
    for entry in os.listdir("/proc"):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
        except OSError:
            continue
        if entry.isdigit() and fields[0].partition("(")[2] == name[:15] and int(fields[2].split()[1]) == os.getpid():
            return int(entry)
    raise AssertionError(f"no {name}")


@pytest.fixture
def home(state: Path) -> Home:
    return Home(str(state / "root"), str(state / "run"))


def left(state: Path) -> list[Path]:
    return [path for kind in ("containers", "live", "names", "ids") for path in (state / "root" / kind).glob("*")]


@pytest.mark.parametrize("number", range(4))
def test_a_supervisor_at_each_message_of_a_start(api, state, home, monkeypatch, number):
    options = RunOptions("base", ("sleep", "1000"), network="none", detach=True, name="cc")
    with monkeypatch.context() as patch:
        sent = at_message(patch, number, supervisor)
        if number < 2:
            with pytest.raises(MiniboxError):
                start.run_detached(home, options)
            assert left(state) == []
            return
        start.run_detached(home, options)  # it has no more messages than two
        assert len(sent) == 2
    removal.remove(home, "cc", force=True)
    assert left(state) == []


@pytest.mark.parametrize("number", range(2))
def test_the_launcher_at_each_message_of_a_run(api, state, monkeypatch, number):
    """What it had made is dead, and so the run begins anew with another."""
    minibox.run("base", ["true"])
    with monkeypatch.context() as patch:
        at_message(patch, number, launcher)
        assert minibox.run("base", ["echo", "on"], capture_output=True).stdout == b"on\n"
    until(lambda: left(state) == [])


def test_a_process_that_dies_before_its_network_is_wired(api, state, home, monkeypatch):
    """Its namespace can't be opened any more; the error says that it was killed."""

    def wire(execution: Any) -> None:
        pid = child_named("minibox-supervisor")
        os.kill(int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]), signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{execution.pid}/ns/net"))
        real(execution)

    options = RunOptions("base", ("sleep", "1000"), network="bridge", detach=True, name="cc")
    real = steps.STEPS["forward_ipv4"]
    with monkeypatch.context() as patch, pytest.raises(MiniboxError, match="the process was killed in step"):
        patch.setitem(steps.STEPS, "forward_ipv4", wire)
        start.run_detached(home, options)
    assert left(state) == []


def test_the_launcher_of_a_sandbox_that_executes(api, state, monkeypatch):
    with minibox.Sandbox("base") as box:
        with monkeypatch.context() as patch, suppress(MiniboxError):
            at_message(patch, 0, launcher)
            box.run(["true"])  # by another launcher, if the sandbox isn't dead yet
        until(lambda: not box._box.is_running())
        assert box.wait() == -signal.SIGKILL
    until(lambda: left(state) == [])


@pytest.fixture
def holder() -> Iterator[Callable[[], None]]:
    """To be called in a child: a child of that one holds what it has open, and outlives it."""
    reader, writer = os.pipe()

    def hold() -> None:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            while True:
                signal.pause()
        os.write(writer, b"%d\n" % pid)  # by who dies next: it is read when that one has ended

    yield hold
    os.close(writer)
    with open(reader, "rb") as pids:
        os.set_blocking(reader, False)
        for line in pids:
            os.kill(int(line), signal.SIGKILL)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_work_in_a_child_whose_pipe_another_holds(holder):
    def work() -> None:
        holder()
        die()

    error = within_time(lambda: user_namespace.Work(work).result())
    assert str(error) == "a helper process in a user namespace ended with status -9"


def test_a_child_that_dies_on_its_way_into_a_user_namespace(holder, monkeypatch):
    def enter(namespace: int, new: bool) -> Callable[[], None]:
        holder()
        die()
        return die

    monkeypatch.setattr(user_namespace, "enter", enter)
    error = within_time(lambda: user_namespace.Work(lambda: None).result())
    assert str(error) == "a helper process in a user namespace ended with status -9"


@pytest.mark.parametrize("kills_worker", [False, True], ids=["its child", "the worker"])
def test_a_job_of_the_worker_whose_report_another_holds(kills_worker, monkeypatch, tmp_path):
    held: list[int] = []

    def send(connection: socket.socket, message: bytes, fds: list[int]) -> None:
        held.append(os.dup(fds[0]))  # as a fork of another thread's does
        requests.send(connection, message, fds)

    monkeypatch.setattr(worker, "send", send)
    reader, writer = os.pipe()
    root_fd = os.open(tmp_path, os.O_PATH)
    mine = worker.of_caller()
    assert mine
    job = mine.begin("write", (root_fd, reader), ("/file", 0o666, (0, 0)), os.getpid())  # of what never comes
    children = Path(f"/proc/{mine.pid}/task/{mine.pid}/children")
    until(lambda: children.read_text())
    os.kill(mine.pid if kills_worker else int(children.read_text()), signal.SIGKILL)
    assert "was killed" in str(within_time(job.result))
    assert mine.is_alive() is not kills_worker
    worker.close_all()
    for fd in (reader, writer, root_fd, *held):
        os.close(fd)


def test_the_launcher_of_a_command_that_is_there_already(api, state, monkeypatch):
    """The command is this process's child then, which adopts orphans: as a zombie it would hold up its container's end."""
    with minibox.Sandbox("base") as box:
        with monkeypatch.context() as patch:
            at_message(patch, 1, launcher)
            assert box.run(["sleep", "1000"]).returncode == -signal.SIGKILL
        assert box.wait() == -signal.SIGKILL
    until(lambda: left(state) == [])


@contextmanager
def slow_words(pid: int, tmp_path: Path) -> Iterator[None]:
    """Whatever this process and those that it makes send, they send half a second later."""
    words = ["strace", "-f", "-qq", "-e", "trace=sendmsg", "-e", "inject=sendmsg:delay_enter=500000", "-p", str(pid)]
    with subprocess.Popen([*words, "-o", str(tmp_path / "trace")], stderr=subprocess.DEVNULL) as tracer:
        until(lambda: f"TracerPid:\t{tracer.pid}" in Path(f"/proc/{pid}/status").read_text())
        yield
        tracer.terminate()


def closes_in_time(box: minibox.Sandbox, state: Path) -> None:
    """It ends, and nothing is left."""

    def close() -> None:
        box.close()
        raise EOFError

    assert isinstance(within_time(close), EOFError)
    until(lambda: left(state) == [])


@requires("command:strace")
def test_the_launcher_of_a_command_that_nobody_has_told_of(api, state, monkeypatch, tmp_path):
    """It was killed between the clone of the command and the word of it: its zombie would hold up the end of the sandbox."""
    box = minibox.Sandbox("base")
    pid = child_named("minibox-launcher")
    children = Path(f"/proc/{pid}/task/{pid}/children")
    before = set(children.read_text().split())
    real = LaunchedChild.take_answer

    def take_answer(child: LaunchedChild) -> None:
        real(child)
        until(lambda: set(children.read_text().split()) - before - {str(child.pid)})
        os.kill(pid, signal.SIGKILL)

    with slow_words(pid, tmp_path), monkeypatch.context() as patch:
        patch.setattr(LaunchedChild, "take_answer", take_answer)
        with pytest.raises(MiniboxError):  # of the killed step, or of the sandbox, which dies with its launcher
            box.run(["true"])

    closes_in_time(box, state)


@requires("command:strace")
def test_the_launcher_before_the_word_of_a_command_process(api, state, monkeypatch, tmp_path):
    """Nobody knows the pid of what it has cloned but the kernel, which has written it down."""
    box = minibox.Sandbox("base")
    pid = child_named("minibox-launcher")
    children = Path(f"/proc/{pid}/task/{pid}/children")
    before = set(children.read_text().split())
    real = LaunchedChild.take_answer

    def take_answer(child: LaunchedChild) -> None:
        if Path(f"/proc/{pid}").exists():
            until(lambda: len(set(children.read_text().split()) - before) > 0)
            os.kill(pid, signal.SIGKILL)
        real(child)

    with slow_words(pid, tmp_path), monkeypatch.context() as patch:
        patch.setattr(LaunchedChild, "take_answer", take_answer)
        with pytest.raises(MiniboxError):  # the sandbox dies with its launcher
            box.run(["true"])

    closes_in_time(box, state)
