"""A machine whose power can be cut.

Its state is on ext4 on a loop file, which nothing gets to by itself. A copy of that file is the disk as it is when the power is
cut just then; it is mounted, and looked at by a new runroot, as after a boot.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from minibox.base.home import Home
from minibox.engine.resources import container_network
from minibox.engine.upkeep import boot
from tests.conftest import Run
from tests.storage_places import new_file_system


class Machine:
    """A machine whose power can be cut: ``machine("run", ...)`` -> what it prints."""

    def __init__(self, run: Run, disk: Path, runroot: Path) -> None:
        self._run, self.disk = run, disk
        self.variables = {"MINIBOX_ROOT": str(disk / "root"), "MINIBOX_RUNROOT": str(runroot)}

    def __call__(self, *words: str, status: int = 0, **more: Any) -> str:
        done = self._run(*words, env=self.variables, **more)
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return str(done.stdout).strip()

    def states(self) -> dict[str, str]:
        """What `ps -a` shows, by name."""
        rows = self("ps", "-a", "--format", "{{.Names}}\t{{.Status}}").splitlines()
        return {name: " ".join(status.split()[:2]) for name, status in (row.split("\t") for row in rows)}

    def wanted(self) -> set[str]:
        """What `system boot` would start."""
        return set(boot.wanted(Home(self.variables["MINIBOX_ROOT"], self.variables["MINIBOX_RUNROOT"])))

    def joined(self) -> set[str]:
        """The networks that containers have been connected to."""
        directories = (self.disk / "root/containers").iterdir()
        return {name for each in directories for name, _ in container_network.read_joined(str(each)) or ()}


@contextmanager
def powered(run: Run, seed: Path, directory: Path) -> Iterator[Machine]:
    """A machine; its disk is a file in this directory."""
    with new_file_system("ext4", directory) as disk, tempfile.TemporaryDirectory(dir="/dev/shm") as runroot:
        subprocess.run(["cp", "-a", str(seed), str(disk / "root")], check=True)
        subprocess.run(["sync", "--file-system", str(disk)], check=True)
        one = Machine(run, disk, Path(runroot))
        try:
            yield one
        finally:
            if names := one("ps", "-aq").split():
                one("rm", "-f", *names)
            one("network", "prune", "-f")


@pytest.fixture
def machine(minibox: Run, seed: Path, session_directory: Path) -> Iterator[Machine]:
    """A machine whose power is cut while it is idle."""
    with powered(minibox, seed, session_directory) as one:
        yield one


@pytest.fixture
def busy_machine(minibox: Run, seed: Path, session_directory: Path) -> Iterator[Machine]:
    """A machine whose power can be cut at any moment: its disk is on xfs, which copies a file as it is at one moment."""
    with new_file_system("xfs", session_directory) as place, powered(minibox, seed, place) as one:
        yield one


@pytest.fixture
def after_a_cut(minibox: Run, machine: Machine) -> Iterator[Callable[[], Machine]]:
    """Cut the power: the machine as it is after the next boot."""
    with ExitStack() as stack:

        def cut() -> Machine:
            return stack.enter_context(booted(minibox, copied(machine)))

        yield cut


def copied(machine: Machine, reflink: str = "auto") -> Path:
    """The disk as it is; at one moment with a reflink "always"."""
    file = Path(f"{machine.disk}.image")
    copy = Path(tempfile.mkdtemp(dir=file.parent)) / "image"
    subprocess.run(
        [
            "cp",
            f"--reflink={reflink}",
            "--sparse=auto" if reflink == "always" else "--sparse=always",
            str(file),
            str(copy),
        ],
        check=True,
    )
    return copy


@contextmanager
def booted(run: Run, copy: Path) -> Iterator[Machine]:
    """The machine with that disk, after a boot. No container of it may run in the end."""
    point = copy.with_name("disk")
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", str(copy), str(point)], check=True)
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as runroot:
            yield Machine(run, point, Path(runroot))
    finally:
        subprocess.run(["umount", str(point)], check=True)
        copy.unlink()
