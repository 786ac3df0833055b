"""A user's program under ``mypy --strict``: what is right passes, and what is wrong is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from pathlib import Path
import minibox

done = minibox.run("base", ["true"], capture_output=True, text=True, memory="64m", mounts=[(Path("."), "/src", "ro")])
words: list[str] = done.stdout.split()
raw: bytes = minibox.run("base", input=b"x", capture_output=True).stdout
peak: int | None = done.usage.memory_peak_bytes
why: str = done.verdict.summary
full: bool = done.verdict.kind == "out-of-memory"
try:
    minibox.run("base", ["false"], check=True)
except minibox.CalledProcessError as error:
    code: int = error.returncode
with minibox.Sandbox("base", env={"A": "1"}) as box:
    box.write_file("/a", "text")
    data: bytes = box.read_file("/a")
    with box.popen(["cat"], stdin=minibox.PIPE, stdout=minibox.PIPE, text=True) as command:
        assert command.stdin is not None and command.stdout is not None
        command.stdin.write("text")
        line: str = command.stdout.readline()

    said: str = box.run(["cat"], input="text", capture_output=True, text=True, env={"A": "1"}, timeout=3).stdout
    written: bytes = box.run(["cat"], input=b"x", capture_output=True, check=True, user=0).stderr
    status: int = box.run(["true"], stdout=minibox.DEVNULL, text=bool(said)).returncode

from minibox import aio

async def main() -> None:
    done = await aio.run("base", ["true"], capture_output=True, text=True, memory="64m")
    words: list[str] = done.stdout.split()
    raw: bytes = (await aio.run("base", input=b"x", capture_output=True)).stdout
    async with aio.Sandbox("base", memory="64m") as box:
        said: str = (await box.run(["cat"], input="text", capture_output=True, text=True, encoding="latin-1")).stdout
        written: bytes = (await box.run(["cat"], capture_output=True, cwd=Path("/tmp"))).stdout
        status: int = (await box.run(["true"], stdin=minibox.DEVNULL)).returncode
        process: aio.Process = await box.popen(["cat"], stdout=minibox.PIPE)
        async with await box.snapshot() as snapshot, snapshot.sandbox(network="none") as fork:
            data: bytes = await fork.read_file("/etc/passwd")

@minibox.sandboxed
def half(number: int) -> float:
    return number / 2

@minibox.sandboxed(timeout=5, memory="64m", cpu_time=2, output="1m", disk="1m", allow=[Path])
def where(name: str) -> Path:
    return Path(name)

halves: list[float] = [half(3), half(number=4)]
path: Path = where("/")

from minibox.pytest_plugin import SandboxFactory

def test_it(sandbox: minibox.Sandbox, sandbox_factory: SandboxFactory, minibox_network: minibox.Network) -> None:
    box: minibox.Sandbox = sandbox_factory("base", memory="64m", network=minibox_network, aliases=["db"])
    address: str = minibox_network.connect(sandbox)
    minibox_network.partition([box], [sandbox])
    with minibox.Network(internal=False, subnet="10.1.2.0/24") as net:
        subnet: str = net.subnet
"""
WRONG = {
    'minibox.run("base", ["true"], memroy="64m")': "call-overload",
    'minibox.run("base", ["true"], memory=1.5)': "call-overload",
    'x: bytes = minibox.run("base", capture_output=True, text=True).stdout': "assignment",
    'y: str = minibox.Sandbox("base").run(["x"], capture_output=True).stdout': "assignment",
    'minibox.Sandbox("base").run(["x"], memory="64m")': "call-overload",
    'minibox.Sandbox("base").popen(["x"], text=True, check=True)': "call-overload",
    'aio.run("base", ["true"], memroy="64m")': "call-overload",
    'aio.Sandbox("base").run(["x"], timeout="3")': "call-overload",
    "minibox.nothing": "attr-defined",
    'minibox.run("base").verdict.kind == "out of memory"': "comparison-overlap",
    "minibox.Network(internal=False).partition(3)": "arg-type",
    'minibox.Sandbox("base", network=3)': "arg-type",
    'minibox.sandboxed(memroy="64m")': "call-overload",
    "minibox.sandboxed(len)(3)": "arg-type",
}


def check(program: str, directory: Path) -> subprocess.CompletedProcess[str]:
    path = directory / "program.py"
    path.write_text(program)
    # The cache of the checkout's own checks makes this take a second.
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )


@pytest.fixture(scope="module", autouse=True)
def has_mypy() -> None:
    pytest.importorskip("mypy")


def test_a_users_program_is_clean(tmp_path: Path) -> None:
    done = check(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stdout


def test_mistakes_are_told(tmp_path: Path) -> None:
    program = "import minibox; from minibox import aio\n" + "\n".join(WRONG)
    told = check(program, tmp_path).stdout
    for number, code in enumerate(WRONG.values(), 2):
        assert any(f":{number}: error" in line and f"[{code}]" in line for line in told.splitlines()), told
