"""Find the host directories that this Python interpreter needs, to mount them read-only into a sandbox.

These are the system's programs and libraries, the interpreter's own directories, and the entries of `sys.path`. From a
directory that holds more than modules, such as a home, only the modules that this process has imported are mounted.
"""

from __future__ import annotations

import os
import sys
from stat import S_ISDIR

from minibox.base import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Programs, shared libraries and the loader. Everyone may read them, so their owners needn't be mapped.
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime")
WORLD_READABLE = (0o004, 0o005)  # mode bits that let everyone read a file, a directory
DEPTH_OF_HOMES = 2  # parts of the path of a home: /home/ann
LIBRARY = ".so"


def command() -> str:
    """Return the path of this interpreter's program; in a virtual environment, of the interpreter behind it."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def mounts() -> list[tuple[str, str, str]]:
    """Return the mounts, as in `ContainerOptions`, without those that lie below another.

    World-readable files aren't id-mapped, so they may lie on a file system that doesn't support it. Other files,
    such as those under /root, are id-mapped: the container's root is nobody on the host and couldn't read them.

    Raises:
        OSError: /proc/self/maps can't be read.
    """
    found = [(path, "ro,noidmap") for path in SYSTEM if os.path.exists(path)]
    covered = [path for path, _ in found if os.path.isdir(path)]
    files = [file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
    for path in sorted({*_own_directories(), *_libraries()}, key=lambda path: (path.count("/"), path)):
        if os.path.exists(path) and not any(_is_below(path, other) for other in covered):
            covered.append(path)
            found.append((path, "ro,noidmap" if _is_world_readable(path, files) else "ro"))
    return [(path, path, options) for path, options in found]


def _is_world_readable(path: str, files: list[str]) -> bool:
    """Can everyone read ``path`` and the imported files below it?"""
    imported = [file for file in files if file.startswith(f"{path}/")]
    for each in {path, *imported, *map(os.path.dirname, imported)}:
        try:
            mode = os.stat(each).st_mode
        except OSError:
            continue
        if mode & WORLD_READABLE[S_ISDIR(mode)] != WORLD_READABLE[S_ISDIR(mode)]:
            return False
    return True


def _own_directories() -> Iterator[str]:
    for path in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, os.path.dirname(command())):
        yield from _mountable_paths(path)
    for entry in paths.search_path():
        yield from _mountable_paths(entry)
    yield from _modules_of_import_hooks()
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main and (paths.working_directory() or os.path.isabs(main)):
        yield os.path.abspath(main)


def _mountable_paths(path: str) -> Iterator[str]:
    """Yield ``path`` and its real path; or only its imported modules, if the directory holds more than modules."""
    if not _holds_other_files(path):
        yield path
        if (real := os.path.realpath(path)) != path and not _holds_other_files(real):
            yield real
        return
    for place in imported_modules():
        if os.path.dirname(place) == path:
            yield place


def imported_modules() -> Iterator[str]:
    """Yield the paths of imported modules: the files of top-level modules and the directories of top-level packages."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and "." not in name and name != "__main__" and os.path.isabs(file):
            yield os.path.dirname(file) if hasattr(module, "__path__") else file


def _modules_of_import_hooks() -> list[str]:
    """Return imported modules outside `sys.path`, which an import hook found; editable installs use such hooks."""
    entries = set(paths.search_path())
    return [place for place in imported_modules() if os.path.dirname(place) not in entries]


def _holds_other_files(path: str) -> bool:
    """Does this directory hold more than programs: is it /, a directory directly below it, or a home?"""
    homes = {os.path.expanduser("~"), os.path.realpath(os.path.expanduser("~"))}
    parts = [part for part in path.split("/") if part]
    if len(parts) < DEPTH_OF_HOMES and path not in SYSTEM:
        return True
    return path in homes or any(_is_below(home, path) for home in homes) or parts[:-1] == ["home"]


def _libraries() -> Iterator[str]:
    """Yield the shared libraries that this process has loaded, wherever they were found."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            path = line.rstrip("\n").partition("/")[2]
            if LIBRARY in path and os.path.exists(f"/{path}"):
                yield f"/{path}"


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def search_path() -> list[str]:
    """Return `sys.path` with absolute paths, plus the directories of modules that an import hook found."""
    return [*paths.search_path(), *dict.fromkeys(map(os.path.dirname, _modules_of_import_hooks()))]
