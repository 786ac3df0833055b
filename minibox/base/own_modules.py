"""Import minibox's own modules from one file instead of a hundred. Only for our own programs.

Python looks for each module at several places, and then opens, checks and reads its file in ``__pycache__``: together that
is a sixth of the time of `minibox run`. So a program keeps the compiled modules that it imports in a *pack*,
``minibox/__pycache__/PROGRAM.PYTHON.pack``. For each module it still asks the file system for the source's times and size:
an edited module is compiled again, and written to the pack at the program's end.

Without a pack, or where nobody may write one, modules come from where Python has them. We don't read a pack that another
user could have written: it must belong to root or to this user, and nobody else may write to it. Module objects look like
Python's own, so that tracebacks and `inspect` find the source.

Format: `MAGIC`, Python's magic number, the length of the index and of the whole file, the index (marshal: by module's name
the path of its source, that file's `_key`, and begin and end in the file), then the modules (marshal).
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.machinery import ModuleSpec, SourceFileLoader
    from importlib.util import MAGIC_NUMBER
    from types import CodeType

    Key = tuple[int, int, int]
    Entry = tuple[str, Key, int, int]
else:  # importlib imports more than we save here
    from _frozen_importlib import ModuleSpec
    from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

MAGIC = b"minibox modules 1\n"
HEAD_BYTES = len(MAGIC) + len(MAGIC_NUMBER) + 16
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
KIND, REGULAR, WRITE_BY_OTHERS = 0o170000, 0o100000, 0o022
PACKAGE = os.path.dirname(os.path.dirname(__file__))
#: A file that was changed just now could change again without another time: see `minibox.build.context.memory`.
SETTLED_NS = 2_000_000_000
OPTIMIZED = f".opt-{sys.flags.optimize}" if sys.flags.optimize else ""
CACHED = f".{sys.implementation.cache_tag}{OPTIMIZED}"


class OwnModules:
    """Finds minibox's modules, one of ``sys.meta_path``."""

    def __init__(self, pack: str = "") -> None:
        """``pack``: the path of the pack; "" for none."""
        self._pack = pack
        self._index, self._data = _read(pack) if pack else ({}, memoryview(b""))
        self._new: dict[str, tuple[str, Key, CodeType]] = {}

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        """Return the place of a module or a package written in Python; None leaves it to Python's own finder."""
        if not path or not name.startswith("minibox."):
            return None
        last = name.rpartition(".")[2]
        place = f"{path[0]}/{last}"
        file, inside, directory = f"{place}.py", None, path[0]
        try:
            status = os.stat(file)
        except OSError:
            file, inside, directory, last = f"{place}/__init__.py", [place], place, "__init__"
            try:
                status = os.stat(file)
            except OSError:
                return None
        loader = Loader(name, file)
        loader.finder, loader.key = self, _key(status)
        spec = ModuleSpec(name, loader, origin=file, is_package=bool(inside))
        spec.submodule_search_locations, spec.has_location = inside, True
        if sys.pycache_prefix is None:
            spec.cached = f"{directory}/__pycache__/{last}{CACHED}.pyc"
        return spec

    def packed(self, name: str, path: str, key: Key) -> CodeType | None:
        """Return a module from the pack, if it is what was compiled of the source as it is now."""
        entry = self._index.get(name)
        if entry is None or entry[:2] != (path, key):
            return None
        try:
            code: CodeType = marshal.loads(self._data[entry[2] : entry[3]])
        except (ValueError, EOFError, TypeError):
            return None
        return code

    def note(self, name: str, path: str, key: Key, code: CodeType) -> None:
        """Note a module that isn't in the pack."""
        self._new[name] = path, key, code

    def save(self) -> None:
        """Write the pack anew if it lacks a module that was imported. Where nobody may write it, nothing happens."""
        directory = os.path.dirname(self._pack)
        if not self._new or not directory or sys.dont_write_bytecode or sys.pycache_prefix is not None:
            return
        if not os.access(directory, os.W_OK, effective_ids=True):
            return
        from time import time_ns

        settled_ns = time_ns() - SETTLED_NS
        modules = {
            name: (path, key, marshal.dumps(code))
            for name, (path, key, code) in self._new.items()
            if max(key[:2]) < settled_ns
        }
        if not modules:
            return
        for name, (path, key, begin, end) in self._index.items():
            if name not in modules and _key_of(path) == key:
                modules[name] = path, key, bytes(self._data[begin:end])
        from minibox.base.files import replace_file

        try:
            replace_file(self._pack, _packed(modules), mode=0o644)
        except OSError:
            pass  # a full disk, perhaps: the next program tries again


class Loader(SourceFileLoader):
    """Python's own loader, but for where compiled code comes from."""

    finder: OwnModules
    key: Key

    def get_code(self, fullname: str) -> CodeType | None:
        code = self.finder.packed(fullname, self.path, self.key)
        if code is None:
            code = super().get_code(fullname)
            if code is not None:
                self.finder.note(fullname, self.path, self.key, code)
        return code


def use(program: str) -> None:
    """Import from now on from this program's pack."""
    if not any(type(each) is OwnModules for each in sys.meta_path):
        sys.meta_path.insert(0, OwnModules(f"{PACKAGE}/__pycache__/{program}{CACHED}.pack"))


def save() -> None:
    """Write the pack of this program, if it lacks a module that was imported."""
    for each in sys.meta_path:
        if type(each) is OwnModules:
            each.save()


def _packed(modules: Mapping[str, tuple[str, Key, bytes]]) -> bytes:
    """Return the content of a pack."""
    index: dict[str, Entry] = {}
    at = 0
    for name, (path, key, data) in modules.items():
        index[name] = path, key, at, at + len(data)
        at += len(data)
    head = marshal.dumps(index)
    lengths = b"%08x%08x" % (len(head), HEAD_BYTES + len(head) + at)
    return b"".join([MAGIC, MAGIC_NUMBER, lengths, head, *(data for _, _, data in modules.values())])


def _read(pack: str) -> tuple[dict[str, Entry], memoryview]:
    """Read a pack: its index, and the modules that it counts from. A missing or unsound one counts as empty."""
    nothing: tuple[dict[str, Entry], memoryview] = {}, memoryview(b"")
    try:
        fd = os.open(pack, READ)
    except OSError:
        return nothing
    try:
        status = os.fstat(fd)
        if status.st_mode & KIND != REGULAR or status.st_mode & WRITE_BY_OTHERS:
            return nothing
        if status.st_uid not in (0, os.geteuid()):
            return nothing
        data = os.read(fd, status.st_size)
    except OSError:
        return nothing
    finally:
        os.close(fd)
    if not data.startswith(MAGIC + MAGIC_NUMBER) or len(data) < HEAD_BYTES:
        return nothing
    try:
        begin = HEAD_BYTES + int(data[HEAD_BYTES - 16 : HEAD_BYTES - 8], 16)
        if int(data[HEAD_BYTES - 8 : HEAD_BYTES], 16) != len(data):
            return nothing
        index: dict[str, Entry] = marshal.loads(memoryview(data)[HEAD_BYTES:begin])
    except (ValueError, EOFError, TypeError):
        return nothing
    return index, memoryview(data)[begin:]


def _key(status: os.stat_result) -> Key:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _key_of(path: str) -> Key | None:
    try:
        return _key(os.stat(path))
    except OSError:
        return None
