"""`explain --step`: a real start that stops before each step."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minibox.base.files import wait_readable
from minibox.linux.cgroup.usage_meter import descendants
from tests.conftest import Run
from tests.probes import requires, requires_user

RUN = ("run", "--rm", "--network", "none", "base")


def step(minibox: Run, *commands: str, run: tuple[str, ...] = (*RUN, "echo", "it runs"), **more: Any) -> Any:
    return minibox("explain", "--step", *run, input="".join(f"{each}\n" for each in commands), **more)


def stopped_at(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"^step (\d+) of \d+> ", text, re.M)]


@requires("root")
def test_each_step_in_turn(minibox: Run) -> None:
    """Until the command runs; what each has changed is told before the next."""
    rows = json.loads(minibox("explain", "--json", *RUN, "echo", "it runs").stdout)
    done = step(minibox, *(["next"] * len(rows)), env={"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert stopped_at(done.stdout) == [row["index"] for row in rows]
    assert done.stdout.endswith("it runs\n")
    wrapped = [
        line for line in done.stdout.splitlines() if "$ " not in line and max(map(len, line.split() or [""])) < 60
    ]
    assert max(map(len, wrapped)) <= 80
    said = " ".join(done.stdout.split())
    for change in (
        "init: it is there, with namespaces of its own: mount, uts, ipc, user, pid, network",
        "mounter: it is there, with namespaces of its own: mount",
        "init: uid map (inside, outside, how many): (none) -> 0 ",
        "host: new cgroup ",
        "init: new mount at /tmp: overlay of overlay",
        "init: new mount at /tmp/proc: proc of proc",
        "init: another cgroup namespace",
        "is at / now",
        "init: seccomp: off -> a filter",
        "init: effective capabilities: lost ",
        "init: bounding capabilities: lost ",
        "mounter: it has ended",
    ):
        assert change in said, change


@requires("root")
def test_to_a_step_by_name_and_by_number(minibox: Run) -> None:
    done = step(minibox, "to pivot_root", "to pivot-rot", "to 100", "to 5", "go")
    assert done.returncode == 0, done.stderr
    assert "make the container's root the root directory" in done.stdout
    assert stopped_at(done.stdout)[-1] == 100 and done.stdout.endswith("it runs\n")
    assert "no later step is called 'pivot-rot'" in done.stderr and "no later step is called '5'" in done.stderr


@requires("root")
def test_a_shell_is_where_the_process_is(minibox: Run) -> None:
    done = step(
        minibox,
        *("to write_uid_map", "shell echo host $(cat /proc/self/uid_map)", "to pivot_root"),
        *("shell ls -d /tmp/etc/passwd /var/lib", "n", "shell ls /; hostname; echo id $(cat /proc/self/uid_map)", "go"),
        run=("run", "--rm", "--network", "none", "--hostname", "inside", "base", "true"),
    )
    assert done.returncode == 0, done.stderr
    host = Path("/proc/self/uid_map").read_text().split()
    assert f"host {' '.join(host)}\n" in done.stdout  # its ids aren't mapped yet
    assert "/tmp/etc/passwd\n/var/lib\n" in done.stdout  # the new root is there, and the host's is /
    assert done.stderr.count("is still the host's here") == 2  # before pivot_root
    assert "\ninside\n" in done.stdout and re.search(r"\nid 0 [1-9]\d+ 65536\n", done.stdout)


@requires("root")
@pytest.mark.parametrize(("command", "said"), [("echo don't", "quote"), ('echo "a', "quote"), ("echo a\\", "\na\\\n")])
def test_what_the_shell_says_about_its_quotes_is_no_end(minibox: Run, command: str, said: str) -> None:
    done = step(minibox, "to pivot_root", f"shell {command}", "go")
    assert done.returncode == 0 and done.stdout.endswith("it runs\n"), done.stderr
    assert said in done.stderr.lower() + done.stdout.rpartition(">")[0]


@requires("root")
def test_look_help_and_unknown_words(minibox: Run) -> None:
    done = step(minibox, "look", "shell true", "to pivot_root", "look", "help", "nonsense", "shell exit 3", "go")
    assert done.returncode == 0, done.stderr
    assert "there is no process yet" in done.stdout and "open a shell: there is no process yet" in done.stderr
    assert "effective capabilities: all" in done.stdout and "mount at /tmp: overlay of overlay" in " ".join(
        done.stdout.split()
    )
    assert "quit          end the start" in done.stdout
    assert "unknown command 'nonsense'" in done.stderr and "ended with status 3" in done.stderr


@requires("root")
@pytest.mark.parametrize("place", ["1", "clone", "write_uid_map", "mount_overlay", "pivot_root", "seccomp", "exec"])
@pytest.mark.parametrize("how", ["quit", ""])
def test_an_end_in_the_middle_leaves_nothing(minibox: Run, state: Path, place: str, how: str) -> None:
    """Also the end of the input."""
    commands = [*([f"to {place}"] if place != "1" else []), *([how] if how else [])]
    done = step(minibox, *commands, run=("run", "--network", "none", "--name", "half", "base", "echo", "it runs"))
    assert done.returncode == 0 and "nothing is left of it" in done.stderr, done.stderr
    assert "it runs" not in done.stdout.partition("shell")[2]
    assert minibox("ps", "--all", "--quiet").stdout == "" and list((state / "root/containers").iterdir()) == []


@requires("root")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("place", ["mount_overlay", "pivot_root"])
def test_a_signal_in_the_middle_leaves_nothing(
    minibox: Run, minibox_command: list[str], environment: dict[str, str], state: Path, place: str, number: int
) -> None:
    started = subprocess.Popen(
        [*minibox_command, "explain", "--step", *RUN, "true"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stdin and started.stdout
    started.stdin.write(f"to {place}\n".encode())
    started.stdin.flush()
    seen = b""
    while len(stopped_at(seen.decode())) < 2:
        seen += os.read(started.stdout.fileno(), 1 << 16)
    helpers = [os.pidfd_open(pid) for pid in descendants(started.pid) if pid != started.pid]
    assert len(helpers) >= 2
    started.send_signal(number)
    assert started.wait(60) == (-number if number == signal.SIGKILL else 0)
    for helper in helpers:
        assert wait_readable(helper, 60)
        os.close(helper)
    started.stdin.close()
    started.stdout.close()
    assert minibox("ps", "--all", "--quiet").stdout == "" and list((state / "root/containers").iterdir()) == []


@requires("root")
def test_with_a_network_and_limits(minibox: Run) -> None:
    """The parent's steps stop too."""
    run = ("run", "--rm", "-m", "64m", "--pids-limit", "50", "base", "sh", "-c", "ip -4 addr show dev eth0; exit 5")
    done = step(minibox, "to add_veth", "n", "to set_up", "go", run=run)
    assert done.returncode == 5, done.stderr
    said = " ".join(done.stdout.split())
    assert "host: new cgroup " in said and "init: new link eth0" in said and "init: new address " in said


