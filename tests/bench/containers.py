"""Detached containers beside podman's: their start, a command in one, what watches over one, and hundreds of them.

The scale table has no peer: podman needs minutes for it. It begins with nothing and ends with nothing.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.bench.ground import CGROUPS, status_of
from tests.bench.measure import Measure, Unusable, command, count, figures, program, run, table

MINIBOX = program("minibox")
COUNT = count("ENDS", 200)
SLEEP = ("sleep", "1000")


def tables(podman: list[str], rootfs: Path, sleeping: str, rounds: int, only: str) -> None:
    """Print them.

    Args:
        podman: its command with what says where its storage is.
        rootfs: what its image is made of; minibox has it as an image already.
        sleeping: a bundle that sleeps, for crun.
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
        third = "bench-exec"
        if status_of(["crun", "run", "--detach", "--bundle", sleeping, third]):
            raise Unusable("crun doesn't start")
        table(
            "exec of `true`",
            {
                "minibox exec": lambda: command([MINIBOX, "exec", one, "true"]),
                "crun exec": lambda: command(["crun", "exec", third, "true"]),
                "podman exec": lambda: command([*podman, "exec", other, "true"]),
            },
            baselines=("crun exec", "podman exec"),
            rounds=rounds,
            only=only,
        )
        watchers(one, other)
        run([*podman, "rm", "-f", "-t", "0", other])
        run(["crun", "delete", "--force", third])
        run([MINIBOX, "rm", "-f", one])
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
    rows = {}
    for name, mark in (("minibox-supervisor", f"minibox-supervisor\0{minibox_id[:12]}"), ("conmon", podman_id)):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_text()
                if name in words.partition("\0")[0] and mark in words:
                    sizes = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
                    private = {words[0]: int(words[1]) for words in sizes if words[0].startswith("Private_")}
                    rows[name] = f"{private['Private_Dirty:']} KiB dirty, {sum(private.values())} KiB private"
    figures("memory beside a container", rows)


def ends() -> None:
    """Many containers that end at once by themselves: until no state, cgroup or lease of them is left."""
    rows = {}
    for network in ("none", "bridge"):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as shared:
            os.chmod(shared, 0o755)
            gate = Path(shared, "gate")
            os.mkfifo(gate)
            gate.chmod(0o644)
            start = [
                MINIBOX,
                "run",
                "-d",
                "--rm",
                "--network",
                network,
                "-v",
                f"{shared}:/shared:ro",
                "base",
                "sh",
                "-c",
            ]
            ids = {started([*start, "read line </shared/gate"]) for _ in range(COUNT)}
            gate.write_bytes(b"")  # all readers see it end
            begin = time.perf_counter()
            while left(ids):
                time.sleep(0.005)
            seconds = time.perf_counter() - begin
        rows[f"{COUNT} with --rm, {network}"] = f"{seconds:.2f} s: {COUNT / seconds:.0f} a second"
    figures("ends by themselves", rows)


def left(ids: set[str]) -> bool:
    """Is there a directory, a lease or a cgroup of one of these containers?"""
    root, runroot = os.environ["MINIBOX_ROOT"], os.environ["MINIBOX_RUNROOT"]
    for place in (f"{root}/containers", f"{root}/live", f"{runroot}/attach"):
        with suppress(FileNotFoundError):
            if ids.intersection(os.listdir(place)):
                return True
    try:
        if ids.intersection(os.readlink(each) for each in Path(root, "ids").iterdir()):
            return True
    except FileNotFoundError:  # that one is gone just now
        return True
    groups = {f"minibox-{each}" for each in ids}
    return any(groups.intersection(os.listdir(each)) for each in (CGROUPS, *CGROUPS.iterdir()) if each.is_dir())
