"""What contenders run on: a file system for all state, a root file system, a bundle, podman's own storage, Debian 13's engines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.bench.measure import Measure, Unusable, program, run
from tests.debian13 import root as debian13

CHECKOUT = Path(__file__).resolve().parents[2]
CGROUPS = Path("/sys/fs/cgroup")
FILE_SYSTEM_BYTES = 32 << 30  # sparse


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


def make_rootfs(rootfs: Path) -> None:
    """`base` as a plain directory, for who knows no images: streamed out of a container by tar. Once is enough."""
    if rootfs.exists():
        return
    rootfs.mkdir(mode=0o755)
    parts = ["bin", "etc", "usr", "lib", "lib64", "sbin", "root", "tmp"]
    script = f"cd / && tar -cf - $(ls -d {' '.join(parts)} 2>/dev/null)"
    archive = run([program("minibox"), "run", "--rm", "--network", "none", "base", "sh", "-c", script])
    subprocess.run(["tar", "-xf", "-", "-C", str(rootfs)], input=archive, check=True)
    for name in ("proc", "sys", "dev", "tmp"):
        (rootfs / name).mkdir(exist_ok=True)


def bundle(directory: Path, rootfs: Path, *command: str) -> str:
    """An OCI bundle of ``runc spec`` that runs a command, `true` for none, as crun and runc want it."""
    argv = list(command or ("true",))
    path = directory / f"bundle-{argv[0]}"
    if not path.exists():
        if shutil.which("runc") is None:
            raise Unusable("runc, which writes the bundle, is not installed")
        path.mkdir()
        run(["runc", "spec", "--bundle", str(path)])
        config = json.loads((path / "config.json").read_text())
        config["process"] |= {"args": argv, "terminal": False}
        config["root"] |= {"path": str(rootfs)}
        (path / "config.json").write_text(json.dumps(config))
    return str(path)


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


def cgroup_directories() -> list[Path]:
    """Roots of the hierarchies in which minibox makes a group when no limit is asked for."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [CGROUPS / name for name in ("memory", "pids", "cpu", "devices", "freezer") if (CGROUPS / name).is_dir()]


def podman(directory: Path) -> list[str]:
    """podman with its own storage."""
    return ["podman", "--root", str(directory / "podman"), "--runroot", str(directory / "podman-run")]


def configure_podman(directory: Path) -> None:
    """Without the ulimits that it can't set everywhere, and without a journal to write to."""
    configuration = directory / "containers.conf"
    configuration.write_text('[containers]\ndefault_ulimits = []\n[engine]\nevents_logger = "none"\n')
    os.environ["CONTAINERS_CONF"] = str(configuration)


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


def status_of(argv: list[str]) -> int:
    """Run a command whose children may go on with its streams."""
    null = subprocess.DEVNULL
    return subprocess.run(argv, stdin=null, stdout=null, stderr=null).returncode


class Debian13:
    """The words that start a program of Debian 13; its mount namespace is made when one is first wanted."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory, self._stack = directory, stack
        self._words: tuple[str, ...] = ()

    @classmethod
    @contextmanager
    def ready(cls, directory: Path) -> Iterator[Debian13]:
        """
        Args:
            directory: which its programs see, too.
        """
        with ExitStack() as stack:
            yield cls(directory, stack)

    def words(self) -> tuple[str, ...]:
        """Raises Unusable: there is none."""
        if not self._words:
            if not debian13.directory().exists():
                raise Unusable("there is no Debian 13 here: make peers13 makes one")
            self._words = self._stack.enter_context(debian13.entered(self._directory))
        return self._words
