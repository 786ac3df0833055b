"""What programs do to files, and what we do with their containers, is the same with every storage driver: whole trees
are compared after each operation."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import minibox
from minibox.image.layer.owners import Owners
from tests.file_trees import File, differences, tree_of
from tests.integration.storage.storage_operations import OPERATIONS, inside, operations_image
from tests.probes import requires
from tests.storage_places import PLACES, new_file_system, state_root

pytestmark = [requires("root"), pytest.mark.usefixtures("minibox")]  # the fixture: orphans are reaped
COMMAND = str(Path(sys.executable).parent / "minibox")
FOREVER = ("sleep", "1000")
LIVE = ("host: ", "mapped: ", "started again")
Values = dict[str, Any]
Tree = dict[bytes, File]


class Scenario:
    """All operations with one driver, and what there is after each, by name."""

    def __init__(self, root: Path, place: Path) -> None:
        self.root, self.place = root, place
        self.values: Values = {}

    def __call__(self, *words: str) -> str:
        return self.bytes_of(*words).decode("utf-8", "surrogateescape")

    def bytes_of(self, *words: str) -> bytes:
        done = subprocess.run([COMMAND, *words], capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, (words, done.stderr.decode())
        return done.stdout

    def start(self, *words: str) -> str:
        """The id of a container that goes on."""
        return self("run", "-d", "--network", "none", *words, *FOREVER).strip()

    def pid(self, name: str) -> int:
        return int(self("inspect", "-f", "{{.State.Pid}}", name))

    def tree(self, name: str, inside: str = "w") -> Tree:
        return tree_of_process(self.pid(name), inside)

    def play(self) -> Values:
        try:
            self._play()
        finally:
            if names := self("ps", "-aq").split():
                self("rm", "-f", *names)
        return self.values

    def _play(self) -> None:
        operations_image(self.root, "app")
        self._operate("host", "--userns", "host")
        self._operate("mapped")
        self._look_at("mapped")
        self._make_images_of("mapped")
        self._copy()
        self._volume()
        self._snapshot()
        self("rm", "-f", "host", "mapped")
        self("rmi", "-f", "app", "second")
        self.values["check"] = self("system", "check")

    def _operate(self, name: str, *more: str) -> None:
        self.start("--name", name, *more, "app")
        pid = self.pid(name)
        self.values[f"{name}: the image as it is"] = self.tree(name)
        self.values[f"{name}: diff of nothing"] = self("diff", name)
        for operation in OPERATIONS:
            inside(pid, operation)
            self.values[f"{name}: {operation.__name__}"] = tree_of_process(pid, "w")

    def _look_at(self, name: str) -> None:
        self.values["diff while it runs"] = self("diff", name)
        self("stop", "-t", "0", name)
        self.values["diff"] = self("diff", name)
        self.values["export"] = members(self.bytes_of("export", name))
        self("commit", name, "first")
        self("run", "--rm", "--network", "none", "first", "true")  # with the driver copy it shares files with `app`
        self.values["diff after another image was unpacked"] = self("diff", name)
        self("start", name)
        self.values["started again"] = self.tree(name)

    def _make_images_of(self, name: str) -> None:
        self("commit", name, "second")
        self.values["sizes of layers"] = self("history", "--format", "{{.Size}}", "second")
        for image in ("first", "second"):
            self.values[f"{image} image"] = self._tree_of_image(image)
        self("save", "-o", f"{self.place}/saved.tar", "second")
        self("rmi", "-f", "first", "second")
        self("load", "-i", f"{self.place}/saved.tar")
        self.values["loaded image"] = self._tree_of_image("second")
        self.values["check with images"] = self("system", "check")

    def _tree_of_image(self, image: str) -> Tree:
        box = self.start("--rm", image)
        try:
            assert self("diff", box) == ""
            return self.tree(box)
        finally:
            self("rm", "-f", box)

    def _copy(self) -> None:
        self.start("--name", "copied", "--userns", "host", "app")  # devices are copied, too
        out = self.place / "out"
        self("cp", "-a", "copied:/w", str(out))
        self.values["cp out"] = tree_of(out)
        self("cp", "-a", str(out), "copied:/back")
        self.values["cp in"] = self.tree("copied", "back")
        self.values["diff after cp"] = self("diff", "copied")
        self("rm", "-f", "copied")

    def _volume(self) -> None:
        box = self.start("--rm", "-v", "content:/w", "app")
        self.values["a volume's first content"] = self.tree(box)
        self("rm", "-f", box)
        self("volume", "rm", "content")

    def _snapshot(self) -> None:
        change = "cd /w; rm -r opaque; mkdir opaque; echo x >opaque/x; ln big big2; rm one; chmod 700 dir"
        with minibox.Sandbox("app", network="none") as box:
            box.run(["sh", "-c", change], check=True)
            with box.snapshot() as snapshot, snapshot.sandbox(network="none") as again:
                self.values["snapshot"] = tree_of_process(again.pid, "w")
                again.run(["sh", "-c", "echo y >/w/opaque/y; rm /w/two"], check=True)
                self.values["snapshot changed"] = tree_of_process(again.pid, "w")
                self.values["diff of a sandbox of a snapshot"] = again.diff()


def tree_of_process(pid: int, inside: str) -> Tree:
    """What a container sees."""
    base = int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])
    return tree_of(Path(f"/proc/{pid}/root/{inside}"), owners=Owners((base, base)))


def members(data: bytes) -> list[tuple[object, ...]]:
    """All that an archive says, but times of what the test made."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [
            (each.name, each.type, each.mode, each.uid, each.gid, each.size, each.linkname,
             sorted((key, value) for key, value in each.pax_headers.items() if key.startswith("SCHILY")),
             (file := archive.extractfile(each)) and file.read() if each.isreg() else b"")
            for each in archive
            if each.name.partition("/")[0] == "w"
        ]  # fmt: skip


