"""A container whose directories and symlinks change places while its files are read: nothing of the host's is touched."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from minibox.linux.removal import remove_tree
from minibox.storage.clone import clone
from minibox.storage.usage import tree_bytes
from tests.conftest import AS_USER, _environment, _user_environment
from tests.container_box import Box
from tests.probes import requires

Rounds = Callable[[int], range]
SECRET = "the host's"
GET = """
import sys, minibox
with minibox.Sandbox("base", ["/hostile/exchange", "/w", sys.argv[1]], mounts=[(sys.argv[2], "/hostile", "ro")]) as box:
    box.wait_for(log="ready")
    for out in sys.argv[3:]:
        try:
            box.get("/w", out)
        except minibox.MiniboxError as error:
            print(error)
"""


class Attack:
    """A directory of the host's that the container wants to reach, its program, and where copies go."""

    def __init__(self, box: Box, program: Path) -> None:
        self.box, self.is_user = box, box.directory.stat().st_uid != 0
        self.target, self.copies, programs = (box.directory / each for each in ("target", "copies", "hostile"))
        for path in (self.target, self.copies, programs):
            path.mkdir()
            if self.is_user:
                shutil.chown(path, AS_USER["user"], AS_USER["group"])
        (self.target / "secret").write_text(SECRET)
        self.target.chmod(0o777)
        self.program = programs / "exchange"
        shutil.copy(program, self.program)

    def start(self, *options: str) -> None:
        mount = ("-v", f"{self.program.parent}:/hostile:ro")
        self.box.start("cc", f"exec /hostile/exchange /w {self.target}", *mount, *options)
        self.box.until_logged("cc", "ready")

    def has_failed(self) -> None:
        assert [path.name for path in self.target.iterdir()] == ["secret"]
        assert (self.target / "secret").read_text() == SECRET

    def check_tar(self, data: bytes) -> None:
        """No entry lies below a symlink, and nothing of the host's is in it."""
        assert SECRET.encode() not in data
        with tarfile.open(fileobj=io.BytesIO(data)) as file:
            members = file.getmembers()
        links = {member.name for member in members if member.issym()}
        assert len(members) > 80 and links
        assert not [member.name for member in members if os.path.dirname(member.name) in links]


@pytest.fixture
def attack(any_box: Box, attacker: Callable[[str], Path]) -> Attack:
    return Attack(any_box, attacker("exchange"))


@requires("command:cc")
def test_the_attack_says_so_where_it_cannot_exchange(attack: Attack) -> None:
    """Else all the others would pass, and nothing be tried."""
    profile = attack.copies / "seccomp.json"
    refused = {"names": ["renameat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EINVAL}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}))
    options = ("--security-opt", f"seccomp={profile}", "-v", f"{attack.program.parent}:/hostile:ro")
    done = attack.box("run", "--rm", "--network", "none", *options, "base", "/hostile/exchange", "/w", "/target")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "exchange: Invalid argument\n")


@requires("command:cc")
def test_a_copy_out_writes_nowhere_else(attack: Attack, rounds: Rounds) -> None:
    attack.start()
    for number in rounds(4):
        out = attack.copies / str(number)
        attack.box("cp", "cc:/w", str(out))
        assert len(list(out.iterdir())) == 80
        attack.box("cp", "cc:/w", str(attack.copies / "again"))  # over what the last copy has made
        attack.has_failed()
    attack.check_tar(attack.box("cp", "cc:/w", "-", text=False).stdout)


@requires("command:cc")
def test_get_of_a_sandbox_writes_nowhere_else(
    attack: Attack, rounds: Rounds, user_command: list[str], tmp_path: Path
) -> None:
    python, environment, identity = [sys.executable], _environment(attack.box.directory), {}
    if attack.is_user:
        python = user_command[:-2] if user_command[0] == "/usr/bin/env" else python
        environment, identity = _user_environment(attack.box.directory), AS_USER
    words = (str(attack.target), str(attack.program.parent), *(str(attack.copies / str(each)) for each in rounds(6)))
    done = subprocess.run(
        [*python, "-c", GET, *words], capture_output=True, text=True, env=environment, check=False, **identity
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    attack.has_failed()
    assert all(len(list(out.iterdir())) == 80 for out in attack.copies.iterdir()) and list(attack.copies.iterdir())


@requires("command:cc")
def test_a_copy_in_writes_nowhere_else(attack: Attack, rounds: Rounds) -> None:
    """With the host's user namespace, where all that protects is how the path is resolved."""
    if attack.is_user:
        attack.start()
    else:
        attack.start("--userns", "host")
    tree = attack.copies / "tree"
    for number in range(40):
        (tree / f"d{number}/inner").mkdir(parents=True)
        (tree / f"d{number}/f0").write_text("copied")
        (tree / f"d{number}/inner/secret").write_text("copied")
        os.mkfifo(tree / f"d{number}/inner/fifo")
    for _ in rounds(3):
        attack.box("cp", f"{tree}/.", "cc:/w")
        attack.has_failed()


@requires("command:cc")
def test_commit_export_and_diff_tell_of_no_file_below_a_symlink(attack: Attack, rounds: Rounds) -> None:
    attack.start()
    for number in rounds(1):
        attack.box.ok("commit", "--pause=false", "cc", f"hostile:{number}")
        saved = attack.box("run", "--rm", "--network", "none", f"hostile:{number}", "tar", "c", "/w", text=False)
        attack.check_tar(saved.stdout)
        attack.check_tar(attack.box("export", "cc", text=False).stdout)
        attack.box.ok("diff", "cc")
    attack.has_failed()


@requires("command:cc")
def test_a_clone_and_a_count_of_a_tree_that_changes_have_nothing_of_others(
    attacker: Callable[[str], Path], rounds: Rounds, session_directory: Path
) -> None:
    """As of a snapshot where there is no freezer; and a removal that something is still going on in."""
    with TemporaryDirectory(dir=session_directory) as name:
        place = Path(name)
        (place / "target/inner").mkdir(parents=True)
        for secret in ("f0", "secret", "inner/g"):
            (place / "target" / secret).write_text(SECRET * 10_000)
        words = [attacker("exchange"), place / "tree", place / "target"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as exchange:
            assert exchange.stdout
            assert exchange.stdout.readline() == b"ready\n"
            for number in rounds(4):
                clone(str(place / "tree"), str(place / f"clone-{number}"))
                assert (
                    tree_bytes(str(place / "tree")) < 40 * 10 * 4096
                )  # one of the target's files has more than a pair
                found = [path for path in (place / f"clone-{number}").rglob("*") if path.is_file()]
                assert found and not [path for path in found if SECRET in path.read_text()]
            with suppress(OSError):
                remove_tree(str(place / "tree"))
            exchange.kill()
        assert sorted(path.name for path in (place / "target").iterdir()) == ["f0", "inner", "secret"]
