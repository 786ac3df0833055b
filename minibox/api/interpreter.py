"""The root file system that the calling interpreter needs, and nothing else of the host: directories, mounted read-only.

What is mounted: the system's programs and libraries, the interpreter's own directories, and what `sys.path` names. Of a
directory that holds more than modules, as a home does, only the modules are mounted that this process has imported.
"""

from __future__ import annotations

import os
import sys
from stat import S_ISDIR

from minibox.base import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Where programs, shared libraries and the loader are; everybody may read them: their owners need no mapping.
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime")
FOR_ALL = (0o004, 0o005)  # of files, of directories
DEPTH_OF_HOMES = 2  # /home/ann
LIBRARY = ".so"


def command() -> str:
    """The program of this interpreter: of a virtual environment, what it was made from."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def mounts() -> list[tuple[str, str, str]]:
    """As of `ContainerOptions`; those below another are left out.

    What everybody may read isn't id-mapped, so that it may be on a file system that can't be: a container's root is
    nobody, and what is root's alone, as under /root, is shown as its own.

    Raises:
        OSError: it can't be read what is mapped into this process.
    """
    found = [(path, "ro,noidmap") for path in SYSTEM if os.path.exists(path)]
    covered = [path for path, _ in found if os.path.isdir(path)]
    files = [file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
    for path in sorted({*_own_directories(), *_libraries()}, key=lambda path: (path.count("/"), path)):
        if os.path.exists(path) and not any(_is_below(path, other) for other in covered):
            covered.append(path)
            found.append((path, "ro,noidmap" if _is_for_all(path, files) else "ro"))
    return [(path, path, options) for path, options in found]


def _is_for_all(path: str, files: list[str]) -> bool:
    """May everybody read it, and what of it was imported?"""
    imported = [file for file in files if file.startswith(f"{path}/")]
    for each in {path, *imported, *map(os.path.dirname, imported)}:
        try:
            mode = os.stat(each).st_mode
        except OSError:
            continue
        if mode & FOR_ALL[S_ISDIR(mode)] != FOR_ALL[S_ISDIR(mode)]:
            return False
    return True


def _own_directories() -> Iterator[str]:
    for path in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, os.path.dirname(command())):
        yield from _narrowed(path)
    for entry in paths.search_path():
        yield from _narrowed(entry)
    yield from _found_otherwise()
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main and (paths.working_directory() or os.path.isabs(main)):
        yield os.path.abspath(main)


def _narrowed(path: str) -> Iterator[str]:
    """A directory, or of one that is too much to show the imported modules; paths as they are named, and as they are."""
    if not _holds_more(path):
        yield path
        if (real := os.path.realpath(path)) != path and not _holds_more(real):
            yield real
        return
    for place in _imported():
        if os.path.dirname(place) == path:
            yield place


def _imported() -> Iterator[str]:
    """The files of imported modules, and the directories of packages; those at the top."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and "." not in name and name != "__main__" and os.path.isabs(file):
            yield os.path.dirname(file) if hasattr(module, "__path__") else file


def _found_otherwise() -> list[str]:
    """Those that no entry of `sys.path` leads to: an import hook has found them, as of an editable installation."""
    entries = set(paths.search_path())
    return [place for place in _imported() if os.path.dirname(place) not in entries]


def _holds_more(path: str) -> bool:
    """Is it a place where more than programs lie: the root, a directory right below it, or a home?"""
    homes = {os.path.expanduser("~"), os.path.realpath(os.path.expanduser("~"))}
    parts = [part for part in path.split("/") if part]
    if len(parts) < DEPTH_OF_HOMES and path not in SYSTEM:
        return True
    return path in homes or any(_is_below(home, path) for home in homes) or parts[:-1] == ["home"]


def _libraries() -> Iterator[str]:
    """Shared libraries that are mapped into this process: those that an unusual search path has found, too."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            path = line.rstrip("\n").partition("/")[2]
            if LIBRARY in path and os.path.exists(f"/{path}"):
                yield f"/{path}"


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def search_path() -> list[str]:
    """`sys.path`, absolute, and what leads to the modules that it doesn't lead to here."""
    return [*paths.search_path(), *dict.fromkeys(map(os.path.dirname, _found_otherwise()))]
