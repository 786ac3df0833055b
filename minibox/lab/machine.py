"""A lab's machine: a container with the host's own programs, this Python and `minibox` in it, in which one may mount and
make namespaces. It needs no image from elsewhere, and no root.
"""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from importlib import import_module
from tempfile import mkdtemp

from minibox.api import interpreter
from minibox.api.options import run_options
from minibox.api.sandbox import Sandbox
from minibox.base.files import make_file
from minibox.base.paths import absolute
from minibox.engine.container import start as containers_start
from minibox.engine.container.exec import capture
from minibox.engine.container.lifecycle import Process as RunningContainer
from minibox.engine.container.removal import remove
from minibox.errors import ContainerNotFound, ContainerNotRunning, MiniboxError, suppress
from minibox.lab.answer import INSIDE
from minibox.lab.cgroups import delegate
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.base.home import Home
    from minibox.lab.catalog import Lab

IMAGE = "base"
TOOLS = "/opt/lab"  # first in PATH
LINKS = ("/etc/alternatives",)  # which links in /usr/bin lead to
SETUP_S = 60
OUTPUT_BYTES_MAX = 1 << 16
CALLS_MORE = "pivot_root"  # what the default filter forbids even to CAP_SYS_ADMIN

#: In each machine, as root of it.
COMMON = """
mkdir -p {tools} /mnt /run /root /srv
ln -sf {python} {tools}/python3
ln -sf {python} {tools}/python
"""


def name_of(lab: Lab) -> str:
    """Return the name of the container that `start` makes."""
    return f"lab-{lab.key}"


