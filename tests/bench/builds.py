"""`minibox build` beside buildah (``--layers``) and Docker's BuildKit: the same Dockerfiles on the same base.

The peers are those of Debian 12 and 13, as a user has them: runc starts Docker's steps, and buildah's are started by what it
finds. Those of 13 are in a root file system of their own, which `make peers13` or this bench makes once.
On a machine with more than two processors, all are kept to two.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.ground import Debian13
from tests.bench.measure import Measure, Unusable, count, figures, part, program, run, table
from tests.engines import Docker, busybox_archive, unmount_below

MINIBOX = program("minibox")
BASE = "bb"
RUNS = count("LINES", 20)
CACHED_FILES, FILES = count("CACHED_FILES", 5_000), count("BUILD_FILES", 10_000)
BIG_MIB = count("BIG_MIB", 2048)
STAGES, CPU_S = 4, count("CPU_MS", 2_000) / 1000
#: Debian 12's, and Debian 13's.
BUILDAH, DOCKER = "buildah 1.28 --layers", "docker 20.10 build"
BUILDAH_13, DOCKER_13 = "buildah 1.39 --layers", "docker 26.1 build"

CACHED = "\n".join(
    [
        f"FROM {BASE}", "ARG V=1", "ENV A=$V", "WORKDIR /src", "COPY . .", "LABEL one=1",
        *(f"RUN echo {number} > /{number}" for number in range(12)), "USER 7:8", 'CMD ["sh"]',
    ]
)  # fmt: skip
NOTHING_CACHED = "\n".join([f"FROM {BASE}", *["RUN true"] * RUNS])
COPY = f"FROM {BASE}\nCOPY . /copied/"

#: Starts a command and writes how much memory the largest of its processes had, in KiB: this one, which is small, makes
#: it, because a new process begins with the peak of the one that it is a copy of.
PEAK = """
import os, sys
pid = os.fork()
if not pid:
    os.execvp(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status) and 1)
