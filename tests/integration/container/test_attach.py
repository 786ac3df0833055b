"""Attached to a detached container, through a real terminal and without one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.container_box import Box
from tests.probes import requires

pexpect = pytest.importorskip("pexpect")

pytestmark = requires("root")

DETACH = "\x10\x11"
Terminal = Callable[..., Any]


def end(child: Any) -> int:
    """Its exit status."""
    child.expect(pexpect.EOF)
    child.wait()  # close() gives it half a second
    return int(child.exitstatus)


def run(box: Box, *words: str) -> str:
    return box.ok("run", "-d", "--network", "none", "--name", "web", *words)


def test_a_shell_that_is_left_and_come_back_to(terminal: Terminal, box: Box) -> None:
    run(box, "-it", "base", "sh")
    shell = terminal("attach", "web")
    shell.sendline("here=before; echo 'o'ne")
    shell.expect("one\r\n")
    shell.send(DETACH)
    assert end(shell) == 0
    assert box.state("web")["Status"] == "running"
    shell = terminal("attach", "web")
    shell.sendline("echo $here 'a'gain")
    shell.expect("before again\r\n")
    shell.sendline("exit 5")
    assert end(shell) == 5
    assert box.ok("wait", "web") == "5"
    assert "before again" in box.ok("logs", "web")


@pytest.mark.parametrize("keys, typed", [("ctrl-x,q", "\x18q"), ("ctrl-]", "\x1d")])
def test_other_keys(keys: str, typed: str, terminal: Terminal, box: Box) -> None:
    run(box, "-it", "base", "cat")
    attached = terminal("attach", "--detach-keys", keys, "web")
    attached.send(f"{DETACH}x\r")
    attached.expect("x\r\nx|x")  # those of the default are the container's
    attached.send(typed)
    assert end(attached) == 0
    assert box.state("web")["Status"] == "running"
    assert "is not a key" in box.refused("attach", "--detach-keys", "ctrl-", "web")


def test_the_size_follows(terminal: Terminal, box: Box) -> None:
    run(box, "-it", "base", "sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done")
    box.until_logged("web", "ready")
    attached = terminal("attach", "web", size=(30, 100))
    attached.expect_exact("30 100")
    attached.setwinsize(40, 120)
    attached.expect_exact("40 120")
    attached.send(DETACH)
    assert end(attached) == 0
    again = terminal("attach", "web", size=(40, 120))  # the same size: it is told to draw all the same
    again.expect_exact("40 120")


def test_two_see_and_type(terminal: Terminal, box: Box) -> None:
    run(box, "-it", "base", "cat")
    one, two = terminal("attach", "web"), terminal("attach", "web")
    for each in (one, two):
        each.sendline("x")
        each.expect("x\r\nx")  # it is attached
    one.sendline("from one")
    two.expect(r"(?s)from one.*from one")
    two.sendline("from two")
    one.expect(r"(?s)from two.*from two")
    two.send(DETACH)
    assert end(two) == 0
    one.sendline("still here")
    one.expect("still here\r\nstill here")
    one.send("\x04")
    assert end(one) == 0


def test_a_closed_window_leaves_it_running(terminal: Terminal, box: Box) -> None:
    run(box, "-it", "base", "cat")
    attached = terminal("attach", "web")
    attached.sendline("x")
    attached.expect("x\r\nx")
    attached.ptyproc.fileobj.close()
    attached.wait()
    assert box.state("web")["Status"] == "running"
    again = terminal("attach", "web")
    again.sendline("y")
    again.expect("y\r\ny")


def test_a_killed_client_leaves_it_running(terminal: Terminal, box: Box) -> None:
    run(box, "-it", "base", "cat")
    attached = terminal("attach", "web")
    attached.sendline("x")
    attached.expect("x\r\nx")
    attached.kill(9)
    assert box.ok("exec", "web", "true") == ""


def test_the_terminal_is_as_before(terminal: Terminal, box: Box) -> None:
    run(box, "-it", "base", "cat")
    attached = terminal("attach", "web")
    attached.sendline("x")
    attached.expect("x\r\nx")
    assert not attached.getecho()
    attached.send(DETACH)
    attached.expect("attaches again")
    assert end(attached) == 0


def test_run_and_detach(terminal: Terminal, box: Box) -> None:
    """With a policy there is a supervisor, so that the keys work."""
    shell = terminal("run", "-it", "--restart", "unless-stopped", "--network", "none", "--name", "web", "base", "sh",
                     size=(33, 99))  # fmt: skip
    shell.sendline("stty size")
    shell.expect_exact("33 99")
    shell.send(DETACH)
    assert end(shell) == 0
    assert box.state("web")["Status"] == "running"


def test_start_attached(terminal: Terminal, box: Box) -> None:
    box.ok("create", "-it", "--network", "none", "--name", "web", "base", "sh", "-c", "echo first; read x; exit $x")
    started = terminal("start", "-ai", "web")
    started.expect("first\r\n")
    started.sendline("8")
    assert end(started) == 8
    box.ok("create", "--network", "none", "--name", "plain", "base", "sh", "-c", "echo out; echo err >&2; exit 4")
    done = box("start", "-a", "plain")
    assert (done.returncode, done.stdout, done.stderr) == (4, "out\n", "err\n")
    assert "multiple" in box.refused("start", "-a", "web", "plain")


def test_start_attached_shows_all_that_one_writes_that_ends_at_once(box: Box) -> None:
    box.ok("create", "--network", "none", "--name", "web", "base", "sh", "-c", "seq 2000; seq 2000 >&2")
    expected = "".join(f"{number}\n" for number in range(1, 2001))
    for _ in range(5):
        done = box("start", "-a", "web")
        assert (done.stdout, done.stderr) == (expected, expected)


def test_input_through_a_pipe(box: Box) -> None:
    run(box, "-i", "base", "sh", "-c", "read a; read b; echo got $a $b; exit 2")
    done = box("attach", "web", input="one\ntwo\n")
    assert (done.returncode, done.stdout) == (2, "got one two\n")


@pytest.mark.parametrize("proxied", [True, False])
def test_signals(proxied: bool, box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    script = "trap 'echo caught; exit 3' TERM; while :; do echo tick; sleep 0.05; done"
    run(box, "base", "sh", "-c", script)
    words = [*minibox_command, "attach", f"--sig-proxy={str(proxied).lower()}", "web"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as attached:
        assert attached.stdout and attached.stdout.readline() == "tick\n"
        attached.terminate()
        rest = attached.stdout.read()
        assert attached.wait(10) == (3 if proxied else 143)
    assert ("caught" in rest) == proxied
    assert (box.state("web")["Status"] == "running") != proxied


def test_a_reader_that_leaves_is_no_harm(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    run(box, "base", "sh", "-c", "while :; do echo tick; sleep 0.01; done")
    with subprocess.Popen([*minibox_command, "attach", "web"], env=environment, stdout=subprocess.PIPE) as attached:
        assert attached.stdout and attached.stdout.readline() == b"tick\n"
        attached.stdout.close()
        assert attached.wait(10) == 141
    assert box.state("web")["Status"] == "running"


def test_its_supervisor_is_killed_meanwhile(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    run(box, "base", "sh", "-c", "while :; do echo tick; sleep 0.05; done")
    with subprocess.Popen(
        [*minibox_command, "attach", "web"], env=environment, stdout=subprocess.PIPE, text=True
    ) as attached:
        assert attached.stdout and attached.stdout.readline() == "tick\n"
        os.kill(box.live("web")[1], 9)
        attached.stdout.read()
        assert attached.wait(10) == 137
    assert box.state("web")["Status"] == "exited"


def test_its_container_is_removed_meanwhile(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    run(box, "base", "sh", "-c", "while :; do echo tick; sleep 0.05; done")
    with subprocess.Popen(
        [*minibox_command, "attach", "web"], env=environment, stdout=subprocess.PIPE, text=True
    ) as attached:
        assert attached.stdout and attached.stdout.readline() == "tick\n"
        box.ok("rm", "-f", "web")
        attached.stdout.read()
        assert attached.wait(10) == 137
