"""A mount namespace that others are in: by its path, or the caller's where a Spec has none. They keep what they have."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = [requires("root", "command:busybox")]

# What the container's root hides, and what it shows.
SHOWN = "readlink /proc/self/ns/mnt; ls /; cut -d' ' -f5 /proc/self/mountinfo"
SEEN = ["bin", "dev", "proc", "/", "/proc", "/dev", "/dev/pts"]


class Holder:
    """A process in a mount namespace."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen([*words, "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE)
        assert self._process.stdout and self._process.stdout.readline() == b"\n"
        self.pid = self._process.pid

    def path(self, kind: str = "mnt") -> str:
        """Of one of its namespaces."""
        return f"/proc/{self.pid}/ns/{kind}"

    def mounts(self) -> list[str]:
        """All that it sees."""
        return Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


@pytest.fixture
def hold() -> Iterator[Callable[..., Holder]]:
    """Make a process in a mount namespace of its own; by other words in others."""
    made: list[Holder] = []

    def new(*words: str) -> Holder:
        made.append(Holder(*(words or ("unshare", "--mount", "--propagation", "private"))))
        return made[-1]

    yield new
    for each in made:
        each.end()


def shared(spec: Any, **paths: str) -> Any:
    """The Spec in namespaces by path, of the mounts too; without one it is the caller's."""
    kept = [each for each in spec["linux"]["namespaces"] if each["type"] not in ("mount", *paths)]
    spec["linux"]["namespaces"] = [*kept, *({"type": kind, "path": path} for kind, path in paths.items())]
    return spec


def test_by_path_the_others_keep_their_root_and_nothing_is_left(runtime: Runtime, hold: Any) -> None:
    holder = hold()
    before = holder.mounts()
    runtime.create("c1", shared(runtime.bundle.spec("sleep", "1000"), mount=holder.path()))
    runtime.ok("start", "c1")
    # Nobody else who enters the namespace lands in the container's root, and its mounts are seen there.
    entered = ["nsenter", f"--mount={holder.path()}", "ls", f"{runtime.bundle.rootfs}/proc/1/comm"]
    subprocess.run(entered, check=True, stdout=subprocess.DEVNULL)
    assert [line for line in holder.mounts() if line in before] == before
    done = runtime.ok("exec", "c1", "sh", "-c", SHOWN)
    assert done.splitlines() == [os.readlink(holder.path()), *SEEN]
    runtime.ok("delete", "--force", "c1")
    assert holder.mounts() == before


def test_the_callers_where_there_is_none(runtime: Runtime) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    runtime.write(shared(runtime.bundle.shell(SHOWN)))
    done = runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1")
    assert done.splitlines() == [os.readlink("/proc/self/ns/mnt"), *SEEN]
    assert Path("/proc/self/mountinfo").read_text() == before


def test_with_the_user_namespace_that_it_belongs_to(runtime: Runtime, hold: Any) -> None:
    holder = hold("unshare", "--user", "--mount")
    for file in ("uid_map", "gid_map"):
        Path(f"/proc/{holder.pid}/{file}").write_text("0 0 65536")
    before = holder.mounts()
    runtime.write(shared(runtime.bundle.shell(SHOWN), mount=holder.path(), user=holder.path("user")))
    done = runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1")
    assert done.splitlines()[:8] == [os.readlink(holder.path()), *SEEN]
    assert holder.mounts() == before


def test_what_is_shown_there_alone_can_be_the_root(runtime: Runtime, hold: Any) -> None:
    """Paths are looked up in that namespace, as runc and crun do."""
    holder = hold()
    over = runtime.bundle.path / "over"
    over.mkdir()
    script = f"mount -t tmpfs none {over} && cp -a {runtime.bundle.rootfs}/* {over} && mkdir {over}/proc {over}/dev"
    subprocess.run(["nsenter", f"--mount={holder.path()}", "sh", "-c", script], check=True)
    before = holder.mounts()
    spec = shared(runtime.bundle.spec("ls", "/"), mount=holder.path())
    spec["root"] = {"path": "over", "readonly": True}
    assert runtime.ok("run", "--bundle", str(write(runtime, spec)), "c1").split() == ["bin", "dev", "proc"]
    assert holder.mounts() == before


def write(runtime: Runtime, spec: Any) -> Path:
    runtime.write(spec)
    return runtime.bundle.path


@pytest.mark.parametrize("fails", ["a mount", "its hook", "its command"])
def test_nothing_is_left_of_one_that_cannot_be_made(runtime: Runtime, hold: Any, fails: str) -> None:
    holder = hold()
    before = holder.mounts()
    spec = shared(runtime.bundle.spec("true" if fails != "its command" else "/none"), mount=holder.path())
    if fails == "a mount":
        spec["mounts"].append({"destination": "/x", "type": "no-such-file-system"})
    if fails == "its hook":
        spec["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    runtime.error("run", "--bundle", str(write(runtime, spec)), "c1")
    assert holder.mounts() == before


def test_what_a_killed_creator_has_left_goes_by_delete(runtime: Runtime, hold: Any) -> None:
    holder = hold()
    before = holder.mounts()
    spec = shared(runtime.bundle.spec("true"), mount=holder.path())
    spec["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "kill -KILL $PPID"]}]}
    done = runtime.run("create", "--bundle", str(write(runtime, spec)), "c1")
    assert done.returncode == -9
    assert holder.mounts() != before
    runtime.ok("delete", "--force", "c1")
    assert holder.mounts() == before


def test_a_namespace_that_is_gone_has_nothing_to_undo(runtime: Runtime, hold: Any) -> None:
    holder = hold()
    runtime.create("c1", shared(runtime.bundle.spec("sleep", "1000"), mount=holder.path()))
    holder.end()
    runtime.ok("delete", "--force", "c1")


def test_one_whose_process_is_gone_is_found_by_another_that_is_in_it(runtime: Runtime, hold: Any) -> None:
    first = hold()
    second = hold("nsenter", f"--mount={first.path()}")
    before = second.mounts()
    runtime.create("c1", shared(runtime.bundle.spec("sleep", "1000"), mount=first.path()))
    first.end()
    assert second.mounts() != before
    runtime.ok("delete", "--force", "c1")
    assert second.mounts() == before


def test_what_cannot_be(runtime: Runtime, hold: Any) -> None:
    holder = hold()
    for path, says in (
        ("/", "can't be the container's root"),
        (str(runtime.bundle.rootfs), "needs a new mount namespace"),
    ):
        spec = shared(runtime.bundle.spec("true"), mount=holder.path())
        spec["root"]["path"] = path
        if path != "/":
            spec = runtime.bundle.with_ids(spec)
        assert says in runtime.error("create", "--bundle", str(write(runtime, spec)), "c1")


def test_who_could_leave_its_root_is_warned_of(runtime: Runtime, hold: Any) -> None:
    spec = shared(runtime.bundle.spec("true"), mount=hold().path())
    spec["process"]["capabilities"] = {"bounding": ["CAP_SYS_CHROOT"]}
    runtime.ok("run", "--bundle", str(write(runtime, spec)), "c1")
    assert "CAP_SYS_CHROOT" in runtime.log.read_text()
