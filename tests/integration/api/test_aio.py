"""`minibox.aio`: the same for asyncio."""

from __future__ import annotations

import asyncio
import io
import signal
import threading

import pytest

import minibox
from minibox import aio
from minibox.engine.files import background_removal
from tests.container_box import EVER_LONGER_S, WAIT_S
from tests.leaks import SLOWNESS

pytestmark = pytest.mark.requires("root")


def test_output_and_input(api: None) -> None:
    async def program() -> None:
        done = await aio.run(
            "base", ["sh", "-c", "cat; echo err >&2; exit 3"], input="in", capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (3, "in", "err\n")
        assert done.verdict.kind == "exited" and done.usage.wall_s > 0
        data = bytes(3 << 20)
        assert (await aio.run("base", ["cat"], input=data, capture_output=True)).stdout == data
        assert (await aio.run("base", ["true"], input=data)).returncode == 0
        with pytest.raises(minibox.CommandNotFound):
            await aio.run("base", ["nope"])
        with pytest.raises(minibox.CalledProcessError):
            await aio.run("base", ["false"], check=True)

    asyncio.run(program())


def test_a_timeout_keeps_what_it_wrote(api: None) -> None:
    async def program() -> None:
        for timeout_s in EVER_LONGER_S:
            with pytest.raises(minibox.TimeoutExpired) as caught:
                await aio.run(
                    "base", ["sh", "-c", "echo far; sleep 600"], capture_output=True, text=True, timeout=timeout_s
                )
            if caught.value.stdout:
                break
        assert caught.value.stdout == "far\n"

    asyncio.run(program())


def test_a_timeout_ends_what_the_command_left_behind(api: None) -> None:
    async def program() -> None:
        async with aio.Sandbox("base") as box:
            for timeout_s in EVER_LONGER_S:
                with pytest.raises(minibox.TimeoutExpired) as caught:
                    script = "setsid sleep 600 & sleep 600 & echo begun"
                    await box.run(["sh", "-c", script], capture_output=True, timeout=timeout_s)
                if caught.value.stdout:
                    break
            assert caught.value.stdout == b"begun\n"
            assert "sleep" not in box.sync.run(["ps", "-o", "args"], capture_output=True, text=True).stdout

    asyncio.run(program())


def test_a_hundred_at_once_with_no_thread_for_each(api: None) -> None:
    most = 0

    async def one(number: int) -> int:
        nonlocal most
        done = await aio.run("base", ["sh", "-c", f"sleep 0.2; exit {number}"], capture_output=True)
        most = max(most, threading.active_count())
        return done.returncode

    async def program() -> list[int]:
        return await asyncio.gather(*(one(number) for number in range(100)))

    assert asyncio.run(program()) == list(range(100))
    assert most < 40  # those of the loop's executor


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.02, 0.1])
def test_cancelled_it_leaves_nothing(api: None, after_s: float, request: pytest.FixtureRequest) -> None:
    command = request.getfixturevalue("minibox")

    async def program() -> None:
        task = asyncio.create_task(aio.run("base", ["sleep", "600"], capture_output=True))
        await asyncio.sleep(after_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(program())
    background_removal.finish()
    assert command("ps", "-aq").stdout == ""


def test_a_sandbox(api: None) -> None:
    async def program() -> None:
        async with aio.Sandbox("base", ["sh", "-c", "echo begun; printf ready; sleep 600"]) as box:
            await box.wait_for(log="ready")
            await box.wait_for(exec=["true"], timeout=30 * SLOWNESS)
            await box.write_file("/a", "text")
            assert await box.read_file("/a") == b"text"
            assert ("A", "/a") in await box.diff()
            done = await box.run(["cat", "/a"], capture_output=True, text=True, check=True)
            assert done.stdout == "text"
            async with await box.snapshot() as snapshot, snapshot.sandbox() as fork:
                assert await fork.read_file("/a") == b"text"
            with pytest.raises(minibox.TimedOut):
                await box.wait_for(port=80, timeout=0.1)
            box.kill()
            assert await box.wait() == -signal.SIGKILL

    asyncio.run(program())


@pytest.mark.parametrize("method", ["run", "popen"])
def test_cancelled_while_its_pipes_are_connected_it_ends(
    api: None, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def program() -> None:
        loop = asyncio.get_running_loop()
        connecting = asyncio.Event()

        async def connect(_: object, file: io.FileIO) -> None:
            with file:
                connecting.set()
                await asyncio.Event().wait()

        async with aio.Sandbox("base") as box:
            with monkeypatch.context() as patch:
                patch.setattr(loop, "connect_read_pipe", connect)
                task = asyncio.create_task(getattr(box, method)(["sleep", "600"], stdout=minibox.PIPE))
                await connecting.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert "sleep 600" not in (await box.run(["ps"], capture_output=True, text=True)).stdout

    asyncio.run(program())


def test_a_process_is_as_of_asyncio(api: None) -> None:
    async def program() -> None:
        async with aio.Sandbox("base") as box:
            async with await box.popen(["cat"], stdin=minibox.PIPE, stdout=minibox.PIPE) as cat:
                assert cat.stdin and cat.stdout
                cat.stdin.write(b"line\n")
                await cat.stdin.drain()
                assert await cat.stdout.readline() == b"line\n"
                assert await cat.communicate(b"more") == (b"more", None)
                assert cat.returncode == 0
            sleeper = await box.popen(["sleep", "600"])
            sleeper.terminate()
            assert await sleeper.wait() == -signal.SIGTERM

            async def until(runs: bool) -> None:
                async with asyncio.timeout(WAIT_S):
                    while ("sleep 600" in (await box.run(["ps"], capture_output=True, text=True)).stdout) != runs:
                        await asyncio.sleep(0.01)

            task = asyncio.create_task(box.run(["sleep", "600"], capture_output=True))
            await until(True)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(False)

    asyncio.run(program())