"""


@dataclass(frozen=True)
class Builder:
    """What builds, and what removes all that it has besides the base; each without the words of a table."""

    build: list[str]
    clear: list[list[str]]
    environment: dict[str, str] | None = None


class Peer:
    """Another builder, made ready when a table first wants it: its store has the base then."""

    def __init__(self, make: Callable[[], Builder]) -> None:
        self._make = make
        self._builder: Builder | None = None
        self._unusable = ""

    def ready(self) -> Builder:
        """Raises Unusable, in each table, if it isn't there or doesn't start."""
        if self._builder is None and not self._unusable:
            try:
                self._builder = self._make()
            except (Unusable, AssertionError, OSError) as reason:
                self._unusable = str(reason)
        if self._builder is None:
            raise Unusable(self._unusable)
        return self._builder


OURS = Builder(
    [MINIBOX, "build", "--quiet"],
    [
        [MINIBOX, "rmi", "--force", "made"],
        [MINIBOX, "image", "prune", "--force"],
        [MINIBOX, "builder", "prune", "--force"],
    ],
)


class Builders:
    """minibox and its peers, with stores of their own that have the base."""

    def __init__(self, directory: Path, archive: Path, debian13: Debian13) -> None:
        self.directory, self._archive, self._debian13 = directory, archive, debian13.words
        self._stack = ExitStack()
        self._peers = {
            BUILDAH: Peer(lambda: self._buildah("buildah", ())),
            BUILDAH_13: Peer(lambda: self._buildah("buildah13", self._debian13())),
            DOCKER: Peer(lambda: self._docker("docker", ())),
            DOCKER_13: Peer(lambda: self._docker("docker13", self._debian13(), oci="/usr/bin/runc")),
        }

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Until the end of the block minibox has the base, and a dockerd runs if a table wants it."""
        with self._stack:
            self._stack.callback(unmount_below, self.directory)
            run([MINIBOX, "import", str(self._archive), BASE])
            yield

    def _buildah(self, name: str, enter: tuple[str, ...]) -> Builder:
        if not enter and shutil.which("buildah") is None:
            raise Unusable("buildah is not installed")
        own = self.directory / name
        command = [
            *enter, "buildah", "--root", f"{own}/root", "--runroot", f"{own}/run", "--storage-driver", "overlay"
        ]  # fmt: skip
        made = run([*command, "from", "scratch"]).decode().strip()
        run([*command, "add", "--quiet", made, str(self._archive), "/"])
        run([*command, "commit", "--quiet", "--rm", made, BASE])
        # The images of lines go with the image that they are below.
        clear = [[*command, "rmi", "--force", "made"], [*command, "rmi", "--prune", "--force"]]
        return Builder([*command, "build", "--layers", "--jobs", "0", "--quiet"], clear)

    def _docker(self, name: str, enter: tuple[str, ...], oci: str | None = None) -> Builder:
        if not enter and shutil.which("dockerd") is None:
            raise Unusable("dockerd is not installed")
        docker = Docker(self.directory / name, enter=enter, oci=oci or shutil.which("runc"), DOCKER_BUILDKIT="1")
        self._stack.callback(docker.end)
        docker.daemon.start()
        docker.load(self._archive)
        command = docker.command
        clear = [[*command, "rmi", "--force", "made"], [*command, "builder", "prune", "--all", "--force"]]
        return Builder([*command, "build", "--quiet"], clear, docker.environment)

    def compare(
        self,
        title: str,
        goals: dict[str, float],
        context: Path,
        words: tuple[str, ...],
        rounds: int,
        only: str,
        *,
        prepare: Callable[[], None] = lambda: None,
        clear: bool = False,
        others: dict[str, Callable[[], Measure]] | None = None,
    ) -> None:
        """Print one table.

        Args:
            goals: by baseline, how much of its time minibox may take; 0: that is only shown.
            words: options that are the same for all.
            prepare: done before each go, outside of its time.
            clear: remove the images and caches of the one before, besides the base.
            others: contenders besides minibox and its peers.
        """
        base = [*words, "--tag", "made", str(context)]

        def measured(builder: Builder) -> Measure:
            def measure() -> float:
                if clear:
                    for each in builder.clear:
                        subprocess.run(each, env=builder.environment, stdin=subprocess.DEVNULL, capture_output=True)
                prepare()
                os.sync()
                return timed([*builder.build, *base], builder.environment)

            return measure

        def of_peer(peer: Peer) -> Callable[[], Measure]:
            return lambda: measured(peer.ready())

        peers = {name: of_peer(peer) for name, peer in self._peers.items()}
        makers = {**(others or {}), "minibox build": lambda: measured(OURS), **peers}
        table(title, makers, baselines=tuple(goals), rounds=rounds, only=only)
        told = ", ".join(f"{goal:g} x {name}" for name, goal in goals.items() if goal)
        if told:
            print(f"  wanted of minibox: at most {told}", flush=True)


def tables(directory: Path, debian13: Debian13, rounds: int, only: str) -> None:
    """Print them."""
    directory = directory / "builds"
    directory.mkdir()
    keep_to_two_processors()
    builders = Builders(directory, busybox_archive(directory / "bb.tar"), debian13)
    with builders.ready():
        everything_cached(builders, rounds, only)
        nothing_cached(builders, part(rounds, 4), only)
        many_files(builders, part(rounds, 4), only)
        one_big_file(builders, part(rounds, 6, 2), only)
        stages_at_once(builders, part(rounds, 4), only)


def goals(buildah: float, docker: float) -> dict[str, float]:
    """How much of a peer's time minibox may take, by peer: the same of Debian 12's and of Debian 13's."""
    return {BUILDAH: buildah, BUILDAH_13: buildah, DOCKER: docker, DOCKER_13: docker}


def everything_cached(builders: Builders, rounds: int, only: str) -> None:
    context = new_context(builders, "cached", CACHED)
    small_files(context, CACHED_FILES)
    title = f"build, cached: {CACHED_FILES:,} files"
    builders.compare(title, goals(0.15, 0.5), context, (), rounds, only)


def nothing_cached(builders: Builders, rounds: int, only: str) -> None:
    context = new_context(builders, "runs", NOTHING_CACHED)
    builders.compare(
        f"build: {RUNS} `RUN true`", goals(0.1, 0.1), context, ("--no-cache",), rounds, only
    )  # fmt: skip


def many_files(builders: Builders, rounds: int, only: str) -> None:
    """Each go has new files, as after a checkout, and each store is without those of the one before."""
    context = new_context(builders, "files", COPY)
    title = f"build: COPY of {FILES:,} files"
    builders.compare(
        title, goals(0.5, 0.5), context, (), rounds, only,
        prepare=lambda: small_files(context, FILES), clear=True,
    )  # fmt: skip
    shutil.rmtree(context)


