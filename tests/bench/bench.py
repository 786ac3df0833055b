"""Starts, streams and imports beside their peers, in one run: `make bench`.

Every round runs each contender once, so that a busy moment of the machine hits all alike; the table
shows medians, the fastest, and ratios. All happens in a mount and a network namespace of its own.
What a peer can't do here is said, not guessed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from tests import isolation  # noqa: E402
from tests.bench import builds, containers, embedding, images, oci, suites  # noqa: E402
from tests.bench.measure import Measure, Unusable, command, part, run, table  # noqa: E402

MINIBOX = str(Path(sys.executable).parent / "minibox")
CGROUPS = Path("/sys/fs/cgroup")
GIBIBYTE = 1 << 30
FILE_SYSTEM_BYTES = 32 * GIBIBYTE  # sparse
TABLES = ("starts", "streams", "python", "containers", "images", "oci", "embedding", "suites", "build")


def main() -> int:
    parser = argparse.ArgumentParser(description="compare minibox with its peers")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"which of {', '.join(TABLES)} (all)")
    parser.add_argument("--rounds", type=int, default=20, help="how often each contender runs (20; images: a quarter)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only contenders whose name has TEXT in it")
    given = parser.parse_args()
    wanted = given.tables or TABLES
    if unknown := set(wanted) - set(TABLES):
        parser.error(f"no table called {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        print("the benchmark needs root", file=sys.stderr)
        return 1
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users compile once, not at each start
    directory = Path(tempfile.mkdtemp(prefix="minibox-bench-"))
    try:
        archive = root_filesystem(directory) if "images" in wanted else None
        isolation.enter(directory)
        with isolation.v2_without_controllers():
            configure_podman(directory)
            makers = tables(directory, new_ext4(directory), archive, given.rounds, given.only)
            for name in wanted:
                print_tables(name, makers[name])
            remove_podmans_cgroups()
    finally:
        remove(directory)
    return 0


def root_filesystem(directory: Path) -> Path | None:
    """That of the images; None: it can't be had."""
    try:
        return images.make_root_filesystem(directory)
    except Unusable as reason:
        print(f"no root file system for the images: {reason}", flush=True)
        return None


def print_tables(name: str, make: Callable[[], None]) -> None:
    """Those of one name; what can't be here is said, and the others follow."""
    try:
        make()
    except Unusable as reason:
        print(f"\n{name}: not usable here: {reason}", flush=True)


def new_ext4(directory: Path) -> Path:
    """A file system for all state, mounted in this namespace: new in each run, and with a journal, as users have it.

    Without one ext4 looks at all that was deleted within five minutes whenever it makes a file (``recently_deleted`` of
    fs/ext4/ialloc.c), and then the tables tell of what ran before them.
    """
    image, point = directory / "ext4", directory / "state"
    point.mkdir()
    with open(image, "wb") as file:
        file.truncate(FILE_SYSTEM_BYTES)
    run(["mkfs.ext4", "-q", str(image)])
    run(["mount", "-o", "loop", str(image), str(point)])
    return point


def tables(base: Path, directory: Path, archive: Path | None, rounds: int, only: str) -> dict[str, Callable[[], None]]:
    """By name what prints them: each makes what it needs, whichever came before it.

    Args:
        base: directory of this run.
        directory: of state, on a file system of its own.
        archive: the root file system of the images.
    """
    os.environ |= {"MINIBOX_ROOT": str(directory / "root"), "MINIBOX_RUNROOT": str(directory / "run")}
    rootfs, of_podman = directory / "rootfs", podman(directory)

    def with_rootfs(make: Callable[[], None]) -> Callable[[], None]:
        def make_both() -> None:
            make_rootfs(rootfs)
            make()

        return make_both

    return {
        "starts": with_rootfs(lambda: starts(directory, rootfs, rounds, only)),
        "streams": with_rootfs(lambda: streams(rootfs, rounds, only)),
        "python": lambda: imports(rounds, only),
        "containers": with_rootfs(lambda: containers.tables(of_podman, rootfs, rounds, only)),
        "images": lambda: images.tables(base, archive, part(rounds, 4), only) if archive else None,
        "oci": with_rootfs(lambda: oci.tables(bundle(directory, rootfs), rounds, only)),
        "embedding": with_rootfs(
            lambda: embedding.tables(lambda: floor(directory, rootfs), lambda: bundle(directory, rootfs), rounds, only)
        ),
        "suites": with_rootfs(lambda: suites.tables(directory, of_podman, rootfs, rounds, only)),
        "build": lambda: builds.tables(directory, rounds, only),
    }


def starts(directory: Path, rootfs: Path, rounds: int, only: str) -> None:
    table(
        "start and end of `true`",
        {
            "the kernel's floor (C)": lambda: floor(directory, rootfs),
            "minibox, in process": in_process,
            "minibox run --network none": lambda: command(
                [MINIBOX, "run", "--rm", "--network", "none", "base", "true"]
            ),
            "minibox run (bridge)": lambda: command([MINIBOX, "run", "--rm", "base", "true"]),
            "bwrap": lambda: command(bwrap(rootfs)),
            "crun run": lambda: command(["crun", "run", "--bundle", bundle(directory, rootfs), "bench-crun"]),
            "runc run": lambda: command(["runc", "run", "--bundle", bundle(directory, rootfs), "bench-runc"]),
            "podman run --network none": lambda: command(podman_run(directory, rootfs)),
        },
        baselines=("the kernel's floor (C)", "runc run"),
        rounds=rounds,
        only=only,
    )


