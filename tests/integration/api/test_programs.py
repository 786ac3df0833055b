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


GREENLETS = """
import sys

def patch():
    if sys.argv[1] == "gevent":
        from gevent import monkey
        monkey.patch_all()
    else:
        import eventlet
        eventlet.monkey_patch()

import minibox

@minibox.sandboxed
def double(number):
    import time
    time.sleep(0.1)
    return 2 * number

def main():
    if sys.argv[2] == "used before":
        minibox.run("base", ["true"])
    patch()
    import os
    if sys.argv[1] == "gevent":
        import gevent as library
        end = lambda greenlet: greenlet.get()
    else:
        import eventlet as library
        end = lambda greenlet: greenlet.wait()

    def wait(name):
        script = f"until [ -e /{name} ]; do sleep 0.01; done; echo {name}; cat"
        return box.run(["sh", "-c", script], input="x" * 100000, capture_output=True, text=True).stdout

    namespace = os.readlink("/proc/thread-self/ns/net")
    with minibox.Sandbox("base", ["sh", "-c", "until [ -e /c ]; do sleep 0.01; done; exec httpd -f -h /etc"]) as box:
        # Nothing of this would end if the hub stood still while one of them waits.
        greenlets = [library.spawn(wait, name) for name in "ab"]
        greenlets.append(library.spawn(box.wait_for, http="/passwd"))
        command = box.popen(["sh", "-c", "until [ -e /d ]; do sleep 0.01; done; exit 7"])
        greenlets += [library.spawn(command.wait) for _ in range(2)]
        library.sleep(0.05)
        for name in "abcd":
            box.write_file(f"/{name}", "")
        found = [end(each) for each in greenlets]
        assert [each[:2] + str(len(each)) for each in found[:2]] == ["a\\n100002", "b\\n100002"]
        assert found[2:] == [None, 7, 7], found
        for attempt in (lambda: box.run(["sleep", "600"]), lambda: minibox.run("base", ["sleep", "600"]), box.wait):
            try:
                with library.Timeout(0.2):
                    attempt()
            except library.Timeout:
                continue
            raise AssertionError("nothing was raised")
        assert "sleep 600" not in box.run(["ps"], capture_output=True, text=True).stdout
        try:
            box.run(["sleep", "600"], timeout=0.05)
        except minibox.TimeoutExpired:
            pass
        with box.snapshot() as snapshot, snapshot.sandbox() as fork:
            assert fork.read_file("/a") == b"" and ("A", "/a") not in fork.diff()
        assert [end(each) for each in [library.spawn(double, number) for number in range(3)]] == [0, 2, 4]
    assert os.readlink("/proc/thread-self/ns/net") == namespace
    print("done")

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("when", ["used before", "first patched"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_the_hub_runs_while_a_greenlet_waits(
    library: str, when: str, session_directory: Path, environment: dict[str, str], orphans: object
) -> None:
    quiet = ("-W", "ignore")  # eventlet tells that nobody should use it any more
    status, out, err = outcome(GREENLETS, session_directory, environment, library, when, options=quiet)
    assert (status, out) == (0, "done\n"), err
