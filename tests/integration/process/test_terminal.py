"""A terminal inside: what a user types and sees, played by a pseudo-terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import termios
import time

import pytest

from tests.leaks import SLOWNESS
from tests.probes import requires_root

pexpect = pytest.importorskip("pexpect")
pyte = pytest.importorskip("pyte")

pytestmark = requires_root

RUN = ("run", "--rm", "--network", "none")
PROMPT = r"(?:/[a-z/]*|~) # "


@pytest.fixture
def terminal(terminal):
    """``terminal("-it", "base", "sh")``: the run in a terminal of its own."""
    return lambda *words, **size: terminal(*RUN, *words, **size)


@pytest.fixture
def shell(terminal):
    """A shell in a container, at its prompt."""
    child = terminal("-it", "base", "sh")
    child.expect(PROMPT)
    return child


def _ask(child, command):
    """What a command prints."""
    child.sendline(f"{command}; echo 'e'nd")
    child.expect(r"\r\n((?:.*\r\n)?)end\r\n")
    answer = child.match.group(1).strip()
    child.expect(PROMPT)
    return answer


def _begin(child, script):
    """Run a shell script as the job in the foreground, which it is once it writes."""
    child.sendline(f"sh -c 'echo b\"egu\"n; {script}'")
    child.expect("begun\r\n")


def _end(child):
    child.expect(pexpect.EOF)
    child.wait() if child.isalive() else None
    return child.exitstatus


def test_a_shell_its_prompt_and_its_status(shell):
    assert _ask(shell, "echo h''i") == "hi"
    shell.sendline("exit 7")
    assert _end(shell) == 7


def test_ctrl_d_ends_the_shell(shell):
    shell.send("\x04")
    assert _end(shell) == 0


def test_the_terminal_is_of_the_containers_own_devpts(shell):
    assert _ask(shell, "tty") == "/dev/pts/0"
    assert _ask(shell, "ls -l /dev/console | cut -c1") == "c"
    assert _ask(shell, "ls /dev/pts").split() == ["0", "ptmx"]
    assert _ask(shell, "echo to the con''sole >/dev/console") == "to the console"
    assert _ask(shell, "stat -c %u /dev/pts/0") == "0"


def test_the_terminal_belongs_to_the_user(terminal):
    child = terminal("-it", "-u", "1000", "base", "sh", "-c", "stat -c %u $(tty); echo x >/dev/tty && echo written")
    child.expect("1000\r\nx\r\nwritten")
    assert _end(child) == 0


@pytest.mark.parametrize("init", [(), ("--init",)], ids=["", "init"])
def test_ctrl_c_interrupts_the_command_and_not_the_shell(terminal, init):
    child = terminal("-it", *init, "base", "sh")
    child.expect(PROMPT)
    _begin(child, "exec sleep 100")
    child.send("\x03")
    child.expect(PROMPT)
    assert _ask(child, "echo still here $((1+1))") == "still here 2"


@pytest.mark.parametrize("init", [(), ("--init",)], ids=["", "init"])
def test_ctrl_z_stops_and_fg_goes_on(terminal, init):
    child = terminal("-it", *init, "base", "sh")
    child.expect(PROMPT)
    _begin(child, "until [ -e /tmp/go ]; do sleep 0.1; done")
    child.send("\x1a")
    child.expect("Stopped")
    child.expect(PROMPT)
    child.sendline("jobs")
    child.expect("Stopped +sh -c")
    child.expect(PROMPT)
    for word in ("bg", "touch /tmp/go", "fg"):
        child.sendline(word)
        child.expect(PROMPT)
    _begin(child, "exec sleep 100")
    child.send("\x1a")
    child.expect("Stopped")
    child.expect(PROMPT)
    child.sendline("fg")
    child.expect("sleep 100")
    time.sleep(0.1)  # as a user does; the shell's own ^C would lead to a prompt, too
    child.send("\x03")
    child.expect(PROMPT)


def test_the_size_is_the_users_from_the_start(terminal):
    child = terminal("-it", "base", "stty", "size", size=(33, 101))
    child.expect("33 101")
    assert _end(child) == 0


def test_a_resize_reaches_the_container(shell):
    shell.sendline("trap 'echo resi''zed' WINCH")
    shell.expect(PROMPT)
    shell.setwinsize(40, 120)
    os.kill(
        shell.pid, signal.SIGWINCH
    )  # the kernel's own goes to the terminal's foreground group: pexpect has us in it
    for _ in range(50):
        if _ask(shell, "stty size").endswith("40 120"):
            break
        time.sleep(0.05)
    assert _ask(shell, "stty size").endswith("40 120")


def test_vi_edits_a_file(shell):
    shell.sendline("vi /tmp/file")
    shell.expect("/tmp/file")
    shell.send("ihello from vi\x1b")
    shell.expect(r"- /tmp/file \[Modified\]")  # Escape and what follows at once is a key of its own to it
    shell.send(":wq\r")
    shell.expect(PROMPT)
    assert _ask(shell, "cat /tmp/file") == "hello from vi"


def test_top_draws_a_screen_and_quits(terminal):
    child = terminal("-it", "base", "top", "-d", "1")
    screen = pyte.Screen(80, 24)
    stream = pyte.Stream(screen)
    deadline = time.monotonic() + 30 * SLOWNESS
    while time.monotonic() < deadline and not re.search(r" 1 +0 .*top", "\n".join(screen.display)):
        try:
            stream.feed(child.read_nonblocking(4096, timeout=0.2))
        except pexpect.TIMEOUT:
            continue
    assert screen.display[0].startswith("Mem:")
    assert re.search(r"PID +PPID", "\n".join(screen.display))
    child.send("q")
    assert _end(child) == 0


def test_all_bytes_of_a_terminal_pass(terminal):
    child = terminal("-it", "base", "sh", "-c", "stty raw -echo; echo ready; head -c 32 | od -An -tx1; stty sane")
    child.expect("ready")
    child.send("".join(map(chr, range(32))))
    digits = "".join(f" {number:02x}" for number in range(32))
    child.expect(digits[:48])
    child.expect(digits[48:])
    assert _end(child) == 0


def test_much_output_arrives_whole(terminal):
    child = terminal("-it", "base", "seq", "1", "20000")
    text = child.read()
    assert text == "".join(f"{number}\r\n" for number in range(1, 20001))
    assert _end(child) == 0


def test_term_is_set(shell):
    assert _ask(shell, "echo $TERM") == "xterm"


@pytest.mark.parametrize("end", ["exit", "TERM", "KILL-inside", "not-found"])
def test_the_users_terminal_is_as_before(minibox_command, environment, minibox, end):
    """A shell of the user's, with its terminal's settings before and after."""
    master, slave = os.openpty()
    try:
        before = termios.tcgetattr(slave)
        catch = "trap 'echo caught' TERM; echo set; while :; do sleep 0.05; done"
        command = {"exit": "exit 3", "TERM": catch, "KILL-inside": "kill -KILL -1; exit 4"}.get(end)
        words = ["sh", "-c", f"echo ready; {command}"] if command else ["no-such-thing"]
        process = subprocess.Popen(
            [*minibox_command, *RUN, "-it", "base", *words], env=environment, stdin=slave, stdout=slave, stderr=slave
        )
        said = b""
        while b"ready" not in said and b"no such command" not in said:
            said += os.read(master, 1000)
        if end == "TERM":
            assert termios.tcgetattr(slave) != before, "raw while the container has it"
            for count in range(3):
                while b"set" not in said or said.count(b"caught") < count:  # two that wait would be one
                    said += os.read(master, 1000)
                process.terminate()
        status = process.wait(60 * SLOWNESS)
        assert status == {"exit": 3, "TERM": 137, "KILL-inside": 4, "not-found": 127}[end]
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_a_hang_up_ends_the_container(terminal):
    """The user closes the window: SIGHUP is passed on, and who ignores it is killed when time is up."""
    child = terminal("-it", "--stop-timeout", "1", "base", "sh")
    child.expect(PROMPT)
    child.ptyproc.fileobj.close()
    deadline = time.monotonic() + 30 * SLOWNESS
    while child.ptyproc.isalive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.ptyproc.isalive()
    child.closed = child.ptyproc.closed = True


def test_t_without_i_shows_output_and_takes_no_input(terminal):
    child = terminal("-t", "base", "sh", "-c", "tty; echo done")
    child.expect("/dev/pts/0\r\ndone\r\n")
    assert _end(child) == 0


def test_t_without_i_and_without_a_terminal(minibox):
    done = minibox(*RUN, "-t", "base", "sh", "-c", "tty; stty size", text=False)
    assert (done.returncode, done.stdout) == (0, b"/dev/pts/0\r\n24 80\r\n")


def test_it_without_a_terminal_is_refused(minibox):
    done = minibox(*RUN, "-it", "base", "sh")
    assert done.returncode == 125
    assert done.stderr == (
        "minibox: the input device is not a terminal\nhint: leave out -t, or run it in a terminal\n"
    )  # fmt: skip


def test_without_t_there_is_no_terminal(terminal):
    child = terminal("-i", "base", "sh", "-c", "tty; echo end")
    child.expect("not a tty\r\nend")
    assert _end(child) == 0


def test_ctrl_c_without_t_reaches_the_command_once(terminal):
    script = "trap 'echo caught; c=1' INT; echo ready; until [ $c ]; do sleep 0.1; done; sleep 0.5; echo end"
    child = terminal("base", "sh", "-c", script)
    child.expect("ready")
    child.send("\x03")
    child.expect("caught")
    child.expect("end")
    assert "caught" not in child.before
    assert _end(child) == 0


def test_the_shell_command(minibox, minibox_command, environment):
    argv = [*minibox_command, "shell", "--network", "none", "base"]
    child = pexpect.spawn(argv[0], argv[1:], env=environment, timeout=30 * SLOWNESS, encoding="utf-8")
    child.expect(PROMPT)
    child.sendline("exit 5")
    assert _end(child) == 5
