"""The launcher: containers from any thread, from a child by fork and from a process of any size, and their end."""

from __future__ import annotations

import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from select import POLLIN, poll

import pytest

import minibox
from minibox.base.home import Home
from minibox.engine.container import start as container
from minibox.engine.files import background_removal
from minibox.engine.spec.options import RunOptions
from minibox.linux import launcher
from minibox.linux.launcher import LaunchedChild
from minibox.linux.process import EXEC, parent_of, signatures
from minibox.plan import operations as op
from minibox.plan.encode import encode
from tests.conftest import CHECKOUT, Run
from tests.container_box import until
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")

WAIT_S = 20 * SLOWNESS
THREADS, RUNS = 8, 25


# ---- a process of the launcher's, by itself -------------------------------------------------------


class Started:
    """A shell script that the launcher runs."""

    def __init__(self, script: str, *, dies: bool = True) -> None:
        import socket

        status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        steps = (
            *((op.die_with_parent("test"),) if dies else ()),
            op.stdio(op.STDIN, op.STDOUT, op.STDERR, "test"),
            op.exec_(("/bin/sh",), ("sh", "-c", script), (f"PATH={os.environ['PATH']}",), "test"),
        )
        null = os.open("/dev/null", os.O_RDWR)
        try:
            self.child = launcher.spawn(
                encode(steps, signatures()), 0, [theirs.fileno(), -1, null, null, null], len(steps)
            )
        finally:
            theirs.close()
            os.close(null)
        assert status.recv(8) == b""  # closed by exec
        status.close()


@pytest.fixture
def start() -> Iterator[Callable[..., LaunchedChild]]:
    made = []

    def started(script: str, **how: bool) -> LaunchedChild:
        made.append(Started(script, **how).child)
        return made[-1]

    yield started
    for each in made:
        each.close()


def has_ended(pidfd: int) -> bool:
    waiting = poll()
    waiting.register(pidfd, POLLIN)
    return bool(waiting.poll(WAIT_S * 1000))


def test_how_it_ended_and_what_it_used(start):
    child = start("i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; exit 7")
    assert child.progress()[0] == EXEC
    assert (child.wait(), child.wait()) == (7, 7)
    cpu_ns, memory_bytes = child.usage()
    assert cpu_ns > 1_000_000 and memory_bytes > 100_000
    assert start("kill -KILL $$").wait() == -signal.SIGKILL
    assert start("exec sleep 1000").end(signal.SIGTERM) == -signal.SIGTERM


def test_several_threads_wait_for_one(start):
    child, codes = start("sleep 0.2; exit 3"), []
    threads = [threading.Thread(target=lambda: codes.append(child.wait())) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert codes == [3] * 4


def test_closing_kills_even_what_has_forgotten_its_parent(start):
    child = start("exec sleep 1000", dies=False)
    pidfd = os.dup(child.pidfd)
    child.close()
    assert has_ended(pidfd)
    os.close(pidfd)


def test_what_was_let_go_stays_and_is_reaped(start):
    child = start("exec sleep 1000", dies=False)
    pid, pidfd = child.pid, os.dup(child.pidfd)
    child.let_go()
    child.close()
    assert start("exit 0").wait() == 0
    assert not os.path.exists(f"/proc/{pid}/stat") or parent_of(pid) > 0
    os.kill(pid, signal.SIGKILL)
    assert has_ended(pidfd)
    until(lambda: not os.path.exists(f"/proc/{pid}"), "it is reaped")
    os.close(pidfd)


def test_a_launcher_that_was_killed_is_replaced(start):
    first = start("exec sleep 1000", dies=False)
    killed = launcher.of_caller().pid
    os.kill(killed, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert start("exit 4").wait() == 4
    assert launcher.of_caller().pid != killed
    assert not os.path.exists(f"/proc/{first.pid}"), "it came to the test session, a subreaper, and was not reaped"


def test_one_launcher_a_caller(start):
    import resource

    first = launcher.of_caller()
    assert launcher.of_caller() is first
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if soft else 4096, hard))
    try:
        other = launcher.of_caller()
        assert other is not first
        assert start(f'[ "$(ulimit -Sc)" = "{0 if soft else 8}" ]').wait() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    assert launcher.of_caller() is first


def test_who_waits_for_all_children_takes_nothing_away(start):
    """A program's own os.wait() sees neither containers nor the mounter, and containers' ends come all the same."""
    child = start("exit 5")
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, 0)
    assert child.wait() == 5


