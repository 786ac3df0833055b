"""The API for an ordinary user: the same, in a process of his own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import AS_USER
from tests.probes import requires_user

PROGRAM = """
import minibox
done = minibox.run("base", ["sh", "-c", "cat; id -u; exit 3"], input="in ", capture_output=True, text=True)
print(done.returncode, done.stdout.split(), done.verdict.kind)
with minibox.Sandbox("base", ["sh", "-c", "mkdir /w; echo ok > /w/a; httpd -p 80 -h /w; echo ready; sleep 600"]) as box:
    box.wait_for(log="ready")
    box.wait_for(port=80)
    box.wait_for(http="/a")
    box.write_file("/own", "text", user="nobody", mode=0o600)
    print(box.read_file("/own"), ("A", "/own") in box.diff())
    print(box.run(["stat", "-c", "%u", "/own"], capture_output=True, text=True).stdout)
    with box.snapshot() as snapshot, snapshot.sandbox() as fork:
        print(fork.read_file("/own"))
"""
IN_MEMORY = """
import minibox
with minibox.Sandbox("base", disk="1m") as box:
    box.write_file("/own", "text", user="nobody", mode=0o600)
    box.run(["rm", "/etc/group"])
    print(box.diff() == [("C", "/etc"), ("D", "/etc/group"), ("A", "/own")])
    box.commit("from-memory")
    with box.snapshot() as snapshot, snapshot.sandbox() as fork, minibox.Sandbox("from-memory") as other:
        for each in (fork, other):
            script = "stat -c %u /own; test -e /etc/group; echo $?"
            print(each.run(["sh", "-c", script], capture_output=True, text=True).stdout.split())
"""


def run_as_user(command: list[str], environment: dict[str, str], program: str) -> subprocess.CompletedProcess[str]:
    python = command[:-2] if command[0] == "/usr/bin/env" else [str(Path(command[0]).parent / "python")]
    return subprocess.run(
        [*python, "-c", program], capture_output=True, text=True, env=environment, check=False, **AS_USER
    )


@requires_user
def test_it_works_for_an_ordinary_user(
    user_command: list[str], user_environment: dict[str, str], user_state: Path
) -> None:
    done = run_as_user(user_command, user_environment, PROGRAM)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["3 ['in', '0'] exited", "b'text' True"]
    assert done.stdout.endswith("65534\n\nb'text'\n")
    assert list((user_state / "root" / "snapshots").iterdir()) == []


@requires_user
def test_his_limited_disk_is_compared_frozen_and_made_an_image(
    user_command: list[str], user_environment: dict[str, str]
) -> None:
    done = run_as_user(user_command, user_environment, IN_MEMORY)
    if "since Linux 6.6" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stdout) == (0, "True\n" + "['65534', '1']\n" * 2), done.stderr
