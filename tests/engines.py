"""dockerd, containerd and podman with the runtime that is under test, on sockets, data roots and cgroups of their own.

`MINIBOX_TEST_RUNTIME=runc` runs the tests of engines with another runtime: so the tests themselves are tested.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.images import directory, file, link
from tests.leaks import CGROUP_ROOT, SLOWNESS

Completed = subprocess.CompletedProcess[str]
IMAGE = "bb"
#: What a container may have: CAP_SYS_RESOURCE, which raises limits, is missing in some places that tests run in.
LIMITS = "nofile=1024:1024"
#: Debian's programs, whatever else is installed.
PATH = "/usr/bin:/usr/sbin:/bin:/sbin"


def runtime() -> str:
    """The runtime under test: its path."""
    name = os.environ.get("MINIBOX_TEST_RUNTIME") or str(Path(sys.executable).parent / "minibox-oci")
    found = shutil.which(name)
    assert found, f"no such runtime: {name}"
    return found


def busybox_archive(path: Path) -> Path:
    """A root file system of a static busybox with links for all that it can do, as a tar archive."""
    busybox = shutil.which("busybox")
    assert busybox
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    members: list[Any] = [directory(each) for each in ("bin", "dev", "etc", "proc", "root", "sys", "var")]
    members.append(directory("tmp", mode=0o1777))
    members.append(file("bin/busybox", Path(busybox).read_bytes(), mode=0o755))
    members += [link(f"bin/{name}", "busybox") for name in names if name != "busybox"]
    members.append(file("bin/pause", b"#!/bin/sh\nexec sleep 100000\n", mode=0o755))  # as for the first of a pod
    members.append(file("etc/passwd", b"root:x:0:0::/root:/bin/sh\nguest:x:7:8::/:/bin/sh\n"))
    members.append(file("etc/group", b"root:x:0:\nguests:x:8:guest\n"))
    with tarfile.open(path, "w") as archive:
        for member in members:
            header, content = member if isinstance(member, tuple) else (member, b"")
            archive.addfile(header, io.BytesIO(content))
    return path


def wait_until(happened: Callable[[], Any], what: str, timeout_s: float = 30) -> Any:
    """The first answer that isn't false."""
    deadline = time.monotonic() + timeout_s * SLOWNESS
    while not (answer := happened()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.05)
    return answer


def engine_environment(**more: str) -> dict[str, str]:
    """What an engine and its client see."""
    return {"PATH": PATH, "HOME": "/nonexistent", "LANG": "C.UTF-8", **more}


