"""What a test may leave behind: nothing. A leak fails the test that made it.

`snapshot` says what there is; `leaks` compares two of them. What goes by itself within
`LEAK_PATIENCE_S` is no leak: the kernel and dying processes need a moment.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from minibox.engine.files import background_removal, worker
from minibox.linux import launcher

#: How much slower than a machine this is: an emulator is, many times (tests/vm/vm.py says so).
SLOWNESS = float(os.environ.get("MINIBOX_TEST_SLOWNESS", "1"))
PATIENCE_S = 3.0 * SLOWNESS
LEAK_PATIENCE_S = 10.0 * SLOWNESS  # a network namespace waits for those that the kernel frees before it
FOREIGN_PATIENCE_S = (
    60.0 * SLOWNESS
)  # a cgroup without processes may be another session's, whose next command removes it
CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_PATTERN = "minibox*"
SESSIONS = Path(f"/tmp/minibox-test-sessions-{os.geteuid()}")  # wherever TMPDIR is

Snapshot = dict[str, set[str]]


#: Of tests that start what starts processes in the background.
COMMAND_FIXTURES = {"engines", "minibox", "minibox_user", "engine", "archive", "orphans"}


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare mounts, cgroups, links, nftables, descriptors and processes before and after the test.

    A test that runs the command gets its orphans as children (`isolation.become_subreaper`) and
    reaps them as init would; for a test that starts containers in this process a zombie is a leak.
    """
    worker.close_all()
    launcher.end_all()
    before = snapshot()
    yield
    left = leaks(before, plays_init=bool(COMMAND_FIXTURES & set(request.fixturenames)))
    assert not left, "the test left behind:\n" + "\n".join(left)


def snapshot() -> Snapshot:
    """What could leak, by kind."""
    return {
        "mount": _mounts(),
        "cgroup": _cgroups(),
        "link": {name for _, name in socket.if_nameindex()},
        "nftables": _nftables(),
        "descriptor": _descriptors(),
        "process": _processes(),
    }


def leaks(before: Snapshot, *, plays_init: bool = False) -> list[str]:
    """What is there now, and was not in ``before``; waits `LEAK_PATIENCE_S` for it to go."""
    begin = time.monotonic()
    background_removal.finish()
    while True:
        worker.close_all()
        launcher.close_all()  # it is this process's for good, but not with a container that was left
        if plays_init:
            _reap_orphans()
        reap_name_servers()
        left = _difference(before, snapshot())
        foreign = all(each.startswith("cgroup: ") for each in left)
        if not left or time.monotonic() - begin > (FOREIGN_PATIENCE_S if foreign else LEAK_PATIENCE_S):
            return left
        time.sleep(0.05)


def _reap_orphans() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def reap_name_servers() -> None:
    """Do init's work for the name server: it is shared by all processes of a state root, so it is no one's child."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (entry / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            if name in ("minibox-dns", "minibox-member") and state == "Z" and int(parent) == os.getpid():
                os.waitpid(int(entry.name), 0)
        except (OSError, ValueError):
            continue


def _difference(before: Snapshot, after: Snapshot) -> list[str]:
    return [f"{kind}: {thing}" for kind in after for thing in sorted(after[kind] - before[kind])]


def _mounts() -> set[str]:
    """Mount point, root and file system of each mount of our namespace."""
    lines = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return {f"{fields[4]} from {fields[3]} ({' '.join(fields[fields.index('-') + 1 :])})" for fields in lines}


def _below(directory: Path, pattern: str) -> list[Path]:
    """Directories; another worker's may go while we look."""
    try:
        return [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir() and fnmatch(entry.name, pattern)]
    except OSError:
        return []


def _cgroups() -> set[str]:
    """Our cgroups in each hierarchy, but for those in which processes of somebody else run, or will or did."""
    found = {
        path for directory in (CGROUP_ROOT, *_below(CGROUP_ROOT, "*")) for path in _below(directory, CGROUP_PATTERN)
    }
    ours = _descendants() if found else {}
    return {
        str(path)
        for path in found
        if (pids := _pids(path)) is not None and (pids & ours.keys() or (not pids and not _is_anothers(path.name)))
    }


def _is_anothers(cgroup: str) -> bool:
    """Is this cgroup, which has no process now, another session's? Of a test by the pid in its name, else by its claim."""
    if named := re.fullmatch(r"minibox-[a-z-]+(\d+)(-\d+)?", cgroup):
        return named[1] != str(os.getpid())
    claim = f"live/{cgroup.removeprefix('minibox-')}"
    own = Path(os.environ["MINIBOX_TEST_SESSION"]).name
    others = [each for each in _below(SESSIONS, "*") if each.name != own]
    return any(_has(each, claim) for each in others)


def _has(session: Path, claim: str) -> bool:
    try:
        return any((state / claim).exists() for depth in ("*", "*/*") for state in session.glob(depth))
    except OSError:  # it has just ended, and its directories go
        return False


def announce(session: Path) -> Path:
    """Tell other test sessions on this machine where this one's state roots are, some on mounts of its own."""
    SESSIONS.mkdir(exist_ok=True)
    told = SESSIONS / session.name
    told.symlink_to(f"/proc/{os.getpid()}/root{session}")  # it leads nowhere once this process has ended
    return told


def _pids(cgroup: Path) -> set[int] | None:
    try:
        return {int(pid) for pid in (cgroup / "cgroup.procs").read_text().split()}
    except OSError:
        return None


def bridge_ports() -> set[str]:
    """Links that are on a bridge; not by /sys, which shows the network namespace that it was mounted in."""
    words = ["ip", "-oneline", "link", "show", "type", "bridge_slave"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return {line.split()[1].partition("@")[0].rstrip(":") for line in shown.splitlines()}


def _nftables() -> set[str]:
    """The tables with their contents; counters aside, since packets are no leak."""
    nft = shutil.which("nft", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if nft is None or os.geteuid() != 0:
        return set()
    done = subprocess.run([nft, "--stateless", "list", "ruleset"], capture_output=True, text=True, check=False)
    return set(done.stdout.split("\ntable ")) - {""}


def _descriptors() -> set[str]:
    """Open descriptors of this process, by number and what they are."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the descriptor that listed the directory
            continue
        found.add(f"{number} -> {target}")
    return found


def _processes() -> set[str]:
    """Descendants of ours, zombies too; orphans come back to us, a subreaper."""
    return {f"{pid} {name}" for pid, name in _descendants().items()}


def _descendants() -> dict[int, str]:
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            head, _, rest = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        parents[int(entry)] = int(parent)
        # Of other states, which come and go, a process is the same.
        names[int(entry)] = head.partition("(")[2] + (" (a zombie)" if state == "Z" else "")
    ours = {os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in ours} - ours
        ours |= more
        grown = bool(more)
    return {pid: names[pid] for pid in ours - {os.getpid()}}
