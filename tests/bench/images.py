"""Images beside podman: pull, load, push, commit, with the same registry, image and disk.

The image is a Debian root file system with Python in it, in two layers, gzip. Each go begins with
an empty store, as on a machine that has never seen the image.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.measure import Measure, Unusable, program, run, table

MINIBOX = program("minibox")
PACKAGES = "python3,git,perl"
SECOND_LAYER = ("./usr/lib/python3", "./usr/lib/git-core", "./usr/share")
CHANGE = "mkdir /changed && cp -a /usr/lib /usr/share /changed/"  # about 10,000 files
PROTECTED = ("python", "git")


def make_root_filesystem(directory: Path) -> Path:
    """A Debian root file system as a tar archive; before the network is left. ``MINIBOX_BENCH_ARCHIVE`` is one that is there."""
    if given := os.environ.get("MINIBOX_BENCH_ARCHIVE"):
        return Path(given)
    archive = directory / "debian.tar"
    if shutil.which("mmdebstrap") is None:
        raise Unusable("mmdebstrap is not installed")
    run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(archive)])
    return archive


class Bench:
    """One registry, one image, two stores."""

    def __init__(self, directory: Path, archive: Path) -> None:
        self.directory = directory / "images"
        self.directory.mkdir()
        self.port = 0
        self._make_image(archive)

    def _make_image(self, archive: Path) -> None:
        """An OCI layout, made by umoci: nobody's home-made archive has an advantage."""
        layout = self.directory / "layout"
        run(["umoci", "init", "--layout", str(layout)])
        run(["umoci", "new", "--image", f"{layout}:bench"])
        self.files = 0
        for number in (1, 2):
            part = self.directory / f"{number}.tar"
            with tarfile.open(archive) as whole, tarfile.open(part, "w") as layer:
                for member in whole:
                    if member.name.startswith(SECOND_LAYER) == (number == 2):
                        layer.addfile(member, whole.extractfile(member) if member.isreg() else None)
                        self.files += 1
            run(["umoci", "raw", "add-layer", "--image", f"{layout}:bench", str(part)])
            part.unlink()
        self.archive = self.directory / "bench.tar"
        run(["skopeo", "copy", f"oci:{layout}:bench", f"oci-archive:{self.archive}:localhost/bench:latest"])
        self.layout = layout

    @property
    def reference(self) -> str:
        return f"127.0.0.1:{self.port}/bench:latest"

    def minibox(self, *words: str) -> list[str]:
        return [
            MINIBOX,
            "--root",
            str(self.directory / "minibox"),
            "--runroot",
            str(self.directory / "minibox-run"),
            *words,
        ]

    def podman(self, *words: str) -> list[str]:
        storage = [
            "--root",
            str(self.directory / "podman"),
            "--runroot",
            str(self.directory / "pods"),
        ]  # 50 characters at most
        return ["podman", *storage, "--storage-driver", "overlay", *words]

    def clear(self) -> None:
        """Both stores empty, and what was written before on disk: nobody pays for the other's pages.

        The old ones are set aside, emptied but not removed: for minutes after that, ext4 would look at each of their
        thousands of inodes again whenever a file is made nearby (`recently_deleted` in its ialloc.c).
        """
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in reversed([point for point in points if point.startswith(f"{self.directory}/podman")]):
            subprocess.run(["umount", "--lazy", point], check=False)
        aside = Path(tempfile.mkdtemp(dir=self.directory, prefix="old-"))
        for name in ("minibox", "minibox-run", "podman", "pods"):
            with suppress(FileNotFoundError):
                (self.directory / name).rename(aside / name)
        for directory, _, names in os.walk(aside):
            for name in names:
                if stat.S_ISREG(os.lstat(path := f"{directory}/{name}").st_mode):
                    os.truncate(path, 0)
        os.sync()

    def timed(self, argv: list[str], before: Callable[[], object]) -> Measure:
        """``argv`` from fork to end, its data on disk, after ``before``."""

        def measure() -> float:
            self.clear()
            before()
            os.sync()
            begin = time.perf_counter()
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True)
            elapsed = time.perf_counter() - begin
            if done.returncode:
                raise Unusable(done.stderr.decode(errors="replace").strip().splitlines()[-1])
            return elapsed

        return measure

    @contextmanager
    def registry(self) -> Iterator[None]:
        """Debian's docker-registry on a free port of the loopback, with the image in it."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        storage = self.directory / "registry"
        config = self.directory / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {storage}}}}}\n"
            f"http: {{addr: '127.0.0.1:{self.port}'}}\n"
        )
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait_for(self.port)
            run(["skopeo", "copy", "--dest-tls-verify=false", f"oci:{self.layout}:bench", f"docker://{self.reference}"])
            yield
        finally:
            process.terminate()
            process.wait()

    def empty_repository(self) -> str:
        """The reference of a repository that has never been pushed to, in a registry that has no blob of it."""
        shutil.rmtree(self.directory / "registry/docker/registry/v2", ignore_errors=True)
        return f"127.0.0.1:{self.port}/pushed:latest"


def tables(directory: Path, archive: Path, rounds: int, only: str) -> None:
    """Print them."""
    bench = Bench(directory, archive)
    load_m, load_p = (
        bench.minibox("load", "-q", "-i", str(bench.archive)),
        bench.podman("load", "-q", "-i", str(bench.archive)),
    )
    tls = "--tls-verify=false"

    def compare(title: str, minibox: Measure, podman: Measure) -> None:
        makers = {f"minibox {title}": lambda: minibox, f"podman {title}": lambda: podman}
        table(f"{title}: {bench.files:,} files", makers, baselines=(f"podman {title}",), rounds=rounds, only=only)

    with bench.registry():
        pull = ["pull", "-q", bench.reference]
        compare(
            "pull", bench.timed(bench.minibox(*pull), bool), bench.timed(bench.podman(*pull[:2], tls, *pull[2:]), bool)
        )
        compare("load", bench.timed(load_m, bool), bench.timed(load_p, bool))

        def loaded(load: list[str], tag: Callable[..., list[str]]) -> Callable[[], None]:
            def prepare() -> None:
                target = bench.empty_repository()
                run(load)
                run(tag("tag", "localhost/bench:latest", target))

            return prepare

        target = bench.empty_repository()
        push_m = bench.timed(bench.minibox("push", "-q", target), loaded(load_m, bench.minibox))
        push_p = bench.timed(bench.podman("push", "-q", tls, target), loaded(load_p, bench.podman))
        compare("push", push_m, push_p)

    change = ["--name", "changed", "--network", "none", "localhost/bench:latest", "sh", "-c", CHANGE]

    def changed(load: list[str], start: list[str]) -> Callable[[], None]:
        def prepare() -> None:
            run(load)
            run(start)

        return prepare

    commit_m = bench.timed(
        bench.minibox("commit", "changed", "committed"), changed(load_m, bench.minibox("run", *change))
    )
    commit_p = bench.timed(
        bench.podman("commit", "-q", "changed", "committed"),
        changed(load_p, bench.podman("run", "--ulimit", "host", *change)),
    )
    compare("commit", commit_m, commit_p)
    bench.clear()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise Unusable("docker-registry doesn't answer") from None
            time.sleep(0.02)
