"""Our programs' finder for minibox's own modules finds what Python's does, and never an old or a foreign one."""

from __future__ import annotations

import json
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import minibox
from minibox.base.own_modules import CACHED, HEAD_BYTES, OwnModules

MODULES = [each.name for each in pkgutil.walk_packages(minibox.__path__, "minibox.", onerror=lambda name: None)]

#: Imports `minibox.probe` as a program does, tells of it, and writes the pack.
PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = False
from minibox.base import own_modules
own_modules.SETTLED_NS = int(sys.argv[2])
exec(sys.argv[3])
own_modules.use("p")
import minibox.probe as probe
import inspect, json, traceback
found = {"packed": not any("minibox.probe" in each._new for each in sys.meta_path if hasattr(each, "_new"))}
found |= {"value": probe.value(), "file": probe.__file__, "cached": probe.__cached__, "source": inspect.getsource(probe)}
try:
    probe.fail()
except ZeroDivisionError as error:
    found["trace"] = traceback.format_tb(error.__traceback__)[-1]
own_modules.save()
print(json.dumps(found))
"""
SOURCE = "def value():\n    return %r\n\ndef fail():\n    1 / 0\n"

Run = Callable[..., dict[str, object]]


def path_of(name: str) -> list[str]:
    return [f"{minibox.__path__[0]}/{'/'.join(name.split('.')[1:-1])}".rstrip("/")]


def test_it_finds_each_module_where_python_does():
    assert len(MODULES) > 300
    for name in MODULES:
        ours, theirs = OwnModules().find_spec(name, path_of(name)), PathFinder.find_spec(name, path_of(name))
        assert theirs
        if theirs.origin and theirs.origin.endswith(".so"):
            assert ours is None
            continue
        assert ours
        assert (ours.origin, ours.cached, ours.submodule_search_locations, ours.has_location) == (
            theirs.origin, theirs.cached, theirs.submodule_search_locations, theirs.has_location,
        )  # fmt: skip
        assert isinstance(ours.loader, type(theirs.loader)) and ours.parent == theirs.parent


@pytest.mark.parametrize("name", ["os", "minibox", "miniboxes.base", "minibox.no_such_module", "minibox._native"])
def test_what_is_not_ours_or_not_python_is_left_to_python(name: str):
    assert OwnModules().find_spec(name, None if "." not in name else minibox.__path__) is None


def copied(place: Path, value: str) -> Path:
    """Make a small minibox with a module ``probe``."""
    ours, package = Path(minibox.__path__[0]), place / "minibox"
    package.mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "record.py"):
        shutil.copy(ours / name, package)
    shutil.copytree(ours / "base", package / "base", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "probe.py").write_text(SOURCE % value)
    (package / "__pycache__").mkdir()
    return package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return copied(tmp_path / "one", "first")


@pytest.fixture
def pack(package: Path) -> Path:
    return package / f"__pycache__/p{CACHED}.pack"


@pytest.fixture
def run(package: Path) -> Run:
    def run(package: Path = package, settled_ns: int = -1, first: str = "", **environment: str) -> dict[str, object]:
        argv = [sys.executable, "-S", "-c", PROGRAM, str(package.parent), str(settled_ns), first]
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(argv, env=variables | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        # Wherever it comes from, it looks like Python's own.
        path = str(package / "probe.py")
        assert (found["file"], found["source"]) == (path, Path(path).read_text())
        assert f'File "{path}", line 5, in fail\n    1 / 0' in found["trace"]
        if not environment:
            assert found["cached"] == str(package / f"__pycache__/probe{CACHED}.pyc")
        return {name: found[name] for name in ("packed", "value")}

    return run


def test_the_second_run_has_it_from_the_pack(run: Run, pack: Path, package: Path):
    assert run() == {"packed": False, "value": "first"}
    assert pack.stat().st_mode & 0o7777 == 0o644
    for each in package.rglob("*.pyc"):
        each.unlink()
    written = pack.stat().st_ino
    assert run() == {"packed": True, "value": "first"}
    assert not list(package.glob("__pycache__/probe.*")) and pack.stat().st_ino == written


def test_an_edit_counts_even_with_the_same_size_and_times(run: Run, package: Path):
    source = package / "probe.py"
    run()
    before = source.stat()
    source.write_text(SOURCE % "third")
    for each in package.glob("__pycache__/probe.*.pyc"):
        each.unlink()  # Python's own is taken by time in seconds and size
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert source.stat().st_size == before.st_size
    assert run() == {"packed": False, "value": "third"}
    assert run() == {"packed": True, "value": "third"}


def test_a_source_that_was_changed_just_now_is_not_packed(run: Run, pack: Path):
    run(settled_ns=1 << 62)
    assert not pack.exists()


def test_a_module_that_becomes_a_package(run: Run, package: Path):
    run()
    (package / "probe.py").rename(package / "kept.py")
    (package / "probe").mkdir()
    (package / "probe/__init__.py").write_text("0")
    script = f"import sys; sys.path.insert(0, {str(package.parent)!r})\nfrom minibox.base import own_modules\n"
    script += (
        "own_modules.use('p')\nimport minibox.probe; print(minibox.probe.__path__, hasattr(minibox.probe, 'value'))"
    )
    told = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True).stdout
    assert told == f"[{str(package / 'probe')!r}] False\n"


def of_another(pack: Path) -> str:
    """Give a pack to another user; returns what a program does first, for whom it then is another user's."""
    if os.geteuid() == 0:
        os.chown(pack, 65534, 65534)
        return ""
    return "os.geteuid = lambda: 4242"


