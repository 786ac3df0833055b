"""How much longer commands take when there are many containers, or an image has many layers."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.measure import count, program, run, series

MINIBOX = program("minibox")
CONTAINERS = count("CONTAINERS", 1000)
LAYERS = count("LAYERS", 100)
GOES = count("GOES", 5)

RUN = ["run", "--rm", "--network", "none"]
COMMANDS = {
    "run --rm, beside them": [*RUN, "base", "true"],
    "ps": ["ps"],
    "inspect of one": ["inspect", "grown-0"],
    "system df": ["system", "df"],
    "container prune, of none": ["container", "prune", "--force"],
}


def tables() -> None:
    """Print them. They begin with nothing and end with nothing."""
    containers()
    layers()


def containers() -> None:
    """Running ones, without a network."""
    rows: dict[str, dict[int, float]] = {name: {} for name in COMMANDS}
    made: list[str] = []
    try:
        for wanted in counts(CONTAINERS):
            while len(made) < wanted:
                made.append(f"grown-{len(made)}")
                run([MINIBOX, "run", "-d", "--network", "none", "--name", made[-1], "base", "sleep", "100000"])
            for name, words in COMMANDS.items():
                rows[name][wanted] = median(words)
    finally:
        for first in range(0, len(made), 500):
            subprocess.run([MINIBOX, "rm", "-f", *made[first : first + 500]], capture_output=True)
    series("with many running containers", "containers", rows)


def layers() -> None:
    """An image of a layer more for each line."""
    rows: dict[str, dict[int, float]] = {"run --rm": {}, "image history": {}, "build, all cached": {}}
    with tempfile.TemporaryDirectory(prefix="minibox-bench-layers-") as directory:
        for wanted in counts(LAYERS):
            lines = [f"RUN touch /{number}" for number in range(wanted)]
            Path(directory, "Dockerfile").write_text("\n".join(["FROM base", *lines]) + "\n")
            build = ["build", "--quiet", "--network", "none", "--tag", "grown", directory]
            run([MINIBOX, *build])
            rows["run --rm"][wanted] = median([*RUN, "grown", "true"])
            rows["image history"][wanted] = median(["image", "history", "grown"])
            rows["build, all cached"][wanted] = median(build)
    run([MINIBOX, "rmi", "--force", "grown"])
    run([MINIBOX, "builder", "prune", "--force"])
    series("with many layers", "layers", rows)


def counts(most: int) -> list[int]:
    """1, 10, 100 ... up to ``most``."""
    return [each for each in (1, 10, 100, 1000) if each < most] + [most]


def median(words: list[str]) -> float:
    """Of a few goes, after one that doesn't count."""
    times = []
    for _ in range(GOES + 1):
        begin = time.perf_counter()
        run([MINIBOX, *words])
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])