def one_big_file(builders: Builders, rounds: int, only: str) -> None:
    """Each go writes the file anew; a plain copy shows what the disk can do. Then minibox again, for its memory.

    minibox writes the file twice, into the layer and into its blob, and syncs both as `cp and sync` does; the peers don't sync.
    """
    context = new_context(builders, "big", COPY)
    big, copied = context / "big", builders.directory / "big-copied"
    title, plain = f"build: COPY of {BIG_MIB} MiB", "cp and sync"

    def plain_copy() -> Measure:
        def measure() -> float:
            copied.unlink(missing_ok=True)
            big_file(big)
            os.sync()
            return timed(["sh", "-c", f"cp --reflink=never {big} {copied} && sync --file-system {copied}"])

        return measure

    builders.compare(
        title, {plain: 0, **goals(0, 0)}, context, (), rounds, only,
        prepare=lambda: big_file(big), clear=True, others={plain: plain_copy},
    )  # fmt: skip
    peak = builders.directory / "peak"
    words = [MINIBOX, "build", "--quiet", "--no-cache", "--tag", "made", str(context)]
    run([sys.executable, "-S", "-E", "-c", PEAK, str(peak), *words])
    figures("memory of that build", {"its largest process": f"{int(peak.read_text()) / 1024:.0f} MiB"})
    shutil.rmtree(context)
    copied.unlink(missing_ok=True)


def stages_at_once(builders: Builders, rounds: int, only: str) -> None:
    """Each stage counts as far as a shell comes in that CPU time; beside it, the same shells with no container."""
    script = counting(CPU_S)
    stages = [f"FROM {BASE} AS s{number}\nRUN {script} echo {number} > /out{number}" for number in range(STAGES)]
    copies = [f"COPY --from=s{number} /out{number} /" for number in range(STAGES)]
    context = new_context(builders, "stages", "\n".join([*stages, f"FROM {BASE}", *copies]))
    plain = "the same, two at a time"

    def two_at_a_time() -> Measure:
        half = f"(for each in $(seq {STAGES // 2}); do {script} done)"
        return lambda: timed(["busybox", "sh", "-c", f"{half} & {half}; wait"])

    builders.compare(
        f"build: {STAGES} stages of {CPU_S:g} s CPU", {plain: 1.15}, context, ("--no-cache",), rounds, only,
        others={plain: two_at_a_time},
    )  # fmt: skip


# ---- what they are made of --------------------------------------------------------------------------


def keep_to_two_processors() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def new_context(builders: Builders, name: str, dockerfile: str) -> Path:
    context = builders.directory / name
    context.mkdir()
    (context / "Dockerfile").write_text(dockerfile + "\n")
    return context


def small_files(context: Path, files: int) -> None:
    """Write files of about 1 KiB anew, a hundred in each directory."""
    shutil.rmtree(context / "files", ignore_errors=True)
    for number in range(files):
        if number % 100 == 0:
            part = context / "files" / str(number // 100)
            part.mkdir(parents=True)
        (part / str(number)).write_bytes(random.randbytes(512 + number % 1024))


def big_file(path: Path) -> None:
    """Write it anew, all blocks of it different."""
    block = random.randbytes(1 << 20)
    with path.open("wb") as file:
        for number in range(BIG_MIB):
            file.write(number.to_bytes(8, "little") + block[8:])


def counting(cpu_s: float) -> str:
    """Shell code that takes about as much CPU time here."""
    steps, spent = 1000, 0.0
    while spent < min(cpu_s, 0.2):
        steps *= 2
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        run(["busybox", "sh", "-c", count_to(steps)])
        spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    return count_to(int(steps * cpu_s / spent))


def count_to(steps: int) -> str:
    return f"i=0; while [ $i -lt {steps} ]; do i=$((i+1)); done;"


def timed(argv: list[str], environment: dict[str, str] | None = None) -> float:
    begin = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    elapsed = time.perf_counter() - begin
    if done.returncode:
        raise Unusable(done.stderr.decode(errors="replace").strip()[-500:] or f"status {done.returncode}")
    return elapsed
