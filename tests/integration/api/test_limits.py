"""Each limit of the API, for root and for an ordinary user, who has no cgroup here: it holds, and the verdict says so."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

import minibox
from minibox import aio
from minibox.engine.files import background_removal
from tests.conftest import AS_USER
from tests.container_box import EVER_LONGER_S, until
from tests.leaks import SLOWNESS
from tests.probes import kernel_version, requires

PROGRAM = """
import json, sys
import minibox

words, options = json.loads(sys.argv[1])
done = minibox.run("base", words, capture_output=True, **options)
found = {"verdict": vars(done.verdict), "usage": vars(done.usage), "code": done.returncode}
print(json.dumps({**found, "out": len(done.stdout), "err": done.stderr.decode()}))
"""
Judge = Callable[..., dict[str, Any]]
LOOP = "while :; do :; done"
CHILDREN = "while :; do for i in 1 2 3 4; do (i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done) & done; wait; done"
FORKS = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 9 & done"


@pytest.fixture(params=["root", pytest.param("user", marks=requires("user"))])
def judge(request: pytest.FixtureRequest) -> Judge:
    """Run a shell's script under limits, by a program of this user's; what became of it."""
    if request.param == "root":
        python, environment, more = [sys.executable], request.getfixturevalue("environment"), {}
    else:
        command = request.getfixturevalue("user_command")
        python = command[:-2] if command[0] == "/usr/bin/env" else [sys.executable]
        environment, more = request.getfixturevalue("user_environment"), AS_USER

    def run(script: str, **options: Any) -> dict[str, Any]:
        argv = [*python, "-c", PROGRAM, json.dumps((["sh", "-c", script], options))]
        done: Any = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, **more)
        if kernel_version() < (6, 6) and "since Linux 6.6" in done.stderr:
            pytest.skip(done.stderr.splitlines()[-1])
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


@requires("root")
@pytest.mark.parametrize("script", [LOOP, CHILDREN], ids=["one", "many"])
def test_processor_time_of_all_processes_together(judge: Judge, script: str) -> None:
    found = judge(script, cpu_time=0.4, wall_time=60 * SLOWNESS)
    assert found["verdict"]["kind"] == "cpu-time", found
    assert 0.35 < found["usage"]["cpu_s"] < 30 * SLOWNESS and found["code"] == -9


@requires("root")
def test_wall_time(judge: Judge) -> None:
    found = judge("sleep 100", wall_time=0.4, cpu_time=50)
    assert found["verdict"]["kind"] == "wall-time", found
    assert 0.4 <= found["usage"]["wall_s"] < 30


@requires("root")
def test_output(judge: Judge) -> None:
    found = judge("(yes >&2) & yes", output="10k")
    assert found["verdict"]["kind"] == "output", found
    assert found["out"] + len(found["err"]) == 10 << 10
    assert judge("head -c 10240 /dev/zero", output="10k")["verdict"]["kind"] == "exited", "that is not more"


@requires("root")
@pytest.mark.parametrize("init", [True, False], ids=["init", "process 1"])
def test_file_size(judge: Judge, init: bool) -> None:
    found = judge("exec dd if=/dev/zero of=/large bs=1k count=99", file_size="10k", init=init)
    assert found["verdict"]["kind"] == "file-size", found


@requires("root")
def test_disk(judge: Judge) -> None:
    found = judge("dd if=/dev/zero of=/large bs=1k", disk="1m")
    assert found["verdict"]["kind"] == "disk", found
    assert 1 << 20 <= found["usage"]["written_bytes"] < 2 << 20
    coped = judge("dd if=/dev/zero of=/large bs=1k; true", disk="1m")
    assert coped["verdict"]["kind"] == "exited"
    assert coped["verdict"]["evidence"] == ["its disk was full (--disk)"]


@requires("root")
@pytest.mark.parametrize("many", [FORKS, f"{FORKS}; true"], ids=["fails", "copes"])
def test_processes(judge: Judge, request: pytest.FixtureRequest, many: str) -> None:
    is_root = "root" in request.node.name
    limit: dict[str, Any] = {"processes": 6} if is_root else {"ulimits": {"nproc": 6}}
    found = judge(many if many == FORKS else f"({many[:-6]}) || true", **limit)
    assert found["verdict"]["kind"] == ("processes" if many == FORKS else "exited"), found
    if is_root:
        assert found["usage"]["processes"] in (6, None)
        assert many == FORKS or "more than the 6 processes" in found["verdict"]["evidence"][0]


@requires("root", "cgroup:memory")
def test_what_was_used_is_told(judge: Judge, request: pytest.FixtureRequest) -> None:
    found = judge("head -c 3m /dev/zero > /three; head -c 20m /dev/zero | tail -c 18m | wc -c; echo x", output="1m")
    usage = found["usage"]
    assert found["verdict"]["kind"] == "exited" and usage["wall_s"] > 0
    assert 3 << 20 < usage["written_bytes"] < 4 << 20, "a file, and what was printed"
    assert usage["cpu_s"] > 0 and usage["memory_peak_bytes"] > 18 << 20
    if "root" in request.node.name:
        assert abs(usage["cpu_s"] - usage["user_s"] - usage["system_s"]) < 0.05


@requires("root", "cgroup:memory", "cgroup:pids")
def test_a_command_of_a_sandbox_has_a_verdict_of_its_own(api: None) -> None:
    with minibox.Sandbox("base", memory="32m", processes=12, disk="1m") as box:
        run = partial(box.run, capture_output=True)
        assert run(["tail", "/dev/zero"]).verdict.kind == "out-of-memory"
        assert run(["sh", "-c", "dd if=/dev/zero of=/big; exit 1"]).verdict.kind == "disk"
        assert run(["sh", "-c", f"rm /big; {FORKS}"]).verdict.kind == "processes"

        def is_room() -> bool:  # it may be full until what it left in the background ends
            with suppress(minibox.MiniboxError):
                return run(["true"]).returncode == 0
            return False

        until(is_room, "a process fits in")
        done = run(["sh", "-c", "exit 3"])
        assert (done.verdict.kind, done.verdict.evidence) == ("exited", ()), "what others ran into is not its own"
        assert run(["sh", "-c", "kill -SEGV $$"]).verdict.kind == "crashed"


def before_its_time_is_over(act: Callable[[minibox.Sandbox], None]) -> None:
    """Do something in a sandbox with little time; with more, where that was over before."""
    for wall_time in EVER_LONGER_S:
        with (
            minibox.Sandbox("base", wall_time=wall_time) as box,
            suppress(minibox.ContainerNotRunning, minibox.CalledProcessError),
        ):
            act(box)
            return
    pytest.fail("no command ran in time")


@requires("root")
def test_a_command_that_runs_on_has_a_verdict_when_it_has_ended(api: None) -> None:
    script = b"exec awk 'BEGIN { x = \"x\"; while (1) x = x x }'\n"
    with minibox.Sandbox("base", memory="32m") as box:
        with (
            box.popen(["sh"], stdin=minibox.PIPE, stdout=minibox.PIPE) as shell,
            box.popen(["cat"], stdin=minibox.PIPE) as cat,
        ):
            assert shell.verdict is None
            shell.communicate(script)
            assert shell.verdict and shell.verdict.kind == "out-of-memory"
        assert cat.verdict and cat.verdict.kind == "exited"

        async def program() -> None:
            async with aio.Sandbox("base", memory="32m") as other:
                process = await other.popen(["sh"], stdin=minibox.PIPE, stdout=minibox.PIPE)
                await process.communicate(script)
                assert process.verdict and process.verdict.kind == "out-of-memory"

        asyncio.run(program())


@requires("root")
@pytest.mark.parametrize("limit", ["output", "cpu-time", "wall-time"])
def test_what_ends_a_sandbox_is_the_verdict_of_its_commands(api: None, limit: str) -> None:
    def act(box: minibox.Sandbox) -> None:
        assert box.run(["true"], check=True).verdict.kind == "exited"
        done = box.run(["sh", "-c", "sleep 600" if limit == "wall-time" else "yes"], capture_output=True)
        assert done.verdict.kind == box.verdict.kind == limit
        if limit == "output":
            assert len(done.stdout) == 9 << 10
        with pytest.raises(minibox.ContainerNotRunning):
            box.run(["true"])

    if limit == "wall-time":
        before_its_time_is_over(act)
        return
    options: Any = {"output": "9k"} if limit == "output" else {"cpu_time": 0.3}
    with minibox.Sandbox("base", **options) as box:
        act(box)


@requires("root")
def test_what_one_command_of_a_sandbox_used(api: None) -> None:
    with minibox.Sandbox("base") as box:
        busy = box.run(["sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; head -c 20m /dev/zero | tail -c 18m"],
                       stdout=minibox.DEVNULL).usage  # fmt: skip
        idle = box.run(["true"]).usage
    assert busy.cpu_s and idle.cpu_s is not None and busy.cpu_s > 0.02 + idle.cpu_s
    assert busy.memory_peak_bytes and busy.memory_peak_bytes > 18 << 20


IN_A_SANDBOX = """
import minibox
with minibox.Sandbox("base", cpu_time=0.5, wall_time=100) as box:
    loop = ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]
    try:
        while box.run(loop).returncode == 0:
            pass
    except minibox.ContainerNotRunning:
        pass  # it was killed between two of them
    print(box.verdict.kind)
