"""The results of a bench as a file, and docs/benchmarks.md with its pictures, which are drawn from that file.

    python tests/bench/report.py docs/benchmarks/results.json

A run of some tables replaces those in the file; the others stay, each with its date.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from minibox.cli.format import svg  # noqa: E402
from tests.bench.measure import TABLES, program  # noqa: E402
from tests.engines import PATH  # noqa: E402

PAGE = CHECKOUT / "docs/benchmarks.md"
PICTURES = CHECKOUT / "docs/benchmarks"
VERSIONS = {
    "minibox": [program("minibox"), "--version"],
    "Python": [program("python3"), "--version"],
    "crun": ["crun", "--version"],
    "runc": ["runc", "--version"],
    "podman": ["podman", "--version"],
    "buildah": ["buildah", "--version"],
    "docker": ["docker", "--version"],
    "bwrap": ["bwrap", "--version"],
}
NAME_PX, BAR_PX, ROW_PX, MARGIN_PX = 250, 420, 24, 16
PLOT_HEIGHT_PX, PLOT_WIDTH_PX = 220, 520
KINDS = ("mark", "warm", "own", "bad", "faint")  # of lines, in turn

HEAD = """\
# How fast it is

`make bench` measures minibox and its peers side by side: in each round every contender runs once, with a pause before it, and what is
told is the median. minibox's programs are those of a wheel that pip installed; what says "in process" or `minibox.run` calls
minibox within one Python program. Machines are noisy: look at ratios, not at milliseconds. `make bench` writes this page.
"""


def description(rounds: int) -> dict[str, Any]:
    """The machine, what is compared, and the date."""
    cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal: *(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "date": date.today().isoformat(),
        "rounds": rounds,
        "kernel": platform.release().partition("-")[0],
        "processors": f"{os.cpu_count()} x {cpu[1] if cpu else platform.machine()}",
        "memory": f"{int(memory[1]) >> 20 if memory else 0} GiB",
        "cgroup": "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1",
        "versions": {name: found for name, argv in VERSIONS.items() if (found := _version(argv))},
    }


def _version(argv: list[str]) -> str:
    """The first number with dots that a program tells; "" if it isn't there."""
    try:
        told = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "PATH": PATH})
    except OSError:
        return ""
    found = re.search(r"\d+(\.\d+)+", told.stdout + told.stderr)
    return found[0] if found else ""


def write_json(path: Path, about: dict[str, Any]) -> None:
    """Write the tables of this run to a file, beside those that it has and that weren't measured anew."""
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"tables": {}}
    document |= about
    for each in TABLES:
        times = {name: [round(value, 6) for value in values] for name, values in each.times.items()}
        fields = {**vars(each), "times": times, "date": about["date"]}
        document["tables"][each.title] = {name: value for name, value in fields.items() if value and name != "title"}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def draw(document: dict[str, Any]) -> None:
    """Write the page and its pictures."""
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("*.svg"):
        old.unlink()
    parts = [HEAD, *_about(document)]
    for title, table in document["tables"].items():
        parts += [f"\n## {title[0].upper()}{title[1:]}\n"]
        if table["date"] != document["date"]:
            parts.append(f"Measured on {table['date']}.\n")
        picture = ""
        if table.get("times"):
            picture = bars(title, table)
        elif table.get("series"):
            picture = curves(title, table)
        if table.get("times"):
            parts.append(f"{max(map(len, table['times'].values()))} rounds.\n")
        if picture:
            name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
            (PICTURES / f"{name}.svg").write_text(picture)
            parts.append(f"![{title.replace('`', '')}](benchmarks/{name}.svg)\n")
        parts += rows(table)
    PAGE.write_text("\n".join(parts) + "\n")


