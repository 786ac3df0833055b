"""The programs for the image ``base``: busybox if we can get one, otherwise the host's own programs."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from minibox.base.files import content_of
from minibox.base.lines import lines_of
from minibox.errors import StoreError
from minibox.record import record

BUSYBOX_PATHS = ("/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/usr/local/bin/busybox")
BUSYBOX_INSIDE = "bin/busybox"
COMMAND_TIMEOUT_S = 60
PT_INTERP = 3
ELF_CLASS_64 = 2


@record
class Programs:
    """What goes into the image.

    Attributes:
        files: content by name; all files are executable.
        links: targets of symlinks by name.
        origin: says where they come from, for the image's label.
    """

    files: dict[str, bytes]
    links: dict[str, str]
    origin: str


def collect(recipe: dict[str, Any]) -> Programs:
    """Collect programs according to the ``[programs]`` table of a recipe.

    ``sources`` says in which order to try ``host-busybox``, ``package-busybox`` and ``host-binaries``.

    Raises:
        StoreError: none of them is available.
    """
    tried = []
    for source in recipe["sources"]:
        try:
            if source == "host-busybox":
                return from_host_busybox()
            if source == "package-busybox":
                return from_package(recipe["package"])
            if source == "host-binaries":
                return from_host_binaries(recipe["harvest"], recipe["harvest_files"])
        except StoreError as error:
            tried.append(str(error))
    raise StoreError(
        f"no programs for the image base: {'; '.join(tried)}", "install a static busybox: apt install busybox-static"
    )


def from_host_busybox() -> Programs:
    """Take the programs from a static busybox of the host."""
    for path in (*BUSYBOX_PATHS, *(f"{part}/busybox" for part in os.environ.get("PATH", "").split(":") if part)):
        if os.access(path, os.X_OK) and is_static(path):
            return _from_busybox(path, f"busybox of the host, {path}")
    raise StoreError("the host has no static busybox")


def from_package(package: str) -> Programs:
    """Take the programs from the distribution's package, downloaded to a temporary directory and not installed."""
    with tempfile.TemporaryDirectory(prefix="minibox-") as directory:
        # apt drops root to the user _apt, who must be able to write here.
        os.chmod(directory, 0o755)
        _run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package], cwd=directory)
        archives = [name for name in os.listdir(directory) if name.endswith(".deb")]
        if not archives:
            raise StoreError(f"apt-get download {package} downloaded nothing")
        _run(["dpkg-deb", "-x", archives[0], "tree"], cwd=directory)
        for path in ("bin/busybox", "usr/bin/busybox"):
            if os.access(f"{directory}/tree/{path}", os.X_OK) and is_static(f"{directory}/tree/{path}"):
                return _from_busybox(f"{directory}/tree/{path}", f"package {archives[0].removesuffix('.deb')}")
    raise StoreError(f"package {package} has no static busybox")


def from_host_binaries(names: list[str], others: list[str]) -> Programs:
    """Take the host's own binaries with their libraries and loaders. Missing ones are left out.

    Args:
        names: commands to find in the standard directories.
        others: paths of data files that they need.

    Raises:
        StoreError: the host doesn't even have ``sh``, or a loader can't list its libraries.
    """
    files: dict[str, bytes] = {}
    for name in names:
        path = _which(name)
        if path is None:
            continue
        # /usr/bin/awk may be a link of the alternatives system: take its target.
        files[f"bin/{name}"] = content_of(os.path.realpath(path))
        for inside, library in libraries(path):
            files.setdefault(inside, content_of(library))
    for path in others:
        if os.access(path, os.R_OK):
            files[path.lstrip("/")] = content_of(path)
    if "bin/sh" not in files:
        raise StoreError("the host has no sh")
    return Programs(files=files, links={}, origin="binaries of the host")


def libraries(path: str) -> list[tuple[str, str]]:
    """Return the loader and the shared libraries of a program as (name in the image, path on the host).

    Ask the loader itself (``ld.so --list``, see ld.so(8)): only it knows its search path.
    """
    loader = interpreter(path)
    if not loader:
        return []
    found = [(loader.lstrip("/"), loader)]
    for line in lines_of(_run([loader, "--list", path])):
        _, arrow, rest = line.partition("=>")
        library = (rest if arrow else line).rpartition("(")[0].strip()
        # Keep its path: each distribution's loader searches other directories.
        if library.startswith("/") and os.path.realpath(library) != os.path.realpath(loader):
            found.append((library.lstrip("/"), library))
    return found


def is_static(path: str) -> bool:
    """Tell whether ``path`` is an ELF program that needs no loader."""
    try:
        return interpreter(path) == ""
    except (OSError, StoreError):
        return False


def interpreter(path: str) -> str:
    """Return the loader of an ELF program (its PT_INTERP, elf(5)); "" for a static one.

    Raises:
        StoreError: ``path`` isn't an ELF program.
    """
    with open(path, "rb") as file:
        for kind, offset, size in _program_headers(file.read(1 << 16), path):
            if kind == PT_INTERP:
                file.seek(offset)
                return os.fsdecode(file.read(min(size, 4096)).rstrip(b"\0"))
    return ""


def _program_headers(data: bytes, path: str) -> Iterator[tuple[int, int, int]]:
    """Yield (p_type, p_offset, p_filesz) of each program header."""
    if len(data) < 64 or data[:4] != b"\x7fELF":
        raise StoreError(f"{path} is not an ELF program")
    order = "<" if data[5] == 1 else ">"
    wide = data[4] == ELF_CLASS_64
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), data, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", data, 54 if wide else 42)
    for index in range(count):
        start = table + index * size
        if start + size > len(data):
            return
        (kind,) = struct.unpack_from(order + "I", data, start)
        if wide:
            offset, length = struct.unpack_from(order + "Q16xQ", data, start + 8)
        else:
            offset, length = struct.unpack_from(order + "I8xI", data, start + 4)
        yield kind, offset, length


def _from_busybox(path: str, origin: str) -> Programs:
    applets = [name for name in _run([path, "--list"]).split() if name != "busybox" and "/" not in name]
    if "sh" not in applets:
        raise StoreError(f"{path} has no sh")
    links = {f"bin/{name}": "busybox" for name in applets}
    return Programs(files={BUSYBOX_INSIDE: content_of(path)}, links=links, origin=origin)


def _which(name: str) -> str | None:
    for directory in ("/bin", "/usr/bin", "/sbin", "/usr/sbin"):
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            try:
                interpreter(path)  # skips scripts: the image may lack their interpreter
            except (OSError, StoreError):
                continue
            return path
    return None


def _run(command: list[str], cwd: str | None = None) -> str:
    """Run a program of the host and return its output. If it fails, raise a `StoreError` with its last line."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            text=True,
            errors="replace",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        words = lines_of((done.stderr or done.stdout).strip())
        raise StoreError(f"{' '.join(command)}: {words[-1] if words else f'exit status {done.returncode}'}")
    return done.stdout