# ---- whole containers -----------------------------------------------------------------------------


def run(state: Path, *command: str) -> int:
    options = RunOptions(image="base", command=command, rm=True, network="none")
    return container.run(Home(str(state / "root"), str(state / "run")), options)


def test_threads(state: Path):
    statuses: list[int] = []

    def work(number: int) -> None:
        for count in range(RUNS):
            code = (number * RUNS + count) % 100
            statuses.append(run(state, "sh", "-c", f"exit {code}") - code)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert statuses == [0] * (THREADS * RUNS)


def test_the_thread_that_started_it_may_end():
    """PR_SET_PDEATHSIG goes by the thread; the launcher has one."""
    child = []
    thread = threading.Thread(target=lambda: child.append(Started("sleep 0.3; exit 6").child))
    thread.start()
    thread.join()
    assert child[0].wait() == 6
    child[0].close()


def test_after_fork_both_run(state: Path, minibox: Run):
    assert run(state, "true") == 0
    pid = os.fork()
    if pid == 0:
        os._exit(run(state, "sh", "-c", "exit 8"))
    assert run(state, "sh", "-c", "exit 9") == 9
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 8


def test_multiprocessing(state: Path, minibox: Run):
    assert run(state, "true") == 0
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_exit_with, args=(state, code)) for code in (11, 12)]
    for process in processes:
        process.start()
    assert run(state, "sh", "-c", "exit 10") == 10
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [11, 12]
    for process in processes:
        process.close()


def _exit_with(state: Path, code: int) -> None:
    os._exit(run(state, "sh", "-c", f"exit {code}"))


def test_nothing_grows(state: Path):
    for _ in range(20):
        run(state, "true")
    launched = launcher.of_caller().pid
    descriptors = _descriptors(launched)
    for _ in range(3):  # memory may grow by chance, once: what was swapped out comes back, say
        memory = _memory_kib(launched)
        for _ in range(200):
            run(state, "true")
        until(lambda: all(map(operator.le, _descriptors(launched), descriptors)), "both have closed their descriptors")
        grown = list(map(operator.sub, _memory_kib(launched), memory))
        if grown[0] <= 64 and grown[1] <= 1024:
            return
    pytest.fail(f"the launcher has grown by {grown[0]} KiB, this process by {grown[1]}")


def _descriptors(pid: int) -> list[int]:
    """How many the launcher and this process have open."""
    background_removal.finish()
    return [len(os.listdir(f"/proc/{each}/fd")) for each in (pid, "self")]


def _memory_kib(pid: int) -> list[int]:
    """What belongs to the launcher alone, and to this process."""
    rollups = [Path(f"/proc/{each}/smaps_rollup").read_text().splitlines() for each in (pid, "self")]
    return [sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) for lines in rollups]


KILLED = """
import os, sys, threading
import minibox
from minibox.base.home import Home
from minibox.engine.container import start
from minibox.engine.spec.options import RunOptions
def run(network):
    options = RunOptions(image="base", command=("su", "-s", "/bin/sh", "nobody", "-c", "echo up; exec sleep 1000"),
                         rm=True, network=network)
    start.run(Home(os.environ["MINIBOX_ROOT"], os.environ["MINIBOX_RUNROOT"]), options)
threads = [threading.Thread(target=run, args=(network,)) for network in ("none", "bridge")]
for each in threads: each.start()
for each in threads: each.join()
"""


@requires("command:nft")
def test_sigkill_of_the_process_leaves_nothing(state: Path, environment: dict[str, str], minibox: Run):
    """The leak check sees containers, launcher, veth and mounts; the rest the next command collects."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], env={**environment, "PYTHONPATH": str(CHECKOUT)}, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(2)] == [b"up\n"] * 2
        process.kill()
    assert minibox("ps", "-aq").stdout == ""
    assert [*state.glob("root/containers/*"), *state.glob("root/live/*"), *state.glob("root/ids/*")] == []


@pytest.mark.requires("root")
def test_a_command_that_is_interrupted_in_its_start_holds_up_nobody(api: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process, which the launcher hasn't been told of yet, is reaped: else its sandbox could never end."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with minibox.Sandbox("base") as box:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(launcher.LaunchedChild, "goes_on_as", interrupted)
            box.run(["sleep", "100"])
        assert box.run(["echo", "on"], capture_output=True).stdout == b"on\n"
    assert box.verdict.kind != "running"
