"""Detached containers beside podman's: their start, a command in one, what watches over one, and hundreds of them.

The scale table has no peer: podman needs minutes for it. It begins with nothing and ends with nothing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.bench.measure import Measure, Unusable, command, count, run, table

MINIBOX = str(Path(sys.executable).parent / "minibox")
COUNT = count("CONTAINERS", 500)
SLEEP = ("sleep", "1000")
YARDSTICK = [sys.executable, "-I", "-c", "import json, re, subprocess"]


def tables(podman: list[str], rootfs: Path, rounds: int, only: str) -> None:
    """Print them.

    Args:
        podman: its command with what says where its storage is.
        rootfs: what its image is made of; minibox has it as an image already.
    """
    archive = rootfs.with_suffix(".tar")
    run(["tar", "-C", str(rootfs), "-cf", str(archive), "."])
    run([*podman, "import", "--quiet", str(archive), "bench"])
    archive.unlink()
    podman_run = [*podman, "run", "--detach", "--network", "none", "--ulimit", "host", "bench", *SLEEP]
    minibox_run = [MINIBOX, "run", "--detach", "--network", "none"]
    names = ("minibox run -d", "podman run -d")
    table(
        "run -d",
        {
            names[0]: lambda: detached([*minibox_run, "base", *SLEEP], [MINIBOX, "rm", "-f"]),
            names[1]: lambda: detached(podman_run, [*podman, "rm", "-f", "-t", "0"]),
        },
        baselines=names[1:],
        rounds=rounds,
        only=only,
    )  # fmt: skip
    with suppress(Unusable):
        one = started([*minibox_run, "base", *SLEEP])
        other = started(podman_run)
        table(
            "exec of `true`",
            {
                "minibox exec": lambda: command([MINIBOX, "exec", one, "true"]),
                "podman exec": lambda: command([*podman, "exec", other, "true"]),
            },
            baselines=("podman exec",),
            rounds=rounds,
            only=only,
        )
        watchers(one, other)
        run([*podman, "rm", "-f", "-t", "0", other])
        run([MINIBOX, "rm", "-f", one])
    for network in ("none", "bridge"):
        scale(network)
    ends()


def started(argv: list[str]) -> str:
    """The id of a container that a command starts."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Unusable(done.stderr.strip())
    return done.stdout.strip()


def detached(start: list[str], remove: list[str]) -> Measure:
    """The start of a container that is removed again, which isn't counted."""

    def measure() -> float:
        begin = time.perf_counter()
        container = started(start)
        elapsed = time.perf_counter() - begin
        run([*remove, container])
        return elapsed

    return measure


def watchers(minibox_id: str, podman_id: str) -> None:
    """Private memory of what stays beside each container."""
    print(f"\n{'memory beside a container':<30} {'dirty':>10} {'private':>10}")
    for name, mark in (("minibox-supervisor", f"minibox-supervisor\0{minibox_id[:12]}"), ("conmon", podman_id)):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_text()
                if name in words.partition("\0")[0] and mark in words:
                    sizes = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
                    private = {words[0]: int(words[1]) for words in sizes if words[0].startswith("Private_")}
                    print(f"  {name:<28} {private['Private_Dirty:']:>6} KiB {sum(private.values()):>6} KiB")


def scale(network: str) -> None:
    """Many containers one after the other, and what is done to all of them.

    A machine's speed changes meanwhile: so each start is also told as a multiple of one of Python right before it.
    """
    times, ratios, ids = [], [], []
    for _ in range(COUNT):
        python = _timed(YARDSTICK)
        begin = time.perf_counter()
        ids.append(started([MINIBOX, "run", "--detach", "--network", network, "base", *SLEEP]))
        times.append(time.perf_counter() - begin)
        ratios.append(times[-1] / python)
    part = max(COUNT // 10, 1)
    print(f"\n{COUNT} containers, --network {network}")
    for what, values in (("run -d, ms", [each * 1e3 for each in times]), ("run -d / a start of Python", ratios)):
        first, last = statistics.median(values[:part]), statistics.median(values[-part:])
        print(f"  {what:<28} first {part}: {first:.2f}, last {part}: {last:.2f} ({last / first:.2f} x)")
    for words in (["ps"], ["stats", "--no-stream"], ["system", "df"]):
        print(f"  {' '.join(words):<20} {_timed([MINIBOX, *words]):>7.2f} s")
    seconds = _timed([MINIBOX, "rm", "-f", *ids])
    print(f"  {'rm -f of all':<20} {seconds:>7.2f} s: {COUNT / seconds:.0f} a second")
    sys.stdout.flush()


def ends() -> None:
    """Many containers that end at once by themselves: until the last has been tidied up behind."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as shared:
        os.chmod(shared, 0o755)
        gate = Path(shared, "gate")
        os.mkfifo(gate)
        gate.chmod(0o644)
        start = [MINIBOX, "run", "-d", "--rm", "--network", "none", "-v", f"{shared}:/shared:ro", "base", "sh", "-c"]
        for _ in range(COUNT):
            started([*start, "read line </shared/gate"])
        gate.write_bytes(b"")  # all readers see it end
        begin = time.perf_counter()
        while run([MINIBOX, "ps", "-aq"]):
            time.sleep(0.2)
        seconds = time.perf_counter() - begin
    print(f"  {'the end of all':<20} {seconds:>7.2f} s: {COUNT / seconds:.0f} a second")
    sys.stdout.flush()


def _timed(argv: list[str]) -> float:
    begin = time.perf_counter()
    run(argv)
    return time.perf_counter() - begin
