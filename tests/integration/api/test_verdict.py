"""The judge of examples/ is right about hostile programs: each is compiled and run for real."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import pytest

from tests.conftest import CHECKOUT
from tests.leaks import SLOWNESS
from tests.probes import requires

HOSTILE = CHECKOUT / "examples" / "hostile"
VERDICTS = {
    "compiler_bomb": "compile-error",
    "cpu_burner": "cpu-time",
    "cpu_burners": "cpu-time",
    "crash": "crashed",
    "disk_filler": "disk",
    "escape": "exited",
    "fork_bomb": "processes",
    "include_host": "compile-error",
    "large_file": "file-size",
    "memory_hog": "out-of-memory",
    "output_flood": "output",
    "polite_fork_bomb": "processes",
    "sleeper": "wall-time",
    "sum": "exited",
}
pytestmark = requires("root", "command:gcc", "cgroup:memory", "cgroup:pids")


@pytest.fixture
def judge(api: None) -> ModuleType:
    spec = spec_from_file_location("judge", CHECKOUT / "examples" / "judge.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    for options in (module.COMPILER, module.PROGRAM):
        options["wall_time"] *= SLOWNESS
    return module


def test_every_program_has_a_verdict() -> None:
    assert {path.stem for path in HOSTILE.glob("*.c")} == set(VERDICTS)


@pytest.mark.parametrize("name", list(VERDICTS))
def test_the_verdict_is_right(judge: ModuleType, name: str) -> None:
    if name != "sleeper":  # what else there is to say mustn't hang on how much of the machine is its own
        judge.PROGRAM["wall_time"] = judge.COMPILER["wall_time"] = 120 * SLOWNESS
    kind, sentence, output = judge.judged((HOSTILE / f"{name}.c").read_text(), b"1\n2\n39\n")
    assert kind == VERDICTS[name], sentence
    if name == "sum":
        assert output == b"42\n"
    if name == "escape":
        assert output == b"nothing works\n"
    assert len(output) <= 64 << 10


def test_it_is_a_program(environment: dict[str, str]) -> None:
    words = [sys.executable, str(CHECKOUT / "examples" / "judge.py"), str(HOSTILE / "sum.c")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("sum.c: exited: ") and done.stdout.endswith("    b'0\\n'\n"), done.stderr
