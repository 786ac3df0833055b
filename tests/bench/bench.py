"""minibox beside its peers, in one run: `make bench`.

Every round runs each contender once, so that a busy moment of the machine hits all alike; the tables
show medians, the fastest, and ratios. All happens in a mount and a network namespace of its own.
What a peer can't do here is said, not guessed. The programs of minibox are those of a wheel that pip has installed;
what is measured in process is this checkout.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from tests import isolation  # noqa: E402
from tests.bench import builds, containers, embedding, growth, images, oci, report, starts, suites  # noqa: E402
from tests.bench.ground import (  # noqa: E402  # noqa: E402
    Debian13,
    bundle,
    configure_podman,
    floor,
    make_rootfs,
    new_ext4,
    podman,
    remove,
    remove_podmans_cgroups,
)
from tests.bench.measure import Unusable, part  # noqa: E402

TABLES = ("starts", "streams", "python", "containers", "growth", "images", "oci", "embedding", "suites", "build")


def main() -> int:
    parser = argparse.ArgumentParser(description="compare minibox with its peers")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"which of {', '.join(TABLES)} (all)")
    parser.add_argument("--rounds", type=int, default=20, help="how often each contender runs (20; images: a quarter)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only contenders whose name has TEXT in it")
    parser.add_argument("--json", metavar="FILE", help="write all times to a file, which tests/bench/report.py draws")
    given = parser.parse_args()
    wanted = given.tables or TABLES
    if unknown := set(wanted) - set(TABLES):
        parser.error(f"no table called {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        print("the benchmark needs root", file=sys.stderr)
        return 1
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users compile once, not at each start
    before = report.description(given.rounds) if given.json else {}
    directory = Path(tempfile.mkdtemp(prefix="minibox-bench-"))
    try:
        archive = root_filesystem(directory) if "images" in wanted else None
        isolation.enter(directory)
        with isolation.v2_without_controllers():
            configure_podman(directory)
            state = new_ext4(directory)
            with Debian13.ready(state) as debian13:
                makers = tables(directory, state, archive, debian13, given.rounds, given.only)
                for name in wanted:
                    print_tables(name, makers[name])
            remove_podmans_cgroups()
    finally:
        remove(directory)
    if given.json:
        report.write_json(Path(given.json), before)
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


def tables(
    base: Path, directory: Path, archive: Path | None, debian13: Debian13, rounds: int, only: str
) -> dict[str, Callable[[], None]]:
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
        "starts": with_rootfs(lambda: starts.tables(directory, rootfs, debian13, rounds, only)),
        "streams": with_rootfs(lambda: starts.streams(rootfs, rounds, only)),
        "python": lambda: starts.python(rounds, only),
        "containers": with_rootfs(
            lambda: containers.tables(of_podman, rootfs, bundle(directory, rootfs, "sleep", "1000"), rounds, only)
        ),
        "growth": lambda: None if only else growth.tables(),
        "images": lambda: images.tables(base, archive, part(rounds, 4), only) if archive else None,
        "oci": with_rootfs(lambda: oci.tables(bundle(directory, rootfs), rounds, only)),
        "embedding": with_rootfs(
            lambda: embedding.tables(lambda: floor(directory, rootfs), lambda: bundle(directory, rootfs), rounds, only)
        ),
        "suites": with_rootfs(lambda: suites.tables(directory, of_podman, rootfs, rounds, only)),
        "build": lambda: builds.tables(directory, debian13, rounds, only),
    }


if __name__ == "__main__":
    sys.exit(main())