def _about(document: dict[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    yield (
        f"Measured on {document['date']}: {document['processors']}, {document['memory']}, "
        f"Linux {document['kernel']}, cgroup {document['cgroup']}; {versions}."
    )


def rows(table: dict[str, Any]) -> Iterator[str]:
    """The table itself, in Markdown."""
    if table.get("figures"):
        yield "| | |\n| --- | --- |"
        yield from (f"| {name} | {value} |" for name, value in table["figures"].items())
        return
    if table.get("series"):
        counts = list(next(iter(table["series"].values())))
        yield f"| | {' | '.join(f'{each} ' + table['unit'] for each in counts)} |"
        yield f"| --- |{' ---: |' * len(counts)}"
        for name, values in table["series"].items():
            yield f"| {name} | {' | '.join(milliseconds(each) for each in values.values())} |"
        return
    medians = {name: statistics.median(values) for name, values in table["times"].items()}
    baselines = table.get("baselines", [])
    yield f"| | median | fastest |{''.join(f' x {name} |' for name in baselines)}"
    yield f"| --- | ---: | ---: |{' ---: |' * len(baselines)}"
    for name, median in medians.items():
        ratios = "".join(f" {median / medians[other]:.2f} |" for other in baselines)
        yield f"| {name} | {milliseconds(median)} | {milliseconds(min(table['times'][name]))} |{ratios}"
    for name, why in table.get("unusable", {}).items():
        yield f"| {name} | not usable there: {why.splitlines()[-1]} | |{' |' * len(baselines)}"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


# ---- pictures -----------------------------------------------------------------------------------------


def bars(title: str, table: dict[str, Any]) -> str:
    """A bar for each contender's median; ours are marked."""
    medians = {name: statistics.median(values) for name, values in table["times"].items()}
    longest = max(medians.values())
    parts = [svg.text(MARGIN_PX, MARGIN_PX + 8, title.replace("`", ""), bold=True)]
    for number, (name, median) in enumerate(medians.items()):
        y = 2 * MARGIN_PX + 8 + number * ROW_PX
        width = max(median / longest * BAR_PX, 1)
        is_ours = "minibox" in name or name.startswith("...")
        parts += [
            svg.text(MARGIN_PX, y + 13, name),
            svg.bar(MARGIN_PX + NAME_PX, y, width, ROW_PX - 8, "mark" if is_ours else "edge", milliseconds(median)),
            svg.text(MARGIN_PX + NAME_PX + width + 8, y + 13, milliseconds(median), "faint"),
        ]
    height = 3 * MARGIN_PX + len(medians) * ROW_PX
    return svg.picture(2 * MARGIN_PX + NAME_PX + BAR_PX + 90, height, title, parts)


def curves(title: str, table: dict[str, Any]) -> str:
    """A line for each command: its time above the number of things, the number by powers of ten."""
    series = {name: {int(at): each for at, each in values.items()} for name, values in table["series"].items()}
    counts = sorted({at for values in series.values() for at in values})
    most, slowest = max(counts), max(max(values.values()) for values in series.values())
    left, top = MARGIN_PX + 70, 3 * MARGIN_PX
    bottom = top + PLOT_HEIGHT_PX

    def place(at: int, seconds: float) -> tuple[float, float]:
        across = math.log10(at) / math.log10(most) if most > 1 else 0
        return left + across * PLOT_WIDTH_PX, bottom - seconds / slowest * PLOT_HEIGHT_PX

    parts = [svg.text(MARGIN_PX, MARGIN_PX + 8, title, bold=True)]
    for part in range(5):
        y = bottom - part / 4 * PLOT_HEIGHT_PX
        parts += [
            svg.line(left, y, left + PLOT_WIDTH_PX, y),
            svg.text(MARGIN_PX, y + 4, milliseconds(slowest * part / 4), "faint"),
        ]
    parts += [svg.text(place(at, 0)[0] - 8, bottom + 18, f"{at}", "faint") for at in counts]
    parts.append(svg.text(left + PLOT_WIDTH_PX / 2 - 30, bottom + 36, table["unit"], "faint"))
    for number, (name, values) in enumerate(series.items()):
        kind, points = KINDS[number % len(KINDS)], [place(at, each) for at, each in values.items()]
        parts += [svg.line(*one, *other) for one, other in zip(points, points[1:])]
        parts += [
            svg.bar(x - 3, y - 3, 6, 6, kind, f"{name}: {milliseconds(each)}")
            for (x, y), each in zip(points, values.values())
        ]
        y = top + number * svg.LINE_PX
        parts += [svg.bar(left + PLOT_WIDTH_PX + 24, y, 10, 10, kind, name)]
        parts += [svg.text(left + PLOT_WIDTH_PX + 42, y + 9, name)]
    return svg.picture(left + PLOT_WIDTH_PX + 280, bottom + 3 * MARGIN_PX, title, parts)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()))