"""


@requires("root", "user")
def test_processor_time_of_commands_that_nobody_counts(
    user_command: list[str], user_environment: dict[str, str]
) -> None:
    """Each of them takes little, and an ordinary user has no cgroup here."""
    python = user_command[:-2] if user_command[0] == "/usr/bin/env" else [sys.executable]
    done: Any = subprocess.run(
        [*python, "-c", IN_A_SANDBOX], env=user_environment, capture_output=True, text=True, check=False, **AS_USER
    )
    assert done.stdout == "cpu-time\n", done.stderr


@requires("root")
def test_limits_hold_while_nobody_waits(api: None) -> None:
    """They are not the caller's to keep."""

    def act(box: minibox.Sandbox) -> None:
        reader, writer = os.pipe()
        with open(reader, "rb", 0) as output, open(writer, "wb", 0) as theirs:
            command = box.popen(["sleep", "600"], stdout=theirs)
            theirs.close()
            assert output.read(1) == b"", "it was killed, and nobody has asked"
        assert command.wait() == -9

    before_its_time_is_over(act)


@requires("root")
def test_many_runs_leave_no_thread_and_no_descriptor(api: None) -> None:
    minibox.run("base", ["true"], wall_time=60, output="1k")
    background_removal.finish()
    time.sleep(2 * background_removal.IDLE_S)
    before = len(os.listdir("/proc/self/fd")) + len(os.listdir("/proc/self/task"))
    for _ in range(20):
        minibox.run("base", ["echo", "x"], wall_time=60, cpu_time=60, output="1k", capture_output=True)
    deadline = time.monotonic() + 10 * SLOWNESS
    while len(os.listdir("/proc/self/fd")) + len(os.listdir("/proc/self/task")) > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@requires("root")
def test_limits_in_asyncio(api: None) -> None:
    async def kinds() -> list[str]:
        jobs = [
            aio.run("base", ["yes"], capture_output=True, output="2k"),
            aio.run("base", ["sleep", "100"], wall_time=0.4),
            aio.run("base", ["sh", "-c", LOOP], cpu_time=0.3),
        ]
        return [done.verdict.kind for done in await asyncio.gather(*jobs)]

    assert asyncio.run(kinds()) == ["output", "wall-time", "cpu-time"]
