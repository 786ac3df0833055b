"""minibox in the programs that people embed it in: pools of processes, and servers that switch between greenlets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")

POOL = """
import multiprocessing, sys
import minibox

def work(job):
    number, snapshot = job
    with snapshot.sandbox() as box:
        there = int(box.read_file("/number"))
    script = f"echo $(({number} * {there}))"
    return int(minibox.run("base", ["sh", "-c", script], capture_output=True, text=True, check=True).stdout)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with minibox.Sandbox("base") as box:
        box.write_file("/number", "7")
        snapshot = box.snapshot()
        with snapshot, context.Pool(2) as pool:
            print(pool.map(work, [(number, snapshot) for number in range(4)]))
            pool.close()
            pool.join()
            assert box.run(["true"]).returncode == 0
"""


def outcome(
    program: str, directory: Path, environment: dict[str, str], *words: str, options: tuple[str, ...] = ()
) -> tuple[int, str, str]:
    """Run a program of that text; its status and its output."""
    script = directory / "program.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, *options, script, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120 * SLOWNESS,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes(
    method: str, session_directory: Path, environment: dict[str, str], orphans: object
) -> None:
    strict = ("-X", "dev", "-W", "error")
    status, out, err = outcome(POOL, session_directory, environment, method, options=strict)
    assert (status, out, err) == (0, "[0, 7, 14, 21]\n", "")


FEW_FILES = """
import resource, sys
import minibox

number = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (number, 1024))
for use in (lambda: minibox.run("base", ["true"], capture_output=True), lambda: minibox.Sandbox("base").close()):
    try:
        use()
    except minibox.MiniboxError as error:
        assert f"may have {number} files open (ulimit -n)" in error.hint, (error, error.hint)
        assert "Too many open files (EMFILE)" in str(error) and "cgroup" not in str(error), error
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 1024))
print(minibox.run("base", ["echo", "hi"], capture_output=True, text=True).stdout)
"""


@pytest.mark.parametrize("number", [16, 17, 18, 19, 20, 21, 22, 24])
def test_a_process_with_few_descriptors(
    number: int, session_directory: Path, environment: dict[str, str], orphans: object
) -> None:
    assert outcome(FEW_FILES, session_directory, environment, str(number)) == (0, "hi\n\n", "")
