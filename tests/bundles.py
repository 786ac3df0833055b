"""OCI bundles of busybox, and their start by the engine as the OCI command line does it."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minibox.engine.process import steps
from minibox.engine.process.execution import Execution, Resources
from minibox.plan.compiler import compile_plan
from minibox.plan.rootfs import Rootfs
from minibox.plan.start import Start
from minibox.record import record

APPLETS = ("sh", "cat", "echo", "id", "ls", "mount", "sleep", "stat", "hostname", "grep", "readlink", "touch", "pwd",
           "mkdir", "true", "false", "env", "test", "wc", "ip", "chmod", "od", "tr", "stty", "head", "cut")  # fmt: skip
MAP = [{"containerID": 0, "hostID": 70000, "size": 65536}]


@record
class Ended:
    """A container that has ended."""

    status: int
    output: str

    @property
    def lines(self) -> list[str]:
        """Of its output."""
        return self.output.splitlines()


class Bundle:
    """A directory with a root file system and what a Spec says of it."""

    def __init__(self, directory: Path) -> None:
        self.path, self.rootfs = directory, directory / "rootfs"
        (self.rootfs / "bin").mkdir(parents=True)
        found = shutil.which("busybox")
        assert found
        shutil.copy(found, self.rootfs / "bin/busybox")
        for applet in APPLETS:
            (self.rootfs / "bin" / applet).symlink_to("busybox")

    def spec(self, *args: str, **linux: Any) -> Any:
        """A Spec to change; ``linux``: over its own."""
        return {
            "ociVersion": "1.2.0",
            "process": {"cwd": "/", "args": list(args) or ["sh"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
            "root": {"path": str(self.rootfs)},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network")]} | linux,
        }  # fmt: skip

    def shell(self, script: str, **linux: Any) -> Any:
        """As `spec`, of a shell script."""
        return self.spec("sh", "-c", script, **linux)

    def with_ids(self, spec: Any, mappings: list[dict[str, int]] = MAP) -> Any:
        """The Spec with a user namespace, and the files given to its root."""
        spec = copy.deepcopy(spec)
        spec["linux"]["namespaces"].append({"type": "user"})
        spec["linux"]["uidMappings"] = spec["linux"]["gidMappings"] = mappings
        for path in (self.rootfs, *self.rootfs.rglob("*")):
            os.chown(path, mappings[0]["hostID"], mappings[0]["hostID"], follow_symlinks=False)
        return spec

    def run(self, spec: Any, start: Start | None = None, **resources: Any) -> Ended:
        """Start a container and wait for its end."""
        with self.started(spec, start, **resources) as (execution, reader):
            assert execution.init
            output = b"".join(iter(lambda: os.read(reader, 1 << 16), b""))
            return Ended(status_of(execution), output.decode())

    @contextmanager
    def started(self, spec: Any, start: Start | None = None, **resources: Any) -> Iterator[tuple[Execution, int]]:
        """A container that runs, or waits at its gate; and what it writes."""
        follows = "slave" in spec["linux"].get("rootfsPropagation", "")
        plan = compile_plan(spec, Rootfs(path=spec["root"]["path"], follows=follows), start or Start())
        reader, writer = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        given: dict[str, Any] = {
            "streams": (null, writer, writer),
        } | resources
        execution = Execution(plan, Resources(**given))
        try:
            steps.run(execution)
            os.close(writer)
            writer = -1
            yield execution, reader
        finally:
            execution.close()
            for fd in (reader, null, writer):
                if fd >= 0:
                    os.close(fd)


def status_of(execution: Execution) -> int:
    """The exit status of a container that ends by itself; negative for a signal."""
    return execution.launched.wait()