@pytest.fixture(scope="module")
def values(session_directory: Path, seed: Path) -> Callable[[str, str], Values]:
    """What there is with a driver after each step; found out once."""
    found: dict[tuple[str, str], Values] = {}

    def play(driver: str, file_system: str) -> Values:
        with ExitStack() as stack:
            point = session_directory
            if file_system:
                point = stack.enter_context(new_file_system(file_system, session_directory))
            root = stack.enter_context(state_root(point, seed))
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=point)))
            variables = {
                "MINIBOX_ROOT": str(root), "MINIBOX_RUNROOT": f"{place}/run", "MINIBOX_STORAGE_DRIVER": driver,
            }  # fmt: skip
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            for name, value in variables.items():
                patch.setenv(name, value)
            return Scenario(root, place).play()

    def values_of(driver: str, file_system: str) -> Values:
        if (driver, file_system) not in found:
            found[driver, file_system] = play(driver, file_system)
        return found[driver, file_system]

    return values_of


@pytest.mark.parametrize("driver", PLACES[1:])
def test_each_operation_gives_what_it_gives_with_overlay(
    values: Callable[[str, str], Values], driver: tuple[str, str]
) -> None:
    ours, expected = values(*driver), values("overlay", "")
    assert list(ours) == list(expected)
    wrong: dict[str, list[str]] = {}
    for step, value in ours.items():
        both = (expected[step], value)
        if driver[0] == "erofs" and step.startswith(LIVE):
            both = (without_links(both[0]), without_links(both[1]))
        if told := unlike(*both):
            wrong[step] = told
    assert not wrong, "\n".join(f"{step}: {told[:5]}" for step, told in wrong.items())


def without_links(value: Any) -> Any:
    """overlayfs gives names of a file that it has copied up from another file system different inode numbers."""
    if not isinstance(value, dict):
        return value
    return {path: replace(file, first=path) for path, file in value.items()}


def unlike(expected: Any, found: Any) -> list[str]:
    """What differs in two values of a step; nothing when they are the same."""
    if isinstance(expected, dict):
        return differences(expected, found)
    if isinstance(expected, str):
        expected, found = expected.splitlines(), found.splitlines()
    lines = [f"- {each}" for each in expected if each not in found] + [
        f"+ {each}" for each in found if each not in expected
    ]
    return lines or (["another order"] if expected != found else [])
