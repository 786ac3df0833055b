"""A container's /proc that moves while it starts, without a user namespace: what is masked is so in each that starts.

An image has a symlink on the way to /proc, or a neighbour exchanges directories in a volume that both have (or in
the root file system itself) in a loop: CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.container_box import Box
from tests.images import derive, directory, link
from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = requires("root")
Rounds = Callable[[int], range]
Attacker = Callable[[str], Path]

READ_ONLY = ["bus", "fs", "irq", "sys", "sysrq-trigger"]
MASKED = ["acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "sched_debug", "scsi"]
NO_LINK = "a symbolic link is on the way"
#: Wherever procfs may be, and how often the neighbour may have moved it.
LOOK = ("/hostile/look", "100", "/proc", "/q", "/real", "/a/p", "/a/q", "/a/proc", "/a/link", "/a/real")


class Neighbour:
    """Programs: one that exchanges two names in a directory, and one that looks what comes of it.

    Attributes:
        programs: the directory with `look`.
    """

    def __init__(self, attacker: Attacker) -> None:
        self._swap, self.programs = attacker("swap"), attacker("look").parent

    @contextmanager
    def exchanging(self, directory: Path, one: str, other: str) -> Iterator[None]:
        argv = [str(self._swap), str(directory), one, other]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout and process.stdout.readline() == b"ready\n"
                yield
            finally:
                process.kill()


@pytest.fixture
def neighbour(attacker: Attacker) -> Neighbour:
    return Neighbour(attacker)


def spec_of(runtime: Runtime, neighbour: Neighbour, *mounts: Any, proc: str = "/proc") -> Any:
    """As Docker's for root: no user namespace, and all that is masked; ``mounts`` come before that of proc."""
    spec = runtime.bundle.spec(*LOOK)
    spec["mounts"] = [
        bind(neighbour.programs, "/hostile"),
        *mounts,
        {"destination": proc, "type": "proc", "source": "proc"},
        *spec["mounts"][1:],
    ]
    spec["linux"]["maskedPaths"] = [f"{proc}/{name}" for name in MASKED]
    spec["linux"]["readonlyPaths"] = [f"{proc}/{name}" for name in READ_ONLY]
    if proc == "/proc":
        spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    return spec


def bind(source: Path, destination: str) -> Any:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind"]}


def volume(runtime: Runtime, *names: str) -> Path:
    path = runtime.directory / "volume"
    for name in names:
        (path / name).mkdir(parents=True)
    return path


def start(runtime: Runtime, spec: Any) -> str:
    """What it could do, or why it was refused."""
    runtime.write(spec)
    done = runtime.run("run", "--bundle", str(runtime.bundle.path), "c1")
    assert (done.returncode == 0) == done.stdout.endswith("looked\n"), done
    assert "able /" not in done.stdout, done.stdout
    return done.stderr.strip() or "started"


def test_a_link_of_the_image_to_a_volume_whose_directories_change_places(
    runtime: Runtime, neighbour: Neighbour, rounds: Rounds
) -> None:
    shared = volume(runtime, "p", "q")
    (runtime.bundle.rootfs / "proc").symlink_to("a/p")
    with neighbour.exchanging(shared, "p", "q"):
        for _ in rounds(6):
            said = start(runtime, spec_of(runtime, neighbour, bind(shared, "/a")))
            assert "mount proc on /proc" in said and NO_LINK in said


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["/vol/real", "vol/real", "/vol/none", "../.."])
def test_a_link_of_the_image_is_refused(runtime: Runtime, neighbour: Neighbour, name: str, target: str) -> None:
    shared = volume(runtime, "real")
    (runtime.bundle.rootfs / name).symlink_to(target)
    spec = spec_of(runtime, neighbour, bind(shared, "/vol"))
    spec["mounts"].append({"destination": "/sys", "type": "sysfs", "source": "sysfs"})
    said = start(runtime, spec)
    assert f"on /{name}" in said and NO_LINK in said
    assert not (shared / "none").exists() and not list((shared / "real").iterdir())


