"""Fixtures of all tests: probes, a state root a test, the command as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from minibox.network import bridge
from tests import isolation, probes
from tests.leaks import SLOWNESS, announce

CHECKOUT = Path(__file__).resolve().parent.parent
Completed = subprocess.CompletedProcess[Any]
Run = Callable[..., Completed]
DIRECTORY = pytest.StashKey[Path]()
ANNOUNCED = pytest.StashKey[Path]()
#: What makes a subprocess one of the ordinary user.
AS_USER: dict[str, Any] = {"user": isolation.USER_ID, "group": isolation.USER_ID, "extra_groups": [], "cwd": "/"}

# Machines are noisy: how long anything takes is no failure.
hypothesis.settings.register_profile("minibox", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("minibox")
if not os.access(
    CHECKOUT, os.W_OK
):  # an ordinary user's run, in the virtual machine: failed examples are kept elsewhere
    set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "minibox-hypothesis")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Root's tests run in namespaces of their own, so that nothing they do touches the machine."""
    if session.config.getoption("dist", "no") != "no" and not hasattr(session.config, "workerinput"):
        return  # pytest-xdist's controller runs no test; each of its workers comes here
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # a shell's job in the background, and so would be all children
        signal.signal(signal.SIGINT, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="minibox-test-", dir=_real_filesystem()))
    directory.chmod(0o755)
    session.config.stash[DIRECTORY] = directory
    os.environ["MINIBOX_TEST_SESSION"] = str(directory)
    if os.geteuid() == 0:
        netns_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        os.environ["MINIBOX_TEST_HOST_NETNS"] = f"/proc/{os.getpid()}/fd/{netns_fd}"
        isolation.enter(directory)
        isolation.become_subreaper()
    session.config.stash[ANNOUNCED] = announce(directory)


def pytest_sessionfinish(session: pytest.Session) -> None:
    directory = session.config.stash.get(DIRECTORY, None)
    if directory is not None:
        session.config.stash[ANNOUNCED].unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("requires"):
        for name in mark.args:
            missing = probes.missing(name)
            if missing and probes.missing_is_failure(name):
                pytest.fail(f"this run insists on everything it can test, and lacks {missing}", pytrace=False)
            if missing:
                pytest.skip(f"needs {missing}")


def _real_filesystem() -> str:
    """A directory that can hold an upperdir: not on overlayfs itself. MINIBOX_TEST_DIR says which."""
    candidates = [os.environ.get("MINIBOX_TEST_DIR", ""), tempfile.gettempdir(), "/var/tmp", "/dev/shm"]
    mounts = {fields[4]: fields[fields.index("-") + 1] for fields in _mountinfo()}
    for candidate in filter(None, candidates):
        parents = [candidate, *map(str, Path(candidate).resolve().parents)]
        if next((mounts[path] for path in parents if path in mounts), "") != "overlay":
            return candidate
    return tempfile.gettempdir()


def _mountinfo() -> list[list[str]]:
    return [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]


@pytest.fixture(scope="session")
def session_directory(request: pytest.FixtureRequest) -> Path:
    """A directory of the session's own on a real file system, open to other users."""
    return request.config.stash[DIRECTORY]


@pytest.fixture(scope="session")
def host_netns() -> str:
    """Path of the network namespace that the session came from, for `nsenter --net`: it may have internet."""
    return os.environ["MINIBOX_TEST_HOST_NETNS"]


@pytest.fixture(scope="session")
def seed(session_directory: Path) -> Path:
    """A state root with the image `base` in it, unpacked; `state` starts from it."""
    directory = session_directory / "seed"
    _prime(directory, _environment(directory), command=_command(), **_as_me())
    return directory / "root"


@pytest.fixture
def state(session_directory: Path, request: pytest.FixtureRequest, seed: Path) -> Iterator[Path]:
    """This test's own directory, with `root` and `run` in it, removed afterwards."""
    yield from _state(session_directory, seed, owner=None)


@pytest.fixture
def environment(state: Path) -> dict[str, str]:
    """The environment of a `minibox` command under this test's own state."""
    return _environment(state)