def streams(rootfs: Path, rounds: int, only: str) -> None:
    busybox = [str(rootfs / "bin/busybox")] if (rootfs / "bin/busybox").exists() else []
    zeros = ["dd", "if=/dev/zero", "bs=64k", f"count={GIBIBYTE >> 16}"]
    table(
        "1 GiB through stdout",
        {
            "a plain pipe": lambda: stream([*busybox, *zeros]),
            "minibox run": lambda: stream([MINIBOX, "run", "--rm", "--network", "none", "base", *zeros]),
        },
        baselines=("a plain pipe",),
        rounds=part(rounds, 5),
        only=only,
    )


def imports(rounds: int, only: str) -> None:
    python = sys.executable
    table(
        "python",
        {
            "python -c pass": lambda: command([python, "-c", "pass"]),
            "import minibox": lambda: command([python, "-c", "import minibox"]),
            "minibox --help": lambda: command([MINIBOX, "--help"]),
        },
        baselines=("python -c pass",),
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


def floor(directory: Path, rootfs: Path) -> Measure:
    """tests/bench/floor.c, with as many cgroups as minibox makes."""
    program = str(directory / "floor")
    flags = ["-std=gnu17", "-O2", "-D_GNU_SOURCE"]
    run([os.environ.get("CC", "cc"), *flags, "-o", program, str(CHECKOUT / "tests/bench/floor.c")])
    state = directory / "floor-state"
    state.mkdir(exist_ok=True)
    groups = [word for path in cgroup_directories() for word in ("-g", str(path))]
    argv = [program, *groups, str(rootfs), str(state), "1"]

    def measure() -> float:
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            raise Unusable(done.stderr.strip())
        return float(done.stdout) / 1e6

    return measure


def bwrap(rootfs: Path) -> list[str]:
    return ["bwrap", "--unshare-all", "--die-with-parent", "--bind", str(rootfs), "/", "--proc", "/proc", "--dev", "/dev", "true"]  # fmt: skip


def bundle(directory: Path, rootfs: Path) -> str:
    """An OCI bundle of ``runc spec`` that runs `true`, as crun and runc want it."""
    path = directory / "bundle"
    if not path.exists():
        if shutil.which("runc") is None:
            raise Unusable("runc, which writes the bundle, is not installed")
        path.mkdir()
        run(["runc", "spec", "--bundle", str(path)])
        config = json.loads((path / "config.json").read_text())
        config["process"] |= {"args": ["true"], "terminal": False}
        config["root"] |= {"path": str(rootfs)}
        (path / "config.json").write_text(json.dumps(config))
    return str(path)


def podman(directory: Path) -> list[str]:
    """podman with its own storage."""
    return ["podman", "--root", str(directory / "podman"), "--runroot", str(directory / "podman-run")]


def podman_run(directory: Path, rootfs: Path) -> list[str]:
    return [*podman(directory), "run", "--rm", "--network", "none", "--ulimit", "host", "--rootfs", str(rootfs), "true"]


def configure_podman(directory: Path) -> None:
    """Without the ulimits that it can't set everywhere, and without a journal to write to."""
    configuration = directory / "containers.conf"
    configuration.write_text('[containers]\ndefault_ulimits = []\n[engine]\nevents_logger = "none"\n')
    os.environ["CONTAINERS_CONF"] = str(configuration)


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


# ---- what they run on -----------------------------------------------------------------------------


def make_rootfs(rootfs: Path) -> None:
    """`base` as a plain directory, for who knows no images: streamed out of a container by tar. Once is enough."""
    if rootfs.exists():
        return
    rootfs.mkdir(mode=0o755)
    parts = ["bin", "etc", "usr", "lib", "lib64", "sbin", "root", "tmp"]
    script = f"cd / && tar -cf - $(ls -d {' '.join(parts)} 2>/dev/null)"
    archive = run([MINIBOX, "run", "--rm", "--network", "none", "base", "sh", "-c", script])
    subprocess.run(["tar", "-xf", "-", "-C", str(rootfs)], input=archive, check=True)
    for name in ("proc", "sys", "dev", "tmp"):
        (rootfs / name).mkdir(exist_ok=True)


def cgroup_directories() -> list[Path]:
    """Roots of the hierarchies in which minibox makes a group when no limit is asked for."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [CGROUPS / name for name in ("memory", "pids", "cpu", "devices", "freezer") if (CGROUPS / name).is_dir()]


def remove_podmans_cgroups() -> None:
    """podman leaves its parent cgroup behind, empty, in every hierarchy."""
    for group in [*CGROUPS.glob("libpod_parent"), *CGROUPS.glob("*/libpod_parent")]:
        for path in [*sorted(group.glob("**/"), reverse=True)]:
            with suppress(OSError):
                path.rmdir()


def remove(directory: Path) -> None:
    """The benchmark's directory, with the mounts that podman leaves in it."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([point for point in points if point.startswith(f"{directory}/")]):
        subprocess.run(["umount", "--lazy", point], check=False)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
