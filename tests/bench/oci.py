"""`minibox-oci` beside runc and crun, on one bundle; and a question for a container's state beside a bare Python."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench.ground import status_of
from tests.bench.measure import Measure, Unusable, command, program, run, table

Makers = dict[str, Callable[[], Measure]]
RUNTIMES = {"minibox-oci": program("minibox-oci"), "crun": "crun", "runc": "runc"}


def tables(bundle: str, rounds: int, only: str) -> None:
    """Print them.

    Args:
        bundle: directory of a bundle that runs `true`.
    """
    with tempfile.TemporaryDirectory(prefix="minibox-bench-oci-") as root:
        commands = {name: [path, "--root", f"{root}/{name}"] for name, path in RUNTIMES.items()}
        runs: Makers = {
            f"{name} run": partial(command, [*argv, "run", "--bundle", bundle, "bench-oci"])
            for name, argv in commands.items()
        }
        table("OCI: run of `true`", runs, baselines=("runc run",), rounds=rounds, only=only)
        lives: Makers = {f"{name} create": partial(life, argv, bundle) for name, argv in commands.items()}
        table("OCI: create, start, delete", lives, baselines=("runc create",), rounds=rounds, only=only)
        states(commands, bundle, rounds, only)


def states(commands: dict[str, list[str]], bundle: str, rounds: int, only: str) -> None:
    """Of a container that was created, beside a bare Python, which is most of what ours takes."""
    bare = f"{Path(sys.executable).name} -c pass"
    made = []
    makers: Makers = {bare: partial(command, [sys.executable, "-c", "pass"])}
    try:
        for name, argv in commands.items():
            if status_of([*argv, "create", "--bundle", bundle, "bench-state"]) == 0:
                made.append(argv)
                makers[f"{name} state"] = partial(command, [*argv, "state", "bench-state"])
        table("OCI: state", makers, baselines=(bare, "runc state"), rounds=rounds, only=only)
    finally:
        for argv in made:
            run([*argv, "delete", "--force", "bench-state"])


def life(argv: list[str], bundle: str) -> Measure:
    """create, start and delete, one after the other, as an engine calls them."""
    words = (["create", "--bundle", bundle, "bench-oci"], ["start", "bench-oci"], ["delete", "--force", "bench-oci"])

    def measure() -> float:
        begin = time.perf_counter()
        for each in words:
            status = status_of([*argv, *each])
            if status:
                raise Unusable(f"{each[0]}: status {status}")
        return time.perf_counter() - begin

    return measure
