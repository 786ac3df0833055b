"""minibox as a wheel, away from the checkout: all is in it, an upgrade leaves nothing old, and pip removes everything."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.conftest import CHECKOUT
from tests.container_box import until
from tests.probes import requires

pytestmark = [
    requires("root", "command:busybox"),
    pytest.mark.usefixtures("box"),
]  # it removes what is left of containers

SOURCES = ("minibox", "native", "rootfs", "bin", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
BUILT = ("_native.*", "_seccomp.py", "_systemd.py", "minibox-init*", "__pycache__", "*.egg-info", "*.o")


def pip(*words: str | Path) -> None:
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done


class Venv:
    """A virtual environment with minibox from a wheel; its dependencies are those of the tests."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.source = directory / "venv", directory / "source"
        self.site = Path(
            sysconfig.get_path("platlib", vars={"base": str(self.directory), "platbase": str(self.directory)})
        )
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.directory], check=True)
        self.source.mkdir()
        for name in SOURCES:
            if (CHECKOUT / name).is_dir():
                ignored = shutil.ignore_patterns(*BUILT)
                shutil.copytree(CHECKOUT / name, self.source / name, symlinks=True, ignore=ignored)
            else:
                shutil.copy(CHECKOUT / name, self.source)

    def build(self) -> Path:
        """Build a wheel of the source as it is now."""
        to = self.directory.parent / "wheels"
        shutil.rmtree(to, ignore_errors=True)
        pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", to, self.source)
        (wheel,) = to.iterdir()
        return wheel

    def pip(self, *words: str | Path) -> None:
        pip("--python", self.directory / "bin/python3", *words)

    def files(self) -> list[str]:
        """What there is of minibox."""
        found = [*self.site.rglob("*"), *(self.directory / "bin").iterdir()]
        return sorted(str(path) for path in found if path.name.startswith("minibox"))

    def packs(self) -> list[Path]:
        return sorted(self.site.glob("minibox/__pycache__/*.pack"))


@pytest.fixture
def venv(tmp_path: Path) -> Venv:
    return Venv(tmp_path)


@pytest.fixture
def installed(venv: Venv, environment: dict[str, str]) -> Callable[..., str]:
    """``installed("minibox", "ps")``: a command of the virtual environment; what it prints and says."""
    env = {**environment, "PYTHONPATH": sysconfig.get_path("platlib")}

    def run(program: str, *words: str, status: int = 0) -> str:
        argv = [f"{venv.directory}/bin/{program}", *words]
        done: Any = subprocess.run(
            argv, env=env, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == status, done
        return str(done.stdout)

    return run


def test_a_wheel_from_its_installation_to_its_removal(
    venv: Venv, installed: Callable[..., str], tmp_path: Path
) -> None:
    wheel = venv.build()
    with ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    package = venv.source / "minibox"
    sources = [*package.rglob("*"), *(package / "rootfs").rglob("*")]  # a link to a directory isn't followed
    assert {str(path.relative_to(venv.source)) for path in sources if path.is_file()} <= packed

    venv.pip("install", "--no-index", "--no-deps", wheel)
    assert installed("minibox", "run", "--rm", "--network", "none", "base", "echo", "hi") == "hi\n"
    assert "minibox-oci" in installed("minibox-oci", "--help")
    _try_each_command(installed, tmp_path)

    def all_filled() -> bool:
        installed("minibox", "run", "--rm", "--network", "none", "base", "true")
        installed("minibox", "map")
        installed("minibox-oci", "run", "--help")
        installed("minibox-oci", "--help")
        return all(path.stat().st_size for path in venv.packs())

    assert len(venv.packs()) == 4
    until(all_filled, "each program has written its modules to its pack")

    for path, old, new in (
        ("pyproject.toml", '"0.1.0"', '"0.1.1"'),
        ("minibox/cli/changes.py", "no changes", "nothing"),
    ):
        text = (venv.source / path).read_text()
        assert old in text
        (venv.source / path).write_text(text.replace(old, new))
    venv.pip("install", "--no-index", "--no-deps", "--upgrade", venv.build())
    assert installed("minibox", "try", "--discard", "true").endswith("nothing\n")
    until(all_filled, "each program has written its modules to its pack")

    venv.pip("uninstall", "--yes", "minibox")
    assert venv.files() == []


def _try_each_command(installed: Callable[..., str], directory: Path) -> None:
    """Those that need files of the package besides its modules."""
    context, desk, page = directory / "context", directory / "desk", directory / "page.html"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM base\nRUN echo x > /x\n")
    installed("minibox", "build", "--network", "none", "-t", "web", str(context))
    assert installed("minibox", "run", "--rm", "--network", "none", "web", "cat", "/x") == "x\n"
    assert "no changes" in installed("minibox", "try", "--discard", "true")
    assert "namespaces" in installed("minibox", "map")
    installed("minibox", "explain", "--html", str(page), "run", "--rm", "base", "true")
    assert "</html>" in page.read_text()
    assert "Overlay" in installed("minibox", "lab", "list")
    installed("minibox", "lab", "start", "2", "--dir", str(desk))
    assert "CLONE_NEWPID" in installed("minibox", "lab", "check", status=1)
    (desk / "answer.py").write_text(installed("minibox", "lab", "solution"))
    assert "passed" in installed("minibox", "lab", "check")
    installed("minibox", "lab", "reset")
