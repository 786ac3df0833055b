"""`minibox-oci` under test: its command line on a root of the test's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import Bundle
from tests.conftest import Run
from tests.leaks import SLOWNESS

COMMAND = str(Path(sys.executable).parent / "minibox-oci")
TIMEOUT_S = 60 * SLOWNESS


class Runtime:
    """The command, and a bundle for it.

    Attributes:
        root: directory of the containers' state.
        bundle: one to begin with; `write` gives it a config.json.
        log: file of ``--log``.
    """

    _groups = 0  # of all of them, as each has its own

    def __init__(self, directory: Path, command: list[str] | None = None, **process: Any) -> None:
        self.directory, self.root, self.log = directory, directory / "oci", directory / "oci.log"
        self.bundle = Bundle(directory / "bundle")
        self._command, self._process = command or [COMMAND], process
        self._environment = {**os.environ, "PYTHONWARNINGS": "error", "MINIBOX_ROOT": str(directory / "root")}

    def argv(self, *words: str) -> list[str]:
        """The whole command line."""
        return [*self._command, "--root", str(self.root), "--log", str(self.log), "--log-format", "json", *words]

    def run(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. What it leaves running must not hold our pipes: see ``output``."""
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options |= {"text": True, "env": self._environment, "timeout": TIMEOUT_S, "cwd": "/"} | self._process | more
        return subprocess.run(self.argv(*words), check=False, **options)

    def ok(self, *words: str, **more: Any) -> str:
        """As `run`, and it succeeds; its output."""
        done = self.run(*words, **more)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout or ""

    def error(self, *words: str, status: int = 1, **more: Any) -> str:
        """As `run`, and it fails; what it says, in the log as on standard error."""
        self.log.unlink(missing_ok=True)
        done = self.run(*words, **more)
        assert done.returncode == status, (words, done.stdout, done.stderr)
        last: dict[str, str] = json.loads(self.log.read_text().splitlines()[-1])
        assert last["level"] == "error" and last["time"]
        assert done.stderr.strip() == last["msg"].strip()
        return last["msg"]

    def write(self, spec: Any) -> None:
        """Write config.json; with a cgroup of its own: ids of tests that run beside this one are the same."""
        Runtime._groups += 1
        if isinstance(spec.get("linux"), dict):
            spec["linux"].setdefault("cgroupsPath", f"/minibox-oci-test-{os.getpid()}-{self._groups}")
        (self.bundle.path / "config.json").write_text(json.dumps(spec))

    def create(self, container_id: str, spec: Any, *words: str, **more: Any) -> None:
        """Create a container whose output goes to the file `output`."""
        self.write(spec)
        with open(self.output(container_id), "wb") as file:
            argv = ("create", "--bundle", str(self.bundle.path), *words, container_id)
            done = self.run(*argv, stdout=file, stderr=file, **more)
        assert done.returncode == 0, (argv, self.output(container_id).read_text())

    def output(self, container_id: str) -> Path:
        """The file that a container writes to."""
        return self.directory / f"{container_id}.out"

    def state(self, container_id: str) -> dict[str, Any]:
        """What `state` prints."""
        found: dict[str, Any] = json.loads(self.ok("state", container_id))
        return found

    def wait_for(self, container_id: str, status: str) -> dict[str, Any]:
        """Its state, once it is there, and that far."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            done = self.run("state", container_id)
            found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
            if found.get("status") == status:
                return found
            assert time.monotonic() < deadline, done
            time.sleep(0.02)

    def until_written(self, container_id: str, text: str) -> None:
        """Wait until a container has written something to its output."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.output(container_id).read_text():
            assert time.monotonic() < deadline, f"{container_id} has not written {text!r}"
            time.sleep(0.02)

    def left(self) -> list[str]:
        """What there is below the root: nothing, after all were deleted."""
        return sorted(os.listdir(self.root)) if self.root.exists() else []

    def remove_all(self) -> None:
        """Delete whatever is there."""
        for name in self.left():
            self.run("delete", "--force", name)


@contextmanager
def console(path: Path) -> Iterator[Any]:
    """A console socket; a function that waits for the terminal and returns its descriptor, and the name sent with it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(TIMEOUT_S)
        received: list[int] = []

        def receive() -> tuple[int, bytes]:
            connection, _ = listener.accept()
            with connection:
                data, control, *_ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
            fds = array("i")
            fds.frombytes(control[0][2][:4])
            received.append(fds[0])
            return fds[0], data

        try:
            yield receive
        finally:
            for fd in received:
                os.close(fd)


@pytest.fixture
def runtime(state: Path, minibox: Run) -> Iterator[Runtime]:
    """minibox-oci, with a bundle; its containers go with the test."""
    runtime = Runtime(state)
    yield runtime
    runtime.remove_all()
    assert runtime.left() == []
