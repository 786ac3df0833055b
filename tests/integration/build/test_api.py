"""Builds from Python: `minibox.Image.build`, `minibox.ImageBuild` and `minibox.aio.build`."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

import minibox
from minibox.build.events import CACHED, DONE, ImageMade, LineEnded, LineOutput, LineStarted
from minibox.build.failure import LineFailed
from tests.container_box import until
from tests.registries import Answer, FakeRegistry, Request


@pytest.fixture
def context(state: Path) -> Path:
    made = state / "context"
    made.mkdir()
    (made / "Dockerfile").write_text('FROM base\nARG A=1\nCOPY a /a\nRUN echo said $A\nCMD ["cat", "/a"]\n')
    (made / "a").write_text("content")
    return made


@pytest.mark.usefixtures("api")
def test_a_directory_with_a_dockerfile_is_built(context: Path) -> None:
    seen: list[object] = []
    image = minibox.Image.build(context, "built", build_args={"A": "2"}, network="none", on_event=seen.append)
    assert image.names == ("built:latest",)
    assert minibox.run("built", network="none", capture_output=True).stdout == b"content"
    assert [each.data for each in seen if isinstance(each, LineOutput)] == [b"said 2\n"]
    assert isinstance(seen[-1], ImageMade)
    with pytest.raises(minibox.UsageError, match="root file systems"):
        minibox.Image.build(context, "built", command=["true"])


@pytest.mark.usefixtures("api")
def test_events_come_one_after_the_other(context: Path) -> None:
    kinds = [type(each) for each in minibox.ImageBuild(context, network="none")]
    assert kinds == [LineStarted, LineEnded, LineStarted, LineEnded, LineStarted, LineOutput, LineEnded, ImageMade]


@pytest.mark.usefixtures("api")
def test_lines_of_another_machine(context: Path, state: Path) -> None:
    cache = state / "cache"
    made = minibox.ImageBuild(context, network="none", cache_to=[f"type=local,dest={cache},mode=max"]).result()
    elsewhere = minibox.ImageBuild(
        context, network="none", cache_from=[f"type=local,src={cache}"], root=state / "elsewhere"
    )
    assert [each.state for each in elsewhere if isinstance(each, LineEnded)] == [DONE, CACHED, CACHED]
    assert elsewhere.result() == made
    with pytest.raises(minibox.UsageError, match="type gha is not supported"):
        minibox.ImageBuild(context, cache_from=["type=gha"])


@pytest.mark.usefixtures("api")
def test_a_failure_is_an_exception(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM base\nRUN echo said; exit 3\n")
    with pytest.raises(LineFailed) as found:
        minibox.ImageBuild(context, network="none").result()
    assert (found.value.line, found.value.command_status, found.value.output) == (2, 3, ("said",))


@pytest.mark.usefixtures("api")
def test_a_cancelled_task_ends_its_build(context: Path, state: Path) -> None:
    (context / "Dockerfile").write_text("FROM base\nRUN echo said; sleep 1000\n")

    async def main() -> None:
        said = asyncio.Event()

        def follow(each: object) -> None:
            if isinstance(each, LineOutput):
                said.set()

        task = asyncio.ensure_future(minibox.aio.build(context, network="none", on_event=follow))
        await said.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not any((state / "root/containers").iterdir())


@pytest.mark.usefixtures("api")
def test_an_awaited_build(context: Path) -> None:
    async def main() -> minibox.Image:
        return await minibox.aio.build(context, "built", network="none")

    image = asyncio.run(main())
    assert json.dumps(image.config["config"]["Cmd"]) == '["cat", "/a"]'


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("FROM HOST/app:1\n", "GET /v2/app/"),
        ("FROM HOST/app:1 AS other\nFROM base\nRUN true\nCOPY --from=other / /x\n", "GET /v2/app/"),
        ("FROM base\nADD http://HOST/file /\n", "GET /file"),
        ("FROM base\nRUN true\n", "GET /v2/cache/"),
    ],
)
def test_a_build_that_is_cancelled_waits_for_no_server(context: Path, text: str, asks: str) -> None:
    registry, never = FakeRegistry(), threading.Event()

    def stall(request: Request) -> None:
        never.wait()

    registry.rule("GET /v2/$", Answer(200, b"{}"))
    registry.rule(asks, stall)
    try:
        (context / "Dockerfile").write_text(text.replace("HOST", registry.host))
        build = minibox.ImageBuild(context, network="none", cache_from=[f"{registry.host}/cache"])
        until(lambda: registry.asked(asks), "it asks")
        build.cancel()
        with pytest.raises(minibox.MiniboxError, match="ended"):
            build.result()
    finally:
        never.set()
        registry.close()
    until(lambda: not any(each.name == "asking" for each in threading.enumerate()), "its thread has ended")