@pytest.fixture
def api(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python API in this process, under this test's own state."""
    for name in ("MINIBOX_ROOT", "MINIBOX_RUNROOT", "PATH"):
        monkeypatch.setenv(name, environment[name])


@pytest.fixture
def minibox(environment: dict[str, str]) -> Run:
    """The installed command: ``minibox("run", "--rm", "base", "true")`` -> CompletedProcess.

    Keywords: ``text`` (True), ``input``, ``timeout_s`` (60), ``env`` (more environment), ``check``
    (False), and those of `subprocess.run`.
    """
    return _runner(_command(), environment, **_as_me())


@pytest.fixture(scope="session")
def minibox_command() -> list[str]:
    """The installed command's argv[0..], for tests that start it by Popen or in a terminal."""
    return _command()


@pytest.fixture(scope="session")
def user_command(session_directory: Path) -> list[str]:
    """The command as an ordinary user can start it: as it is, or copied where the checkout keeps others out."""
    script = Path(_command()[0]).absolute()
    if all(part.stat().st_mode & 0o001 for part in (script, CHECKOUT / "minibox", *script.parents, *CHECKOUT.parents)):
        return [str(script)]
    copies = session_directory / "site"
    shutil.copytree(
        sysconfig.get_path("platlib"), copies, symlinks=True, ignore=shutil.ignore_patterns("*.pth", "mypy*")
    )
    # Another session's compiler is just about to rename those.
    half = shutil.ignore_patterns("*.pyc.*")
    shutil.copytree(CHECKOUT / "minibox", copies / "minibox", ignore=half, dirs_exist_ok=True)
    base = Path(sys.executable).resolve()
    return ["/usr/bin/env", f"PYTHONPATH={copies}", str(base), "-m", "minibox"]


@pytest.fixture(scope="session")
def user_seed(session_directory: Path, user_command: list[str]) -> Path:
    """As `seed`, made by the ordinary user."""
    directory = session_directory / "user-seed"
    directory.mkdir()
    os.chown(directory, isolation.USER_ID, isolation.USER_ID)
    _prime(directory, _user_environment(directory), command=user_command, **AS_USER)
    return directory / "root"


@pytest.fixture
def user_state(session_directory: Path, user_seed: Path) -> Iterator[Path]:
    """As `state`, owned by the ordinary user."""
    yield from _state(session_directory, user_seed, owner=isolation.USER_ID)


@pytest.fixture
def user_environment(user_state: Path) -> dict[str, str]:
    """As `environment`, for the ordinary user."""
    return _user_environment(user_state)


@pytest.fixture
def minibox_user(user_environment: dict[str, str], user_command: list[str]) -> Run:
    """As `minibox`, run by an ordinary user with subordinate ids; use with `requires_user`."""
    return _runner(user_command, user_environment, **AS_USER)


def _command() -> list[str]:
    return [str(Path(sys.executable).parent / "minibox")]


def _as_me() -> dict[str, Any]:
    return {}


def _environment(directory: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME", "CI") if name in os.environ}
    path = kept.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    own = {"MINIBOX_ROOT": str(directory / "root"), "MINIBOX_RUNROOT": str(directory / "run"), "PATH": path}
    return {**kept, **own, "PYTHONWARNINGS": "error", "COLUMNS": "120"}


def _user_environment(directory: Path) -> dict[str, str]:
    home = {"HOME": str(directory), "USER": isolation.USER_NAME, "XDG_RUNTIME_DIR": str(directory / "run")}
    return {**_environment(directory), **home}


def _prime(directory: Path, environment: Mapping[str, str], command: list[str], **identity: Any) -> None:
    """Make `base` in a new state root by the first command that needs it."""
    done = _runner(command, environment, **identity)("run", "--rm", "--network", "none", "base", "true")
    assert done.returncode == 0, f"no base image, so no test can run: {done.stderr}"
    assert (directory / "root").is_dir()


def _state(session_directory: Path, seed: Path, owner: int | None) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(dir=session_directory))
    directory.chmod(0o755)
    subprocess.run(["cp", "-al", str(seed), str(directory / "root")], check=True)
    (directory / "run").mkdir(mode=0o700)
    if owner is not None:
        os.chown(directory, owner, owner)
        os.chown(directory / "run", owner, owner)
    yield directory
    if owner is None and os.geteuid() == 0:
        bridge.remove_bridge(str(directory / "run"))  # it stays for the next container, and no lease may hold it
    shutil.rmtree(directory, ignore_errors=True)


def _runner(command: list[str], environment: Mapping[str, str], **identity: Any) -> Run:
    def run(
        *arguments: str, text: bool = True, timeout_s: float = 60, env: Mapping[str, str] | None = None, **more: Any
    ) -> Completed:
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL} if "input" not in more else {}
        options |= {"capture_output": True} if not {"stdout", "stderr"} & more.keys() else {}
        options |= {"check": False, **identity, **more}
        argv = [*command, *map(str, arguments)]
        limit_s = timeout_s * SLOWNESS
        return subprocess.run(argv, env={**environment, **(env or {})}, text=text, timeout=limit_s, **options)

    return run
