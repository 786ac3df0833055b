"""minibox inside a Python program: a run from a small and from a big process, many at once, snapshots, thousands in turn."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.bench.measure import Measure, Unusable, count, figures, part, table

RUNS = count("RUNS", 10_000)
AT_ONCE, THREADS = count("AT_ONCE", 100), 8
FILES = count("FILES", 10_000)
RESIDENT = count("RESIDENT_MIB", 2048) << 20

#: A program of a size that runs a container for each line it reads, and says how long it took.
PROGRAM = """
import sys, time
import minibox
ballast = bytearray(int(sys.argv[1]))
for place in range(0, len(ballast), 4096):
    ballast[place] = 1
for _ in sys.stdin:
    begin = time.perf_counter()
    minibox.run("base", ["true"], network="none", check=True)
    print(time.perf_counter() - begin, flush=True)
"""

#: Says what the import, the first run and a later one took.
FIRST = """
import time
times = [time.perf_counter()]
import minibox
times.append(time.perf_counter())
for _ in range(10):
    minibox.run("base", ["true"], network="none", check=True)
    times.append(time.perf_counter())
spans = [b - a for a, b in zip(times, times[1:])]
print(spans[0], spans[1], sorted(spans[2:])[4])
"""


def tables(floor: Callable[[], Measure], bundle: Callable[[], str], rounds: int, only: str) -> None:
    """Print them.

    Args:
        floor: makes the measure of the kernel's floor.
        bundle: makes a bundle of `true` for crun.
    """
    names = ("the kernel's floor (C)", "minibox.run")
    programs: list[subprocess.Popen[str]] = []
    table(
        "minibox.run of `true`",
        {
            names[0]: floor,
            names[1]: lambda: program(0, programs),
            f"minibox.run, {RESIDENT >> 20} MiB resident": lambda: program(RESIDENT, programs),
        },
        baselines=names,
        rounds=rounds,
        only=only,
    )
    for each in programs:
        each.communicate()
    table(
        f"{AT_ONCE} runs, {THREADS} at a time",
        {
            f"minibox.run, {THREADS} threads": threads,
            "minibox.aio.run, gathered": gathered,
            f"crun run, xargs -P {THREADS}": lambda: crun(bundle()),
        },
        baselines=(f"crun run, xargs -P {THREADS}",),
        rounds=part(rounds, 4),
        only=only,
    )
    with ExitStack() as stack:
        table(
            "a Sandbox of a snapshot, begun and closed",
            {f"with {files} files": partial(forked, files, stack) for files in (0, FILES)},
            baselines=("with 0 files",),
            rounds=rounds,
            only=only,
        )
    if not only:
        held_after_many()
        first_run(rounds)


def program(size: int, programs: list[subprocess.Popen[str]]) -> Measure:
    """One run of a program that has ``size`` bytes in memory."""
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    if size > int(available.split()[1]) << 10:
        raise Unusable(f"{size >> 20} MiB of memory are not free")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    programs.append(process)

    def measure() -> float:
        assert process.stdin and process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise Unusable("the program has died")
        return float(line)

    for _ in range(3):  # until all is imported and compiled
        measure()
    return measure


def threads() -> Measure:
    import minibox

    def work(left: list[int]) -> None:
        while left:
            try:
                left.pop()
            except IndexError:
                return
            minibox.run("base", ["true"], network="none", check=True)

    def measure() -> float:
        left = list(range(AT_ONCE))
        workers = [threading.Thread(target=work, args=(left,)) for _ in range(THREADS)]
        begin = time.perf_counter()
        for each in workers:
            each.start()
        for each in workers:
            each.join()
        return time.perf_counter() - begin

    return measure


def gathered() -> Measure:
    import asyncio

    from minibox import aio

    async def all_of_them() -> None:
        await asyncio.gather(*(aio.run("base", ["true"], network="none", check=True) for _ in range(AT_ONCE)))

    def measure() -> float:
        begin = time.perf_counter()
        asyncio.run(all_of_them())
        return time.perf_counter() - begin

    return measure


def forked(files: int, stack: ExitStack) -> Measure:
    """A sandbox whose snapshot has so many files beside the image's."""
    import minibox

    with minibox.Sandbox("base") as box:
        box.run(["sh", "-c", f"mkdir /data && for i in $(seq {files}); do echo $i > /data/$i; done"], check=True)
        snapshot = stack.enter_context(box.snapshot())

    def measure() -> float:
        begin = time.perf_counter()
        snapshot.sandbox().close()
        return time.perf_counter() - begin

    return measure


def crun(bundle: str) -> Measure:
    if shutil.which("crun") is None:
        raise Unusable("crun is not installed")
    words = ["xargs", "-P", str(THREADS), "-I{}", "crun", "run", "--bundle", bundle, "bench-{}"]
    ids = "".join(f"{number}\n" for number in range(AT_ONCE))

    def measure() -> float:
        begin = time.perf_counter()
        done = subprocess.run(words, input=ids, text=True, capture_output=True)
        elapsed = time.perf_counter() - begin
        if done.returncode:
            raise Unusable(done.stderr.strip())
        return elapsed

    return measure


def held_after_many() -> None:
    """What many runs leave in this process and in its launcher."""
    import minibox

    def run(times: int) -> None:
        for _ in range(times):
            minibox.run("base", ["true"], network="none", check=True)

    run(max(RUNS // 100, 1))
    processes = {"this process": os.getpid(), "its launcher": launcher_pid()}
    before = {name: held(pid) for name, pid in processes.items()}
    run(RUNS)
    rows = {}
    for name, pid in processes.items():
        (fds, memory), (fds_now, memory_now) = before[name], held(pid)
        rows[name] = f"descriptors {fds} -> {fds_now}, memory {memory} -> {memory_now} KiB"
    figures(f"{RUNS} runs of `true` in turn", rows)


def first_run(rounds: int) -> None:
    """In a fresh process: what the first run costs with the import of minibox, beside those that follow."""
    done = [
        subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(rounds)
    ]
    imported, first, later = (statistics.median(float(each[at]) for each in done) * 1e3 for at in range(3))
    rows = {
        "import minibox": f"{imported:.1f} ms",
        "the first run": f"{first:.1f} ms",
        "a later one": f"{later:.1f} ms",
        "import and first run / later": f"{(imported + first) / later:.1f}",
    }
    figures("in a fresh process", rows)


def launcher_pid() -> int:
    """Of this process's children the one that starts containers."""
    pids = "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    return next(int(pid) for pid in pids if Path(f"/proc/{pid}/comm").read_text().startswith("minibox-launche"))


def held(pid: int) -> tuple[int, int]:
    """Open descriptors and KiB of dirty memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return len(os.listdir(f"/proc/{pid}/fd")), sum(int(line.split()[1]) for line in lines if "Private_Dirty" in line)