@requires("root")
def test_a_step_that_fails_has_its_number(minibox: Run) -> None:
    run = ("run", "--rm", "--network", "none", "--workdir", "/etc/passwd", "base", "true")
    plain = minibox(*run)
    done = step(minibox, "go", run=run)
    assert done.returncode == plain.returncode == 125
    assert re.findall(r"step \d+ of \d+", done.stderr) == re.findall(r"step \d+ of \d+", plain.stderr) != []
    assert step(minibox, "go", run=(*RUN, "nosuch")).returncode == 127


@requires_user
def test_an_ordinary_user(minibox_user: Run) -> None:
    done = step(minibox_user, "to pivot_root", "n", "shell cat /proc/self/uid_map", "go")
    assert done.returncode == 0, done.stderr
    assert "is at / now" in done.stdout and done.stdout.endswith("it runs\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--step", "exec", "web", "sh"), "--step needs a run command"),
        (("--step", "--json", "run", "base"), "can't be given with"),
        (("--step", "run", "-d", "base"), "without --detach"),
        (("--step", "run", "--restart", "always", "base"), "without --restart"),
    ],
)
def test_refused(minibox: Run, words: tuple[str, ...], said: str) -> None:
    done = minibox("explain", *words, input="")
    assert done.returncode == 125 and said in done.stderr


@requires("root")
def test_in_a_terminal(terminal: Callable[..., Any]) -> None:
    """With a terminal of the container's own, and a shell with another one."""
    session = terminal(
        "explain", "--step", "run", "--rm", "-it", "--network", "none", "base", "sh", "-c", "tty; exit 4"
    )
    session.expect(r"step 1 of \d+> ")
    session.sendline("to pivot_root")
    session.expect(r"of \d+> ")
    session.sendline("n")
    session.expect(r"of \d+> ")
    session.sendline("shell")
    session.expect("inside")
    session.sendline("tty; echo all $((20+2)); exit")
    session.expect("all 22")
    session.expect(r"of \d+> ")
    session.sendline("go")
    session.expect("/dev/pts/0")
    session.wait()
    assert session.exitstatus == 4
