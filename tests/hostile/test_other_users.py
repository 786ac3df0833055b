"""Two ordinary users of one machine: neither comes near what the other keeps, though both have /tmp."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import Completed
from tests.container_box import Box, until
from tests.leaks import SLOWNESS
from tests.oci_runtime import Runtime
from tests.probes import requires, requires_user

pytestmark = [requires("root"), requires_user]

ATTACKER_ID = 4_200_001
ATTACKER: dict[str, Any] = {"user": ATTACKER_ID, "group": ATTACKER_ID, "extra_groups": [], "cwd": "/"}


class Victim:
    """A user without a session: his sockets and the like are below /tmp, under a name that anybody knows."""

    def __init__(self, command: list[str], home: Path, user: int) -> None:
        self.command, self.home, self.user = command, home, user
        self.runroot = Path(f"/tmp/minibox-{user}")
        self.diary = home / "diary"
        self.diary.write_text("dear diary\n")
        os.chown(self.diary, user, user)

    def __call__(self, *words: str) -> Completed:
        environment = {"HOME": str(self.home), "PATH": os.environ["PATH"], "MINIBOX_ROOT": str(self.home / "root")}
        who: dict[str, Any] = {"user": self.user, "group": self.user, "extra_groups": [], "cwd": "/"}
        return subprocess.run(
            [*self.command, *words], env=environment, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=60 * SLOWNESS, **who,
        )  # fmt: skip

    def run(self) -> Completed:
        return self("run", "--rm", "--network", "none", "base", "true")

    def is_unharmed(self) -> bool:
        return self.diary.read_text() == "dear diary\n"


@pytest.fixture
def victim(user_command: list[str], user_seed: Path, session_directory: Path) -> Iterator[Victim]:
    user = 4_300_000 + os.getpid() % 100_000
    home = session_directory / f"home-{user}"
    subprocess.run(["cp", "-a", user_seed.parent, home], check=True)
    subprocess.run(["chown", "-R", f"{user}:{user}", home], check=True)
    found = Victim(user_command, home, user)
    yield found
    for path in (found.runroot, home):
        subprocess.run(["rm", "-rf", path], check=True)


def as_attacker(source: str, *words: object, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", source, *map(str, words)], **ATTACKER, **more)


MAKE = """
import os, sys
path, diary, how = sys.argv[1:]
os.umask(0)
if how == "link":
    os.symlink(os.path.dirname(diary), path)
else:
    os.mkdir(path, 0o777)
    os.symlink(diary, f"{path}/events")
    if how == "below":
        os.mkdir(f"{path}/attach", 0o777)
"""


@pytest.mark.parametrize("how", ["directory", "below", "link"])
def test_what_somebody_else_has_put_in_its_place_is_not_used(victim: Victim, how: str) -> None:
    assert as_attacker(MAKE, victim.runroot, victim.diary, how).wait() == 0
    for words in (("run", "--rm", "--network", "none", "base", "true"), ("ps",), ("events", "--since", "1h", "--until", "0s"),
                  ("attach", "web"), ("exec", "web", "true")):  # fmt: skip
        done = victim(*words)
        assert done.returncode == 125, (words, done)
        assert f"use the directory {victim.runroot}: " in done.stderr and "hint: set --root or --runroot" in done.stderr
    told = " ".join(victim("doctor").stdout.split())
    assert f"missing runroot use the directory {victim.runroot}: " in told
    assert victim.is_unharmed()


SWAP = """
import os, sys
path, diary = sys.argv[1:]
os.umask(0)
print("ready", flush=True)
while True:
    try:
        os.mkdir(path, 0o777)
        os.symlink(diary, f"{path}/events")
        os.unlink(f"{path}/events")
        os.rmdir(path)
        os.symlink(os.path.dirname(diary), path)
        os.unlink(path)
    except OSError:
        pass
    for name in (f"{path}/events", path):
        try:
            os.unlink(name)
        except OSError:
            pass
    try:
        os.rmdir(path)
    except OSError:
        pass