def options(lab: Lab, home: Home, directory: str) -> dict[str, Any]:
    """Return the options of a lab's machine, as keywords of `minibox.Sandbox`.

    Args:
        directory: the student's.
    """
    more = dict(lab.options)
    for module in lab.modules:
        import_module(module)  # what is imported is mounted
    path = ":".join([TOOLS, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
    env = {"PATH": path, "PYTHONPATH": ":".join(interpreter.search_path()), "PYTHONUNBUFFERED": "1", "HOME": "/root"}
    return {
        "mounts": [*_programs(home), (directory, INSIDE), *more.pop("mounts", ())],
        "env": {**env, "PYTHONDONTWRITEBYTECODE": "1", "LAB": str(lab.number), "PS1": f"lab{lab.number}:\\w# "},
        "cwd": INSIDE,
        "hostname": f"lab{lab.number}",
        "cap_add": ["ALL"],
        # All capabilities are harmless in a user namespace alone: where the host can't make one for root, it is an error.
        **({"userns": "private"} if os.geteuid() == 0 else {}),
        "security_opt": [*more.pop("security_opt", ()), "systempaths=unconfined", *_filter(lab, home)],
        "network": "none",
        **more,
    }


def fresh(lab: Lab, home: Home, directory: str) -> Sandbox:
    """Start a machine that lives as long as this object, and prepare it."""
    box = Sandbox(IMAGE, root=home.root, runroot=home.runroot, **options(lab, home, directory))
    try:
        if lab.delegated:
            delegate(box.pid)
        done = box.run(["sh", "-ec", _script(lab)], capture_output=True, text=True, timeout=SETUP_S)
        if done.returncode:
            raise _unprepared(lab, done.stdout + done.stderr)
    except BaseException:
        box.close()
        raise
    return box


def start(lab: Lab, home: Home, directory: str, storage_driver: str, on_note: Callable[[str], None]) -> None:
    """Start a lab's machine in the background, and prepare it.

    Raises:
        MiniboxError: it can't be started.
    """
    wanted = run_options(IMAGE, (), options(lab, home, directory), idle=True)  # type: ignore[arg-type]
    detached = replace(wanted, name=name_of(lab), detach=True, rm=True, interactive=False)
    containers_start.run_detached(home, detached, storage_driver=storage_driver, on_note=on_note)
    if lab.delegated:
        delegate(pid_of(lab, home))
    script = ("sh", "-ec", _script(lab))
    done = capture(name_of(lab), script, root=home.root, timeout_s=SETUP_S, bytes_max=OUTPUT_BYTES_MAX)
    if done.status:
        stop(lab, home)
        raise _unprepared(lab, done.output.decode(errors="replace"))


def pid_of(lab: Lab, home: Home) -> int:
    """Return the pid on the host of the first process of the machine that `start` made; 0 if it doesn't run."""
    with (
        suppress(ContainerNotFound, ContainerNotRunning),
        RunningContainer(home.root, name_of(lab), "look at") as found,
    ):
        return int(found.live.pid)
    return 0


def stop(lab: Lab, home: Home) -> None:
    """End the machine that `start` made. It leaves nothing; the student's directory stays."""
    with suppress(ContainerNotFound):
        remove(home, name_of(lab), force=True)


def _script(lab: Lab) -> str:
    files = "".join(
        f"cat >{TOOLS}/{name} <<'END OF {name}'\n{text}END OF {name}\nchmod 755 {TOOLS}/{name}\n"
        for name, text in lab.files().items()
    )
    return COMMON.format(tools=TOOLS, python=interpreter.command()) + files + lab.text("machine.sh")


def _unprepared(lab: Lab, said: str) -> MiniboxError:
    return MiniboxError(f"prepare the machine of lab {lab.number}: {said.strip() or 'its script failed'}")


def _programs(home: Home) -> list[tuple[str, str, str]]:
    """Return the mounts of the host's programs, of this Python and of minibox, read-only.

    Root of a machine may make a read-only mount writable, so nothing of the host may belong to him: what only root of
    the host can read is copied.
    """
    import minibox.linux.process  # with the modules of cffi, which lie elsewhere: what is imported is mounted

    found = [(path, path, "ro,noidmap") for path in LINKS if os.path.isdir(path)]
    for source, destination, words in interpreter.mounts():
        if os.geteuid() == 0 and "noidmap" not in words.split(","):
            source = _copy(home, source)
        found.append((source, destination, "ro,noidmap" if os.geteuid() == 0 else words))
    assert minibox.linux.process
    return found


def _copy(home: Home, source: str) -> str:
    """Copy the modules below ``source`` that this process has imported, for everyone to read. Return the copy's path."""
    modules = sorted(place for place in interpreter.imported_modules() if f"{place}/".startswith(f"{source}/"))
    stamp = "\0".join([source, *(f"{place} {_changed_ns(place)}" for place in modules)])
    target = f"{_directory(home)}/modules/{sha256(stamp.encode()).hexdigest()[:16]}"
    if not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        half = mkdtemp(dir=os.path.dirname(target))
        for place in modules:
            _copy_module(place, os.path.normpath(f"{half}/content/{os.path.relpath(place, source)}"))
        for parent, _, names in os.walk(half):
            os.chmod(parent, 0o755)
            for name in names:
                os.chmod(f"{parent}/{name}", 0o755 if os.access(f"{parent}/{name}", os.X_OK) else 0o644)
        with suppress(OSError):  # somebody else was quicker
            os.rename(f"{half}/content", target)
        shutil.rmtree(half, ignore_errors=True)
    return target


def _changed_ns(place: str) -> int:
    """When a module was changed last."""
    below = (f"{parent}/{name}" for parent, _, names in os.walk(place) if "__pycache__" not in parent for name in names)
    return max(os.lstat(path).st_mtime_ns for path in (place, *below))


def _copy_module(place: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(place):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(place, target, ignore=ignored, ignore_dangling_symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copyfile(place, target)


def _filter(lab: Lab, home: Home) -> list[str]:
    """Return the option for the machine's filter of system calls, unless the lab has one of its own."""
    own = any(word.startswith("seccomp=") for word in lab.options.get("security_opt", ()))
    return [] if own else [f"seccomp={_profile(home)}"]


def _profile(home: Home) -> str:
    """Write the machine's seccomp profile: the default one for all capabilities, and pivot_root. Return its path."""
    import json

    from minibox.linux.capabilities import NAMES
    from minibox.linux.seccomp.default_profile import default_profile

    profile = default_profile(NAMES)
    profile["syscalls"].append({"names": [CALLS_MORE], "action": "SCMP_ACT_ALLOW"})
    path = f"{_directory(home)}/seccomp.json"
    make_file(path, json.dumps(profile).encode())
    return path


def _directory(home: Home) -> str:
    path = absolute(f"{home.root}/labs")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path
