"""Measuring contenders side by side."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

# The kernel tears network namespaces down after their last process has gone, and who makes one waits
# for that: without a pause each contender pays for its predecessor.
PAUSE_S = 0.1

Measure = Callable[[], float]  # seconds of one go


class Unusable(Exception):
    """A contender can't run on this machine; says why."""


def count(name: str, usual: int) -> int:
    """How many of something: ``MINIBOX_BENCH_NAME`` of the environment, for a bench that is only to run through."""
    return int(os.environ.get(f"MINIBOX_BENCH_{name}", usual))


def part(rounds: int, divisor: int, least: int = 3) -> int:
    """Rounds of a table whose goes take long: fewer, but no fewer than ``least`` of them unless fewer were asked for."""
    return min(rounds, max(rounds // divisor, least))


def table(
    title: str, makers: dict[str, Callable[[], Measure]], baselines: tuple[str, ...], rounds: int, only: str
) -> None:
    """Run every contender once a round, and print what came out."""
    contenders: dict[str, Measure] = {}
    unusable: dict[str, str] = {}
    for name, make in makers.items():
        if only not in name:
            continue
        try:
            measure = make()
            measure()
            contenders[name] = measure
        except Unusable as reason:
            unusable[name] = str(reason)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            time.sleep(PAUSE_S)
            times[name].append(measure())
    medians = {name: statistics.median(values) for name, values in times.items()}
    against = [name for name in baselines if name in medians]
    print(f"\n{title:<30} {'median':>10} {'fastest':>10}" + "".join(f"   x {name}" for name in against))
    for name, values in times.items():
        ratios = "".join(f"{medians[name] / medians[other]:>{len(other) + 5}.2f}" for other in against)
        print(f"  {name:<28} {medians[name] * 1e3:>7.1f} ms {min(values) * 1e3:>7.1f} ms{ratios}")
    for name, why in unusable.items():
        print(f"  {name:<28} not usable here: {why}")
    sys.stdout.flush()


def command(argv: list[str], environment: Mapping[str, str] | None = None) -> Measure:
    """A command from fork to end, its output thrown away."""
    if shutil.which(argv[0]) is None:
        raise Unusable(f"{argv[0]} is not installed")

    def measure() -> float:
        begin = time.perf_counter()
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        )
        elapsed = time.perf_counter() - begin
        if done.returncode:
            raise Unusable(done.stderr.decode(errors="replace").strip() or f"status {done.returncode}")
        return elapsed

    return measure


def run(argv: list[str]) -> bytes:
    """What a table or a contender needs is made by a command; its output.

    Raises:
        Unusable: it failed.
    """
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        raise Unusable(f"{' '.join(argv)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