class Daemon:
    """A program that goes on until it is told to end; what it writes is kept, for whoever reads of a failure."""

    def __init__(self, argv: list[str], log: Path, ready: Callable[[], Any], **options: Any) -> None:
        self.argv, self.log, self._ready, self._options = argv, log, ready, options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._options
            )
        try:
            wait_until(self._is_ready, f"{self.argv[0]} is ready; its log ends with:\n{self._tail()}", 60)
        except BaseException:
            self.stop()
            raise

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(30 * SLOWNESS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _is_ready(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"{self.argv[0]} has ended:\n{self._tail()}"
        return bool(self._ready())

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


class Client:
    """A command that asks an engine: ``client("run", "--rm", IMAGE, "true")`` -> CompletedProcess, which must succeed."""

    def __init__(self, command: list[str], environment: dict[str, str], **identity: Any) -> None:
        self.command, self.environment, self._identity = command, environment, identity

    def __call__(self, *words: object, status: int | None = 0, timeout_s: float = 60, **options: Any) -> Completed:
        """Keywords: ``status`` that it is to have (None: any), ``timeout_s``, and those of `subprocess.run`."""
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("env", self.environment)
        argv = [*self.command, *map(str, words)]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout_s * SLOWNESS, check=False, **self._identity, **options
        )
        if status is not None and done.returncode != status:
            raise AssertionError(
                f"{' '.join(argv)}: status {done.returncode}, not {status}\n{done.stdout}{done.stderr}"
            )
        return done

    def out(self, *words: object, **options: Any) -> str:
        """What it prints."""
        return self(*words, **options).stdout.strip()


class Docker(Client):
    """A dockerd with its own containerd, and its client.

    `runc`, by name, is the runtime under test too: BuildKit in dockerd starts its steps by that name.

    Args:
        enter: the words that start a program in namespaces of the engine's own.
        oci: the path of another runtime than that under test.
    """

    def __init__(
        self, place: Path, *options: str, enter: tuple[str, ...] = (), oci: str | None = None, **variables: str
    ) -> None:
        self.place = place
        oci = oci or runtime()
        programs = place / "programs"
        programs.mkdir(parents=True)
        (programs / "runc").symlink_to(oci)
        environment = engine_environment(
            DOCKER_HOST=f"unix://{place}/docker.sock", DOCKER_CONFIG=f"{place}/config", **variables
        )
        environment["PATH"] = f"{programs}:{PATH}"
        super().__init__([*enter, "docker"], environment)
        self.cgroup = f"mbengine-docker-{os.getpid()}-{place.name}"
        argv = [
            *enter, "dockerd", "--host", f"unix://{place}/docker.sock", "--pidfile", f"{place}/docker.pid",
            "--data-root", f"{place}/data", "--exec-root", f"{place}/exec", "--config-file", f"{place}/none.json",
            "--default-ulimit", LIMITS, "--cgroup-parent", f"/{self.cgroup}",
            "--add-runtime", f"tested={oci}", "--default-runtime", "tested", *options,
        ]  # fmt: skip
        (place / "none.json").write_text("{}")
        self.daemon = Daemon(argv, place / "docker.log", self._answers, env=environment)

    def _answers(self) -> bool:
        return self("version", status=None).returncode == 0

    def load(self, archive: Path) -> None:
        """Make `IMAGE` of a root file system."""
        self("import", "--change", 'CMD ["sh"]', archive, IMAGE)

    def clear(self) -> None:
        """Remove all containers, and networks and volumes of the tests'."""
        if names := self.out("ps", "--all", "--quiet").split():
            self("rm", "--force", "--volumes", *names)
        self("network", "prune", "--force")
        self("volume", "prune", "--force")

    def crash(self) -> None:
        """End all of its processes and containers at once, as when its machine loses power."""
        for pid in processes_of(f"{self.place}/"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for procs in CGROUP_ROOT.glob(f"**/{self.cgroup}/**/cgroup.procs"):
            for line in procs.read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(line), signal.SIGKILL)
        self.daemon.stop(signal.SIGKILL)

    def end(self) -> None:
        """Stop it, and remove what it leaves: its cgroup, and mounts."""
        with suppress(AssertionError):
            self.clear()
        self.daemon.stop()
        remove_cgroups(self.cgroup)
        unmount_below(self.place)


@contextmanager
def docker(place: Path, archive: Path, *options: str, **more: Any) -> Iterator[Docker]:
    """A dockerd that has `IMAGE`, until the end of the block; what it makes at its first containers is there already."""
    engine = Docker(place, *options, **more)
    try:
        engine.daemon.start()
        engine.load(archive)
        engine("run", "--rm", "--network", "host", IMAGE, "true")
        engine("run", "--rm", IMAGE, "true")
        yield engine
    finally:
        engine.end()


def processes_of(place: str) -> list[int]:
    """Processes with a path in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and place.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def remove_cgroups(name: str) -> None:
    """Remove the cgroup ``name`` from all hierarchies; there must be no process in it."""
    for hierarchy in (CGROUP_ROOT, *CGROUP_ROOT.iterdir()):
        top = hierarchy / name
        if top.is_dir():
            wait_until(partial(_rmdir, top), f"{top} is empty", 10)


def _rmdir(top: Path) -> bool:
    for path, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            os.rmdir(path)
    return not top.exists()


def unmount_below(place: Path) -> None:
    """Take away what is mounted below a directory, the last first."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for target in reversed(mounts):
        if target.startswith(f"{place}/"):
            subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)
