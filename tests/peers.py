"""minibox-oci beside runc and crun: the same bundle, the same command line, and what comes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from minibox.record import record
from tests.oci_runtime import Runtime

#: By `make long`: what takes too long for CI.
LONG = bool(os.environ.get("MINIBOX_LONG"))
OURS = "minibox-oci"
PEERS = ("runc", "crun")
VERSION = "1.0.0"  # crun of Debian 12 knows no newer one

Make = Callable[[Runtime], Any]


@record
class Outcome:
    """What came of a command."""

    status: int
    output: str
    errors: str = ""

    @property
    def lines(self) -> list[str]:
        """Of its output."""
        return self.output.splitlines()


class Peers:
    """The three runtimes, each with a bundle and a state root of its own.

    Attributes:
        all: by name, ours first.
    """

    def __init__(self, directory: Path) -> None:
        self.all: dict[str, Runtime] = {}
        for name in (OURS, *PEERS):
            (directory / name).mkdir()
            self.all[name] = Runtime(directory / name, None if name == OURS else [name])

    def run(self, make: Make, *options: str, **more: Any) -> dict[str, Outcome]:
        """Run a container in the foreground under each.

        Args:
            make: gives the Spec for a runtime's bundle.
            options: of ``run``; keywords are those of `Runtime.run`.
        """
        found = {}
        for name, runtime in self.all.items():
            self.write(runtime, make(runtime))
            # Not /dev/null: crun gives its standard streams to the container's user, the host's device too.
            reader, writer = os.pipe()
            os.close(writer)
            try:
                words = ("run", *options, "--bundle", str(runtime.bundle.path), "c1")
                done = runtime.run(*words, **({"stdin": reader} | more))
            finally:
                os.close(reader)
            found[name] = Outcome(done.returncode, done.stdout, done.stderr)
        return found

    def same(self, make: Make, *options: str, **more: Any) -> Outcome:
        """As `run`; status and output are the same under all three."""
        found = self.run(make, *options, **more)
        assert len({(each.status, each.output) for each in found.values()}) == 1, found
        return found[OURS]

    @staticmethod
    def write(runtime: Runtime, spec: Any) -> None:
        """Write config.json, of a version that all of them read."""
        runtime.write(spec | {"ociVersion": VERSION})

    @contextmanager
    def running(self, make: Make, container_id: str = "c1") -> Iterator[dict[str, Runtime]]:
        """A container that runs under each, until the end of the block."""
        with ExitStack() as stack:
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            os.close(writer)
            for runtime in self.all.values():
                runtime.create(container_id, make(runtime) | {"ociVersion": VERSION}, stdin=reader)
                stack.callback(runtime.run, "delete", "--force", container_id)
                runtime.ok("start", container_id)
            yield self.all

    def remove_all(self) -> None:
        """Delete whatever is there."""
        for runtime in self.all.values():
            runtime.remove_all()
