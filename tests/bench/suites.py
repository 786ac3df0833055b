"""Suites of tests, each with a sandbox of its own, beside plain processes and beside docker-py over podman's socket."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.bench.measure import Measure, Unusable, count, part, run, table

TESTS, FEW = count("TESTS", 200), count("FEW_TESTS", 20)  # docker-py's take a second each
WORKERS = count("WORKERS", 4)

SANDBOX = """
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_it(sandbox, number):
    sandbox.run(["true"], check=True)
"""

PLAIN = """
import pytest, subprocess

@pytest.mark.parametrize("number", range({count}))
def test_it(number):
    subprocess.run(["true"], check=True)
"""

DOCKER = """
import docker, pytest

@pytest.fixture(scope="session")
def client():
    client = docker.from_env()
    yield client
    client.close()

@pytest.fixture
def box(client):
    box = client.containers.run("suite", ["sleep", "1000"], detach=True, network_mode="none")
    yield box
    box.remove(force=True)

@pytest.mark.parametrize("number", range({count}))
def test_it(box, number):
    assert box.exec_run(["true"]).exit_code == 0
"""


def tables(directory: Path, podman: list[str], rootfs: Path, rounds: int, only: str) -> None:
    """Few rounds: each is a whole run of pytest.

    Args:
        podman: its command with what says where its storage is.
    """
    table(
        f"{TESTS} tests, pytest -n {WORKERS}",
        {
            "a plain process each": lambda: suite(directory / "plain", PLAIN, TESTS),
            "a minibox sandbox each": lambda: suite(directory / "sandbox", SANDBOX, TESTS),
        },
        baselines=("a plain process each",),
        rounds=part(rounds, 7, 2),
        only=only,
    )
    names = ("a minibox sandbox each", "docker-py, podman's socket")
    with service(directory, podman, rootfs) as socket:
        table(
            f"{FEW} tests, pytest -n {WORKERS}",
            {
                names[0]: lambda: suite(directory / "few", SANDBOX, FEW),
                names[1]: lambda: docker(directory, socket),
            },
            baselines=names[:1],
            rounds=part(rounds, 7, 2),
            only=only,
        )


def suite(directory: Path, text: str, tests: int, **environment: str) -> Measure:
    directory.mkdir()
    (directory / "test_it.py").write_text(text.format(count=tests))
    (directory / "pytest.ini").touch()
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(WORKERS),
             "--minibox-missing=fail", str(directory)]  # fmt: skip

    def measure() -> float:
        begin = time.perf_counter()
        done = subprocess.run(words, env={**os.environ, **environment}, cwd=directory, capture_output=True, text=True)
        elapsed = time.perf_counter() - begin
        if done.returncode:
            raise Unusable(done.stdout.strip().rpartition("\n")[2] or done.stderr)
        return elapsed

    return measure


def docker(directory: Path, socket: str) -> Measure:
    if find_spec("docker") is None:
        raise Unusable("docker-py is not installed")
    if not socket:
        raise Unusable("podman is not installed, or its service doesn't start")
    return suite(directory / "docker", DOCKER, FEW, DOCKER_HOST=f"unix://{socket}")


@contextmanager
def service(directory: Path, podman: list[str], rootfs: Path) -> Iterator[str]:
    """podman's service on a socket of its own, with the same root file system as image ``suite``; its path."""
    archive, socket = directory / "suite.tar", directory / "podman.sock"
    run(["tar", "-C", str(rootfs), "-cf", str(archive), "."])
    run([*podman, "import", "--quiet", str(archive), "suite"])
    words = [*podman, "system", "service", "--time", "0", f"unix://{socket}"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not socket.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            yield str(socket) if socket.exists() else ""
        finally:
            process.terminate()
