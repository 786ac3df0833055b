"""Two checkouts side by side in one run: `make bench-against OLD=CHECKOUT`. Starts, OCI and embedding, medians and ratios.

Both are measured in each round, the one that is first by turns, so that a busy moment hits both alike. minibox is only touched
from outside: its commands, and what `import minibox` offers.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from tests import isolation  # noqa: E402
from tests.bench import ground, oci  # noqa: E402
from tests.bench.measure import PAUSE_S, Measure, Unusable, command, part, run  # noqa: E402

TABLES = ("starts", "oci", "embedding")
SLOWER = 1.03  # what is more is marked
RESAMPLES = 1000

#: Does what its argument names for each line that it reads, and says how long it took.
PROGRAM = """
import asyncio, contextlib, sys, threading, time
import minibox
from minibox import aio

def run():
    minibox.run("base", ["true"], network="none", check=True)

def threads():
    workers = [threading.Thread(target=lambda: [run() for _ in range(5)]) for _ in range(4)]
    for each in workers: each.start()
    for each in workers: each.join()

def gathered():
    async def all_of_them():
        await asyncio.gather(*(aio.run("base", ["true"], network="none", check=True) for _ in range(20)))
    asyncio.run(all_of_them())

def sandbox():
    with minibox.Sandbox("base") as box:
        box.run(["true"], check=True)

def snapshot():
    with made.sandbox() as box:
        pass

with contextlib.ExitStack() as stack:
    if sys.argv[1] == "snapshot":
        with minibox.Sandbox("base") as box:
            made = stack.enter_context(box.snapshot())
    for _ in sys.stdin:
        begin = time.perf_counter()
        globals()[sys.argv[1]]()
        print(time.perf_counter() - begin, flush=True)