def test_a_proc_in_the_volume_itself(runtime: Runtime, neighbour: Neighbour, rounds: Rounds) -> None:
    """Nobody should mount it there; who does has what is masked by the very mount."""
    shared = volume(runtime, "proc", "q")
    with neighbour.exchanging(shared, "proc", "q"):
        said = {start(runtime, spec_of(runtime, neighbour, bind(shared, "/a"), proc="/a/proc")) for _ in rounds(8)}
    assert "started" in said


def test_a_volume_in_which_a_directory_and_a_link_change_places(
    runtime: Runtime, neighbour: Neighbour, rounds: Rounds
) -> None:
    shared = volume(runtime, "proc", "real")
    (shared / "link").symlink_to("real")
    # While nobody exchanges anything it starts: else all could be refused, and nothing be tried.
    assert start(runtime, spec_of(runtime, neighbour, bind(shared, "/a"), proc="/a/proc")) == "started"
    with neighbour.exchanging(shared, "proc", "link"):
        said = {start(runtime, spec_of(runtime, neighbour, bind(shared, "/a"), proc="/a/proc")) for _ in rounds(8)}
    assert all(each == "started" or NO_LINK in each for each in said)


def test_a_mount_in_a_volume_that_a_link_leads_into_proc(
    runtime: Runtime, neighbour: Neighbour, rounds: Rounds
) -> None:
    """It goes where the link is not, or the start is refused: through it, it would cover what /proc has."""
    shared, covering = volume(runtime, "p"), runtime.directory / "covering"
    covering.mkdir()
    for number, name in enumerate(["link", *map(str, range(30))]):  # a long way, on which much can happen
        os.symlink("/" + "./" * 2000 + (f"a/{number}" if number < 30 else "proc/sys"), shared / name)
    spec = spec_of(runtime, neighbour)
    spec["mounts"] += [bind(shared, "/a"), bind(covering, "/a/p")]
    spec["process"]["args"] = ["/bin/sh", "-c", "[ -e /proc/sys/kernel ] || echo able /; echo looked"]
    assert start(runtime, spec) == "started"
    with neighbour.exchanging(shared, "p", "link"):
        for _ in rounds(10):
            said = start(runtime, spec)
            assert said == "started" or "/a/p" in said


@pytest.mark.parametrize("is_link", [False, True], ids=["directory", "link"])
def test_a_root_file_system_that_two_containers_have(
    runtime: Runtime, neighbour: Neighbour, rounds: Rounds, is_link: bool
) -> None:
    (runtime.bundle.rootfs / "proc").mkdir()
    (runtime.bundle.rootfs / "real").mkdir()
    if is_link:
        (runtime.bundle.rootfs / "q").symlink_to("real")
    else:
        (runtime.bundle.rootfs / "q").mkdir()
    assert start(runtime, spec_of(runtime, neighbour)) == "started"
    with neighbour.exchanging(runtime.bundle.rootfs, "proc", "q"):
        for _ in rounds(8):
            said = start(runtime, spec_of(runtime, neighbour))
            assert said == "started" or NO_LINK in said


@pytest.mark.parametrize("target", ["a/p", "/a/p"])
def test_minibox_run_with_the_hosts_ids(
    box: Box, state: Path, neighbour: Neighbour, rounds: Rounds, target: str
) -> None:
    shared = state / "volume"
    for name in ("p", "q"):
        (shared / name).mkdir(parents=True)
    image = derive(state / "root", "moving", directory("a"), link("proc", target))
    with neighbour.exchanging(shared, "p", "q"):
        for _ in rounds(3):
            mounts = ("-v", f"{neighbour.programs}:/hostile:ro", "-v", f"{shared}:/a")
            done = box("run", "--rm", "--network", "none", "--userns", "host", *mounts, image, *LOOK)
            assert (done.returncode, done.stdout) == (125, "") and NO_LINK in done.stderr, done
