"""The API for an ordinary user: the same, in a process of his own."""

from __future__ import annotations

import subprocess
from pathlib import Path

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


@requires_user
def test_it_works_for_an_ordinary_user(
    user_command: list[str], user_environment: dict[str, str], user_state: Path
) -> None:
    python = [*user_command[:-2], "-c", PROGRAM] if user_command[0] == "/usr/bin/env" else None
    if python is None:
        python = [str(Path(user_command[0]).parent / "python"), "-c", PROGRAM]
    done = subprocess.run(python, capture_output=True, text=True, env=user_environment, check=False, **AS_USER)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["3 ['in', '0'] exited", "b'text' True"]
    assert done.stdout.endswith("65534\n\nb'text'\n")
    assert list((user_state / "root" / "snapshots").iterdir()) == []