"""


def test_nor_when_it_changes_all_the_time(victim: Victim, rounds: Callable[[int], range]) -> None:
    with as_attacker(SWAP, victim.runroot, victim.diary, stdout=subprocess.PIPE) as attacker:
        assert attacker.stdout and attacker.stdout.readline() == b"ready\n"
        try:
            for _ in rounds(6):
                done = victim.run()
                assert victim.is_unharmed()
                if done.returncode:
                    assert f"use the directory {victim.runroot}: " in done.stderr, done
                    continue
                status = victim.runroot.lstat()  # it was there first, and nobody else can take it away
                assert (status.st_uid, stat.filemode(status.st_mode)) == (victim.user, "drwx------")
                events = [json.loads(line) for line in (victim.runroot / "events").read_text().splitlines()]
                assert {each["Type"] for each in events} == {"container"}
                shutil.rmtree(victim.runroot)
        finally:
            attacker.kill()


def test_what_is_typed_into_attach_goes_to_nobody_else(user_box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its socket's directory were open to all: each end looks who is at the other (SO_PEERCRED)."""
    container = user_box.ok("run", "-d", "-i", "--network", "none", "--name", "web", "base", "cat")
    monkeypatch.chdir(user_box.directory / "run/attach")  # an address holds 107 bytes
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ours:  # root's
        ours.settimeout(20 * SLOWNESS)
        ours.connect(container)
        with pytest.raises(ConnectionError):
            until(lambda: ours.send(b"\0from root\n") and False, "it is closed")
    assert user_box.ok("exec", "web", "echo", "goes on") == "goes on"
    assert "from root" not in user_box.ok("logs", "web")
    os.rename(container, "gone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ours:
        ours.bind(container)
        os.chmod(container, 0o777)
        ours.listen()
        done = user_box("attach", "web", input="secret\n")
        assert done.returncode == 125 and "a process of user 0 is at the other end" in done.stderr
        taken, _ = ours.accept()
        with taken:
            assert taken.recv(100) == b""
    os.rename("gone", container)


LISTEN = """
import os, socket, sys
os.umask(0)
ours = socket.socket(socket.AF_UNIX)
ours.bind(sys.argv[1])
ours.listen()
print("ready", flush=True)
print(len(ours.accept()[0].recv(100, socket.MSG_WAITALL)), flush=True)
"""


def test_a_terminal_is_sent_to_nobody_else(runtime: Runtime, session_directory: Path) -> None:
    """The engine has named a socket, and another was faster."""
    spec = runtime.bundle.shell("true")
    spec["process"]["terminal"] = True
    runtime.write(spec)
    with TemporaryDirectory(dir=session_directory) as place:
        os.chmod(place, 0o1777)
        with as_attacker(LISTEN, f"{place}/console", stdout=subprocess.PIPE) as attacker:
            assert attacker.stdout and attacker.stdout.readline() == b"ready\n"
            words = ("create", "-b", str(runtime.bundle.path), "--console-socket", f"{place}/console", "c1")
            assert f"a process of user {ATTACKER_ID} is at the other end" in runtime.error(*words)
            assert attacker.stdout.readline() == b"0\n"


def test_nobody_else_reads_images_and_what_they_hold(victim: Victim, minibox: Any, state: Path) -> None:
    """Also after an upgrade: older versions made images for everybody to read."""
    assert minibox("run", "--name", "kept", "-v", "vol:/v", "--network", "none", "base", "true").returncode == 0
    root = state / "root"
    for path in (root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())):
        if path.parts[len(root.parts) : len(root.parts) + 1] in ((), ("images",), ("cache",), ("volumes",)):
            path.chmod(path.stat().st_mode | 0o055)
    assert minibox("ps").returncode == 0
    source = (
        "import os, sys\n"
        "for place, directories, names in os.walk(sys.argv[1]):\n"
        "    for name in names:\n"
        "        try:\n"
        "            open(os.path.join(place, name), 'rb').read(); print(os.path.join(place, name))\n"
        "        except OSError: pass\n"
    )
    with as_attacker(source, root, stdout=subprocess.PIPE) as attacker:
        assert attacker.stdout and attacker.stdout.read() == b""
    minibox("rm", "kept")
