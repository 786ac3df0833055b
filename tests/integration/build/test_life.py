"""Builds beside each other, stages side by side, and builds that are interrupted or killed.

CI kills 20 builds; `make build-long` kills 200 (MINIBOX_LONG).
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from typing import Any

import pytest

from minibox.build.cache import stored
from minibox.storage.snapshot import kept_layers
from tests.container_box import until
from tests.integration.build.conftest import Builder, cached
from tests.leaks import SLOWNESS
from tests.peers import LONG

KILLS = 200 if LONG else 20


@pytest.fixture
def begin(minibox_command: list[str], environment: dict[str, str]) -> Any:
    """Start a build as root; its Popen."""
    begun = []

    def start(builder: Builder, text: str, *words: str) -> subprocess.Popen[str]:
        builder.file("Dockerfile", text)
        argv = [*minibox_command, "build", "--network", "none", "-t", "built", *words, str(builder.context)]
        process = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()
        assert process.stderr
        process.stderr.close()


def nothing_left(builder: Builder) -> bool:
    """The next command has removed what the build left."""
    builder.box.ok("ps", "-a")
    root = builder.box.directory / "root"
    return not any((root / "containers").iterdir()) and not any((root / "live").iterdir())


def test_stages_run_side_by_side(root_builder: Builder) -> None:
    root_builder.ok(
        """\
FROM base AS one
RUN --mount=type=cache,target=/c touch /c/one && while ! test -e /c/two; do sleep 0.05; done
FROM base AS two
RUN --mount=type=cache,target=/c touch /c/two && while ! test -e /c/one; do sleep 0.05; done; touch /made
FROM base
COPY --from=one /bin/sh /one
COPY --from=two /made /two
""",
        "--network",
        "none",
        timeout_s=60 * SLOWNESS,
    )


def test_a_failure_ends_the_other_stages(root_builder: Builder) -> None:
    text = """\
FROM base AS one
RUN sleep 1000
FROM base AS two
RUN sleep 0.5; exit 3
FROM base
COPY --from=one /x /
COPY --from=two /x /
"""
    assert "exit 3" in root_builder.refused(text, "--network", "none", timeout_s=60 * SLOWNESS)
    assert nothing_left(root_builder)


def test_an_interrupt_ends_everything_at_once(root_builder: Builder, begin: Any) -> None:
    text = (
        "FROM base AS one\nRUN echo x > /x\nRUN touch /y; sleep 1000\nFROM base AS two\nRUN sleep 1000 & sleep 1000\n"
    )
    text += "FROM base\nCOPY --from=one /x /\nCOPY --from=two /x /\n"
    process, root = begin(root_builder, text), root_builder.box.directory / "root"

    def both_run() -> bool:
        done = [each for each in stored(str(root)) if each.line.text == "RUN echo x > /x"]
        return bool(done) and len(list((root / "live").glob("*"))) == 2

    until(both_run, "both run")
    process.send_signal(signal.SIGINT)
    assert process.wait(20 * SLOWNESS) == 130
    assert not any((root / "containers").iterdir())
    assert not any((root / "tmp").iterdir())
    lines = {(each.driver, each.line.own_layer) for each in stored(str(root))}
    assert len(lines) == 1 and kept_layers(str(root)) == lines  # what was finished, and nothing else
    assert nothing_left(root_builder)


def test_a_layer_is_packed_while_the_next_line_runs(root_builder: Builder, begin: Any) -> None:
    process = begin(root_builder, "FROM base AS one\nRUN echo x > /x\nFROM one\nRUN sleep 1000\n")
    packed = root_builder.box.directory / "root/build/packed"
    until(lambda: packed.is_dir() and len(list(packed.iterdir())) == 1, "it is packed")
    process.send_signal(signal.SIGINT)
    assert process.wait(20 * SLOWNESS) == 130
    assert nothing_left(root_builder)


def test_two_builds_at_once_share_a_line(root_builder: Builder, begin: Any) -> None:
    text = "FROM base\nRUN --mount=type=cache,target=/c echo x >> /c/count; sleep 0.5; wc -l < /c/count > /count\n"
    builds = [begin(root_builder, text) for _ in range(2)]
    for each in builds:
        assert each.wait(60 * SLOWNESS) == 0, each.stderr.read()
    assert root_builder.sh("cat /count") == "1"


def test_what_a_killed_build_has_finished_is_reused(root_builder: Builder, begin: Any) -> None:
    text = "FROM base\nRUN echo done > /done\nRUN touch /x; sleep 1000\n"
    process = begin(root_builder, text)
    lines = iter(process.stderr.readline, "")
    assert any("[stage-0 3/3]" in line for line in lines)
    process.kill()
    process.wait()
    assert nothing_left(root_builder)
    again = root_builder.ok(text.replace("sleep 1000", "true"), "--network", "none")
    assert cached(again)[1:] == [True, False]


def test_a_build_that_is_killed_at_any_moment_leaves_a_sound_store(root_builder: Builder, begin: Any) -> None:
    dice, builder = random.Random(15), root_builder
    for number in range(40):
        builder.file(f"files/{number}", str(number) * 1000)
    text = "FROM base\nCOPY files /files\nRUN cat /files/* > /all\nWORKDIR /a/b\nRUN rm /files/1\nCOPY files/1 /1\n"
    before = time.monotonic()
    builder.ok(f"{text}RUN echo first > /round\n", "--network", "none", "--no-cache")
    whole_s = time.monotonic() - before
    for round in range(KILLS):
        process = begin(builder, f"{text}RUN echo {round} > /round\n", "--no-cache")
        time.sleep(dice.uniform(0.0, 1.1) * whole_s)  # any moment will do
        process.kill()
        process.wait()
        assert nothing_left(builder)
        builder.ok(f"{text}RUN echo next {round} > /round\n", "--network", "none")
        found = builder.sh("cat /round; wc -c < /all; ls /files | wc -l; head -c 3 /1; pwd")
        assert found == f"next {round}\n70000\n39\n111/a/b"
        if round % 10 == 9 or round == KILLS - 1:
            is_sound(builder)
    builder.box.ok("builder", "prune", "--force")
    assert builder.sh("cat /round") == f"next {KILLS - 1}"
    is_sound(builder)
    kept = kept_layers(str(builder.box.directory / "root"))
    assert all("b01d" in layer for _, layer in kept), kept  # the one of FROM scratch


def is_sound(builder: Builder) -> None:
    report = builder.box("system", "check")
    assert report.returncode == 0, report.stdout