def writable(pack: Path) -> str:
    pack.chmod(0o664)
    return ""


def linked(pack: Path) -> str:
    pack.rename(pack.with_suffix(".real"))
    pack.symlink_to(pack.with_suffix(".real"))
    return ""


def fifo(pack: Path) -> str:
    pack.unlink()
    os.mkfifo(pack)
    return ""


def cut(pack: Path) -> str:
    pack.write_bytes(pack.read_bytes()[:-1])
    return ""


def empty(pack: Path) -> str:
    pack.write_bytes(b"")
    return ""


def zeros(pack: Path) -> str:
    pack.write_bytes(bytes(pack.stat().st_size))
    return ""


def of_another_python(pack: Path) -> str:
    data = bytearray(pack.read_bytes())
    data[HEAD_BYTES - 20] ^= 1
    pack.write_bytes(data)
    return ""


@pytest.mark.parametrize("spoil", [of_another, writable, linked, fifo, cut, empty, zeros, of_another_python])
def test_a_pack_that_is_not_ours_is_not_read(run: Run, pack: Path, spoil: Callable[[Path], str]):
    run()
    assert run(first=spoil(pack)) == {"packed": False, "value": "first"}


def test_two_checkouts_have_packs_of_their_own(run: Run, pack: Path, tmp_path: Path):
    other = copied(tmp_path / "two", "other")
    run()
    shutil.copy2(pack, other / "__pycache__")
    os.utime(other / "probe.py", ns=(0, pack.stat().st_mtime_ns))
    assert run(other) == {"packed": False, "value": "other"}
    assert run() == {"packed": True, "value": "first"}
    assert run(other) == {"packed": True, "value": "other"}


def test_nothing_is_written_where_python_would_write_nothing(run: Run, pack: Path, tmp_path: Path):
    run(first="sys.dont_write_bytecode = True")
    assert not pack.exists()
    run(PYTHONPYCACHEPREFIX=str(tmp_path / "elsewhere"))
    assert not pack.exists()
    pack.mkdir()  # it can't be replaced
    assert run() == {"packed": False, "value": "first"}
    shutil.rmtree(pack.parent)
    assert run(first="sys.dont_write_bytecode = True") == {"packed": False, "value": "first"}
