"""Starts and ends of `true`, streams, and what a command costs before it does anything: beside the peers of Debian 12 and 13."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import which

from tests.bench.ground import Debian13, bundle, floor, podman
from tests.bench.measure import Measure, Unusable, command, figures, part, program, table

MINIBOX = program("minibox")
GIBIBYTE = 1 << 30
NONE = ("run", "--rm", "--network", "none")

Makers = dict[str, Callable[[], Measure]]


def tables(directory: Path, rootfs: Path, debian13: Debian13, rounds: int, only: str) -> None:
    """Print them."""
    starts(directory, rootfs, debian13, rounds, only)
    bridges(directory, rootfs, rounds, only)
    options(rounds, only)
    if not only:
        back_to_back(directory, bundle(directory, rootfs), rounds)


def starts(directory: Path, rootfs: Path, debian13: Debian13, rounds: int, only: str) -> None:
    """Debian 13's programs are started in their root by nsenter: a row says what that takes."""
    path = bundle(directory, rootfs)
    of_podman = podman(directory)

    def new(*words: str) -> Callable[[], Measure]:
        return lambda: command([*debian13.words(), *words])

    table(
        "start and end of `true`",
        {
            "the kernel's floor (C)": lambda: floor(directory, rootfs),
            "minibox, in process": in_process,
            "minibox run --network none": lambda: command([MINIBOX, *NONE, "base", "true"]),
            "minibox run (bridge)": lambda: command([MINIBOX, "run", "--rm", "base", "true"]),
            "bwrap": lambda: command(bwrap(rootfs)),
            "crun 1.8 run": lambda: command(["crun", "run", "--bundle", path, "bench-crun"]),
            "runc run": lambda: command(["runc", "run", "--bundle", path, "bench-runc"]),
            "podman 4 run --network none": lambda: command(podman_run(of_podman, rootfs)),
            "systemd-nspawn": lambda: command(nspawn(rootfs)),
            "nothing, in Debian 13's root": new("true"),
            "crun 1.21 run": new("crun", "run", "--bundle", path, "bench-crun-13"),
            "podman 5 run --network none": new(*podman_run(podman(directory / "debian13"), rootfs)),
        },
        baselines=("the kernel's floor (C)", "crun 1.8 run"),
        rounds=rounds,
        only=only,
    )


def bridges(directory: Path, rootfs: Path, rounds: int, only: str) -> None:
    words = [*podman(directory), "run", "--rm", "--ulimit", "host", "--rootfs", str(rootfs), "true"]
    table(
        "the same on a bridge",
        {
            "minibox run (bridge)": lambda: command([MINIBOX, "run", "--rm", "base", "true"]),
            "podman 4 run (bridge)": lambda: command(words),
        },
        baselines=("podman 4 run (bridge)",),
        rounds=part(rounds, 2),
        only=only,
    )


def options(rounds: int, only: str) -> None:
    """A start of another kind isn't slower: each is told beside the plain one."""
    kinds = {
        "minibox run --network none": (),
        "... -v /tmp:/host:ro": ("-v", "/tmp:/host:ro"),
        "... -e A=1 -e B=2 -e C=3": ("-e", "A=1", "-e", "B=2", "-e", "C=3"),
        "... --memory 64m": ("--memory", "64m"),
        "... --read-only --tmpfs /run": ("--read-only", "--tmpfs", "/run"),
        "... --user 1000:1000": ("--user", "1000:1000"),
    }
    makers: Makers = {name: partial(command, [MINIBOX, *NONE, *words, "base", "true"]) for name, words in kinds.items()}
    table("minibox run with options", makers, baselines=(next(iter(kinds)),), rounds=rounds, only=only)


def back_to_back(directory: Path, path: str, rounds: int) -> None:
    """By hyperfine: each contender again and again without a pause, as in a script's loop."""
    if which("hyperfine") is None:
        figures("back to back, by hyperfine", {"not usable here": "hyperfine is not installed"})
        return
    commands = {
        "minibox run --network none": f"{MINIBOX} {' '.join(NONE)} base true",
        "crun 1.8 run": f"crun run --bundle {path} bench-hyperfine",
        "runc run": f"runc run --bundle {path} bench-hyperfine",
        "python3 -c pass": f"{sys.executable} -c pass",
    }
    results = directory / "hyperfine.json"
    words = [
        "hyperfine",
        "-N",
        "--style",
        "none",
        "--warmup",
        "3",
        "--runs",
        str(rounds * 5),
        "--export-json",
        str(results),
    ]
    done = subprocess.run([*words, *commands.values()], stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        figures("back to back, by hyperfine", {"not usable here": done.stderr.decode().strip()})
        return
    medians = [each["median"] for each in json.loads(results.read_text())["results"]]
    crun = medians[1]
    rows = {name: f"{each * 1e3:7.1f} ms {each / crun:6.2f} x crun" for name, each in zip(commands, medians)}
    figures("back to back, by hyperfine", rows)


def streams(rootfs: Path, rounds: int, only: str) -> None:
    busybox = [str(rootfs / "bin/busybox")] if (rootfs / "bin/busybox").exists() else []
    zeros = ["dd", "if=/dev/zero", "bs=64k", f"count={GIBIBYTE >> 16}"]
    table(
        "1 GiB through stdout",
        {
            "a plain pipe": lambda: stream([*busybox, *zeros]),
            "minibox run": lambda: stream([MINIBOX, *NONE, "base", *zeros]),
        },
        baselines=("a plain pipe",),
        rounds=part(rounds, 5),
        only=only,
    )


def python(rounds: int, only: str) -> None:
    """What a command costs before it does anything, beside a Python that does nothing."""
    bare = "python3 -c pass"
    table(
        "python",
        {
            bare: lambda: command([program("python3"), "-c", "pass"]),
            "import minibox": lambda: command([program("python3"), "-c", "import minibox"]),
            "minibox --version": lambda: command([MINIBOX, "--version"]),
            "minibox --help": lambda: command([MINIBOX, "--help"]),
            "minibox ps, no container": lambda: command([MINIBOX, "ps"]),
        },
        baselines=(bare,),
        rounds=rounds,
        only=only,
    )


# ---- contenders: each is made once and returns what measures one go -------------------------------


def in_process() -> Measure:
    """The engine in this process, with everything imported and the image unpacked."""
    import minibox

    def measure() -> float:
        begin = time.perf_counter()
        done = minibox.run("base", ["true"], network="none")
        elapsed = time.perf_counter() - begin
        if done.returncode:
            raise Unusable(f"status {done.returncode}")
        return elapsed

    return measure


def bwrap(rootfs: Path) -> list[str]:
    return ["bwrap", "--unshare-all", "--die-with-parent", "--bind", str(rootfs), "/", "--proc", "/proc", "--dev", "/dev", "true"]  # fmt: skip


def nspawn(rootfs: Path) -> list[str]:
    return [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--private-network",
        f"--directory={rootfs}",
        "/bin/true",
    ]


def podman_run(podman: list[str], rootfs: Path) -> list[str]:
    return [*podman, "run", "--rm", "--network", "none", "--ulimit", "host", "--rootfs", str(rootfs), "true"]


def stream(argv: list[str]) -> Measure:
    """Read 1 GiB of a command's stdout."""

    def measure() -> float:
        buffer = bytearray(1 << 20)
        begin = time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as process:
            assert process.stdout is not None
            total = 0
            while size := os.readv(process.stdout.fileno(), [buffer]):
                total += size
        elapsed = time.perf_counter() - begin
        if total != GIBIBYTE:
            raise Unusable(f"{total} bytes came through, status {process.returncode}")
        return elapsed

    return measure