"""

Maker = Callable[["Tree"], Measure]


class Tree:
    """A checkout, with state of its own."""

    def __init__(self, name: str, checkout: Path, directory: Path) -> None:
        self.name = name
        self.programs = checkout.absolute() / ".venv/bin"
        self.directory = directory / name
        self.directory.mkdir()
        self.environment = {
            **os.environ,
            "MINIBOX_ROOT": str(self.directory / "root"),
            "MINIBOX_RUNROOT": str(self.directory / "run"),
        }
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is compiled at each start is no measure
        self._stack = ExitStack()

    def minibox(self, *words: str) -> Measure:
        return command([str(self.programs / "minibox"), *words], self.environment)

    def oci(self, *words: str) -> list[str]:
        return [str(self.programs / "minibox-oci"), "--root", str(self.directory / "oci"), *words]

    def program(self, what: str) -> Measure:
        """One go of what `PROGRAM` does."""
        argv = [str(self.programs / "python"), "-c", PROGRAM, what]
        process = self._stack.enter_context(
            subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment, cwd="/"
            )
        )
        stdin, stdout = process.stdin, process.stdout
        assert stdin and stdout

        def measure() -> float:
            stdin.write("\n")
            stdin.flush()
            line = stdout.readline()
            if not line:
                raise Unusable("the program has died")
            return float(line)

        self._stack.callback(stdin.close)
        for _ in range(3):  # until all is imported and compiled
            measure()
        return measure

    def at_end(self, do: Callable[[], object]) -> None:
        self._stack.callback(do)

    def close(self) -> None:
        self._stack.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="compare two checkouts of minibox")
    parser.add_argument("old", type=Path, help="a checkout that was built (make build)")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"which of {', '.join(TABLES)} (all)")
    parser.add_argument("--new", type=Path, default=CHECKOUT, help="the other one (this)")
    parser.add_argument(
        "--rounds", type=int, default=200, help="how often each is measured (200; what takes long: a quarter)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name has TEXT in it")
    given = parser.parse_args()
    if unknown := {*given.tables} - {*TABLES}:
        parser.error(f"no table called {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        print("the benchmark needs root", file=sys.stderr)
        return 1
    directory = Path(tempfile.mkdtemp(prefix="minibox-bench-"))
    try:
        isolation.enter(directory)
        state = ground.new_ext4(directory)
        trees = (Tree("old", given.old, state), Tree("new", given.new, state))
        try:
            for table in given.tables or TABLES:
                print_table(table, rows(table, state), trees, given.rounds, given.only)
        finally:
            for tree in trees:
                tree.close()
    finally:
        ground.remove(directory)
    return 0


def rows(table: str, directory: Path) -> dict[str, tuple[int, Maker]]:
    """What is measured, by name: how many times as seldom as usual, and what makes it of a tree."""
    if table == "starts":
        return {
            "minibox run --network none": (
                1,
                lambda tree: tree.minibox("run", "--rm", "--network", "none", "base", "true"),
            ),
            "minibox run (bridge)": (1, lambda tree: tree.minibox("run", "--rm", "base", "true")),
            "minibox --help": (1, lambda tree: tree.minibox("--help")),
            "minibox ps": (1, lambda tree: tree.minibox("ps")),
        }
    if table == "embedding":
        return {
            "minibox.run": (1, lambda tree: tree.program("run")),
            "Sandbox, one run": (1, lambda tree: tree.program("sandbox")),
            "Sandbox of a snapshot": (1, lambda tree: tree.program("snapshot")),
            "20 runs by 4 threads": (4, lambda tree: tree.program("threads")),
            "20 runs by aio": (4, lambda tree: tree.program("gathered")),
        }
    os.environ |= {"MINIBOX_ROOT": str(directory / "maker"), "MINIBOX_RUNROOT": str(directory / "maker-run")}
    rootfs = directory / "rootfs"
    ground.make_rootfs(rootfs)
    path = ground.bundle(directory, rootfs)

    def created(tree: Tree) -> Measure:
        if ground.status_of(tree.oci("create", "--bundle", path, f"bench-state-{tree.name}")):
            raise Unusable("create failed")
        tree.at_end(lambda: run(tree.oci("delete", "--force", f"bench-state-{tree.name}")))
        return command(tree.oci("state", f"bench-state-{tree.name}"))

    return {
        "minibox-oci run": (1, lambda tree: command(tree.oci("run", "--bundle", path, f"bench-{tree.name}"))),
        "create, start, delete": (1, lambda tree: oci.life(tree.oci(), path)),
        "minibox-oci state": (1, created),
    }


def print_table(
    title: str, makers: dict[str, tuple[int, Maker]], trees: tuple[Tree, Tree], rounds: int, only: str
) -> None:
    print(f"\n{title:<30} {'old':>10} {'new':>10}   new/old (95 % of resamples)")
    for name, (seldom, make) in makers.items():
        if only not in name:
            continue
        try:
            measures = [make(tree) for tree in trees]
            times = interleaved(measures, part(rounds, seldom))
        except Unusable as reason:
            print(f"  {name:<28} not usable here: {reason}", flush=True)
            continue
        old, new = map(statistics.median, times)
        low, high = interval(*times)
        mark = "  slower" if low > SLOWER else ""
        print(
            f"  {name:<28} {old * 1e3:>7.1f} ms {new * 1e3:>7.1f} ms   {new / old:.3f} ({low:.3f} to {high:.3f}){mark}",
            flush=True,
        )


def interleaved(measures: list[Measure], rounds: int) -> list[list[float]]:
    """The seconds of each, round by round, after one go that doesn't count."""
    times: list[list[float]] = [[] for _ in measures]
    for number in range(-1, rounds):
        order = list(range(len(measures)))
        for place in order if number % 2 else reversed(order):
            time.sleep(PAUSE_S)
            elapsed = measures[place]()
            if number >= 0:
                times[place].append(elapsed)
    return times


def interval(old: list[float], new: list[float]) -> tuple[float, float]:
    """Where the ratio of the medians lies in 95 of 100 resamples of the rounds."""
    chance = random.Random(0)
    pairs = list(zip(old, new))
    ratios = []
    for _ in range(RESAMPLES):
        sample = chance.choices(pairs, k=len(pairs))
        ratios.append(statistics.median(each[1] for each in sample) / statistics.median(each[0] for each in sample))
    ratios.sort()
    return ratios[RESAMPLES // 40], ratios[-RESAMPLES // 40]


if __name__ == "__main__":
    sys.exit(main())
