"""Measuring contenders side by side."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The kernel tears network namespaces down after their last process has gone, and who makes one waits
# for that: without a pause each contender pays for its predecessor.
PAUSE_S = 0.1

Measure = Callable[[], float]  # seconds of one go


class Unusable(Exception):
    """A contender can't run on this machine; says why."""


@dataclass
class Table:
    """What one table has shown.

    Attributes:
        times: the seconds of each go, by contender.
        unusable: why a contender couldn't run here.
        baselines: the contenders that the others are compared with.
        figures: what else was told, by name.
        series: what a command takes, in seconds, by how many there are of something.
        unit: of what there are many, in a series.
    """

    title: str
    times: dict[str, list[float]] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()
    figures: dict[str, str] = field(default_factory=dict)
    series: dict[str, dict[int, float]] = field(default_factory=dict)
    unit: str = ""


#: All tables of this run, for `--json` and for docs/benchmarks.md.
TABLES: list[Table] = []


def program(name: str) -> str:
    """The path of one of our programs, as a user has them: from a wheel, where the bench has installed one."""
    return str(Path(os.environ.get("MINIBOX_BENCH_PROGRAMS") or Path(sys.executable).parent) / name)


def figures(title: str, rows: Mapping[str, str]) -> None:
    """Print what isn't compared round by round."""
    TABLES.append(Table(title, figures=dict(rows)))
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<28} {value}")
    sys.stdout.flush()


def count(name: str, usual: int) -> int:
    """How many of something: ``MINIBOX_BENCH_NAME`` of the environment, for a bench that is only to run through."""
    return int(os.environ.get(f"MINIBOX_BENCH_{name}", usual))


def part(rounds: int, divisor: int, least: int = 3) -> int:
    """Rounds of a table whose goes take long: fewer, but no fewer than ``least`` of them unless fewer were asked for."""
    return min(rounds, max(rounds // divisor, least))


def table(
    title: str,
    makers: dict[str, Callable[[], Measure]],
    baselines: tuple[str, ...],
    rounds: int,
    only: str,
    *,
    pause_s: float = PAUSE_S,
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
            time.sleep(pause_s)
            times[name].append(measure())
    medians = {name: statistics.median(values) for name, values in times.items()}
    against = [name for name in baselines if name in medians]
    TABLES.append(Table(title, times, unusable, tuple(against)))
    print(f"\n{title:<30} {'median':>10} {'fastest':>10}" + "".join(f"   x {name}" for name in against))
    for name, values in times.items():
        ratios = "".join(f"{medians[name] / medians[other]:>{len(other) + 5}.2f}" for other in against)
        print(f"  {name:<28} {medians[name] * 1e3:>7.1f} ms {min(values) * 1e3:>7.1f} ms{ratios}")
    for name, why in unusable.items():
        print(f"  {name:<28} not usable here: {why}")
    sys.stdout.flush()


def series(title: str, unit: str, rows: dict[str, dict[int, float]]) -> None:
    """Print how what a command takes grows with a number."""
    TABLES.append(Table(title, series=rows, unit=unit))
    counts = list(next(iter(rows.values())))
    print(f"\n{title:<30}" + "".join(f"{each:>8} {unit}" for each in counts))
    for name, values in rows.items():
        print(f"  {name:<28}" + "".join(f"{each * 1e3:>{len(unit) + 6}.1f} ms" for each in values.values()))
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
