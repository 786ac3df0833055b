"""What a project's image is: its files and its config, as values that can be compared."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
from collections.abc import Set
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.engines import Client, engine_environment, unmount_below

PROJECTS = Path(__file__).parent
#: What differs between two builds by one and the same program: logs, keys, caches with times in them.
CHANGES = re.compile(
    r"var/(log|cache|lib/apt|lib/systemd)/.*|etc/ssh/ssh_host_.*|.*/__pycache__/.*|etc/ld\.so\.cache|var/lib/dpkg/.*"
    r"|etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|tmp/.*|.*/\.cache/.*"
)
#: What an engine lays over the image's own while RUN works.
OF_ENGINES = re.compile(r"(etc/(hosts|hostname|resolv\.conf|mtab)|dev|proc|sys|run|\.dockerenv)(/.*)?|")
CAPABILITY = "security.capability"


class Buildah(Client):
    """Debian's buildah, with a store of its own."""

    def __init__(self, place: Path, enter: tuple[str, ...] = (), driver: str = "vfs") -> None:
        self.place, self._enter = place, enter
        place.mkdir()
        words = ["buildah", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", driver]
        super().__init__([*enter, *words], engine_environment(TMPDIR=str(place)))

    def __enter__(self) -> Buildah:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self("rm", "--all", status=None)
        unmount_below(self.place)

    def build(self, name: str, *words: object) -> None:
        """Build as Docker's format, whose config has all of the fields.

        By chroot, which needs no cgroup hierarchies and has no network but the host's.
        """
        self(
            "bud",
            "--isolation",
            "chroot",
            "--network",
            "host",
            "--format",
            "docker",
            "-t",
            name,
            *words,
            timeout_s=1800,
        )

    def export(self, name: str, path: Path) -> None:
        """Write the files of an image as a tar."""
        container = self.out("from", "--pull-never", f"localhost/{name}")
        mounted = self.out("mount", container)
        words = [
            "tar", "--create", "--numeric-owner", "--xattrs", f"--xattrs-include={CAPABILITY}", f"--file={path}",
            f"--directory={mounted}", ".",
        ]  # fmt: skip
        subprocess.run([*self._enter, *words], check=True)
        self("rm", container)

    def inspect(self, name: str) -> str:
        """The config, where Docker's `inspect` has it."""
        return json.dumps([{"Config": json.loads(self.out("inspect", "--type", "image", name))["Docker"]["config"]}])


def files(archive: Path) -> dict[str, tuple[Any, ...]]:
    """All files of an archive, by path: kind, mode, owner, target, capability, content."""
    found = {}
    links = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            path = member.name.removeprefix("./").strip("/").removeprefix(".")
            if OF_ENGINES.fullmatch(path):
                continue
            if member.islnk():
                links[path] = member.linkname.removeprefix("./").strip("/")
                continue
            content = ""
            if member.isreg() and not CHANGES.fullmatch(path):
                data = tar.extractfile(member)
                assert data
                content = hashlib.file_digest(data, "sha256").hexdigest()  # type: ignore[arg-type]
            mode = 0 if member.issym() else member.mode & 0o7777
            capability = member.pax_headers.get(f"SCHILY.xattr.{CAPABILITY}", "")
            found[path] = (member.type, oct(mode), member.uid, member.gid, member.linkname, capability, content)
    return found | {path: found[first] for path, first in links.items() if first in found}


def compare(ours: Path, theirs: Path, but: Set[str] = frozenset()) -> None:
    """Two archives have the same files, besides logs and caches that only one program's times have put there.

    Args:
        but: files that differ.
    """
    first, second = files(ours), files(theirs)
    different = {
        path: (first.get(path), second.get(path))
        for path in first.keys() | second.keys()
        if first.get(path) != second.get(path)
        and not (CHANGES.fullmatch(path) and (path not in first or path not in second))
    }
    assert not but - different.keys(), "no difference any more"
    different = {path: each for path, each in different.items() if path not in but}
    assert not different, json.dumps(dict(sorted(different.items())[:40]), default=str, indent=1)


#: Docker's and buildah's fields of containers, and a mark for Windows.
OF_CONTAINERS = {
    "ArgsEscaped", "AttachStderr", "AttachStdin", "AttachStdout", "Domainname", "Hostname", "Image", "OpenStdin",
    "StdinOnce", "Tty",
}  # fmt: skip


def compare_config(ours: str, theirs: str) -> None:
    """The execution part of two configs, as `inspect` prints them, is the same."""
    assert config(ours) == config(theirs)


def config(document: str) -> dict[str, Any]:
    found = {
        key: value for key, value in json.loads(document)[0]["Config"].items() if value and key not in OF_CONTAINERS
    }
    found["Env"] = sorted(found.get("Env", ()))
    labels = {name: text for name, text in found.pop("Labels", {}).items() if not name.startswith("io.buildah.")}
    return found | {"Labels": labels}
