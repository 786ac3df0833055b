"""A command in a container that runs: it joins all that keeps the container apart."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.container_box import Box
from tests.probes import requires
from tests.running_container import running

pexpect = pytest.importorskip("pexpect")

pytestmark = requires("root")


def test_status_streams_and_input(any_box: Box) -> None:
    any_box.start("web", "exec sleep 100")
    done = any_box("exec", "-i", "web", "sh", "-c", "cat; echo err >&2; exit 7", input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "err\n")
    assert any_box("exec", "web", "sh", "-c", "kill -SEGV $$").returncode == 128 + signal.SIGSEGV
    assert any_box.ok("exec", "web", "cat", input="not for it") == ""


@pytest.mark.parametrize("status, command, why", [(127, "nosuch", "no such command"), (126, "/etc/passwd", "execute"),
                                                  (126, "/etc", "directory")])  # fmt: skip
def test_a_command_that_can_not_be(status: int, command: str, why: str, any_box: Box) -> None:
    any_box.start("web", "exec sleep 100")
    assert why in any_box.refused("exec", "web", command, status=status)


@pytest.mark.kernel
def test_it_is_as_the_containers_own(any_box: Box) -> None:
    """Each namespace, capability, filter, limit and id is the same as that of its first process."""
    limits = (
        ("--memory", "64m")
        if any_box("run", "--rm", "--network", "none", "-m64m", "base", "true").returncode == 0
        else ()
    )
    any_box.start("web", "exec sleep 100", "--ulimit", "nofile=123", "--cap-drop", "CHOWN", *limits)
    script = (
        "for each in user mnt uts ipc pid net cgroup; do readlink /proc/$1/ns/$each; done;"
        "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/$1/status;"
        "cat /proc/$1/cgroup /proc/$1/limits /proc/$1/oom_score_adj"
    )
    first = any_box.ok("exec", "web", "sh", "-c", script, "sh", "1")
    assert any_box.ok("exec", "web", "sh", "-c", f"{script}", "sh", "self").replace("self", "1") == first
    assert "Seccomp:\t2" in first and "123 " in first


def test_nothing_of_the_hosts_is_open(any_box: Box) -> None:
    any_box.start("web", "exec sleep 100")
    with open("/etc/passwd") as held:
        os.set_inheritable(held.fileno(), True)
        seen = any_box.ok(
            "exec",
            "web",
            "sh",
            "-c",
            "for each in /proc/$$/fd/*; do readlink $each; done; true",
            pass_fds=[held.fileno()],
        )
    assert len(seen.split()) == 3 and "passwd" not in seen


def test_options(any_box: Box) -> None:
    any_box.start("web", "exec sleep 100", "-e", "KEPT=1", "-w", "/tmp")
    file = any_box.directory / "env"
    file.write_text("FROM_FILE=2\n")
    file.chmod(0o644)
    words = ("-u", "www-data", "-e", "GIVEN=3", "-e", "PASSED", "--env-file", str(file), "-w", "/usr")
    script = "id -un; pwd; echo $KEPT$FROM_FILE$GIVEN$PASSED $HOME"
    seen = any_box.ok("exec", *words, "web", "sh", "-c", script, env={"PASSED": "4"}).splitlines()
    assert seen == ["www-data", "/usr", "1234 /srv"]
    assert any_box.ok("exec", "web", "pwd") == "/tmp"
    assert "user" in any_box.refused("exec", "-u", "nosuch", "web", "true")


@pytest.mark.parametrize(
    ("of_run", "of_exec", "home"),
    [
        ((), (), "/root"),
        ((), ("-e", "HOME="), "/root"),
        ((), ("-u", "www-data"), "/srv"),
        ((), ("-u", "www-data", "-e", "HOME="), "/srv"),
        ((), ("-u", "4321"), "/"),
        (("-e", "HOME=/own"), ("-u", "www-data"), "/own"),
        (("-e", "HOME=", "-u", "www-data"), (), "/srv"),
    ],
)
def test_home(box: Box, of_run: tuple[str, ...], of_exec: tuple[str, ...], home: str) -> None:
    """As Docker has it: of who runs, unless somebody says it."""
    box.start("web", "echo $HOME; exec sleep 100", *of_run)
    assert box.ok("exec", *of_exec, "web", "sh", "-c", "echo $HOME") == home


def test_privileged(box: Box) -> None:
    box.start("web", "exec sleep 100")
    caps = "grep -E '^CapEff|^Seccomp:' /proc/self/status"
    plain, privileged = (box.ok("exec", *words, "web", "sh", "-c", caps) for words in ((), ("--privileged",)))
    assert int(privileged.split()[1], 16) > int(plain.split()[1], 16)
    assert plain.endswith("2") and privileged.endswith("0")


def test_detached_it_goes_on_and_holds_nobody_up(box: Box) -> None:
    box.start("web", "exec sleep 100")
    for words in (("-d",), ("-dt",), ("-dit",)):
        assert box.ok("exec", *words, "web", "sh", "-c", "echo seen; sleep 0.3; echo x >>/done; sleep 5") == ""
    box.until(lambda: box("exec", "web", "cat", "/done").stdout == "x\n" * 3)


def test_it_ends_with_its_container(box: Box) -> None:
    box.start("web", "until [ -e /go ]; do sleep 0.05; done; exit 4")
    assert box("exec", "web", "sh", "-c", "touch /go; exec sleep 100").returncode == 137


def test_it_ends_with_its_minibox(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    box.start("web", "exec sleep 100")
    with subprocess.Popen([*minibox_command, "exec", "web", "sleep", "4711"], env=environment) as started:
        box.until(lambda: "sleep 4711" in box.ok("top", "web"))
        started.kill()
    box.until(lambda: "sleep 4711" not in box.ok("top", "web"))


def test_signals_are_passed_on(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    box.start("web", "exec sleep 100")
    words = ["exec", "web", "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"]
    with subprocess.Popen([*minibox_command, *words], env=environment, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout and started.stdout.readline() == "ready\n"
        started.terminate()
        assert started.wait(10) == 9


def test_in_a_container_of_a_foreground_run(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    with running(minibox_command, environment, "--network", "none", "--name", "lab"):
        assert box.ok("exec", "lab", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline").startswith("sh -c echo ready")
        assert "foreground of another command" in box.refused("attach", "lab")


@pytest.mark.kernel
def test_a_memory_limit_counts_for_it_too(box: Box) -> None:
    if box("run", "--rm", "--network", "none", "-m64m", "base", "true").returncode:
        pytest.skip("no memory limits here")

    def eat(size: str) -> int:
        """Tail keeps all that comes until the end of the one line; its exit status."""
        status: int = box("exec", "web", "sh", "-c", f"head -c {size} /dev/zero | tail >/dev/null").returncode
        return status

    box.start("web", "exec sleep 100", "-m", "16m")
    assert eat("2m") == 0
    assert eat("40m") == 128 + signal.SIGKILL
    assert box.state("web")["Status"] == "running" and box.ok("exec", "web", "echo", "alive") == "alive"


def test_a_terminal(terminal, box: Box) -> None:
    box.start("web", "exec sleep 100")
    shell = terminal("exec", "-it", "web", "sh", size=(30, 100))
    shell.expect("# ")
    shell.sendline("stty size; tty; test -w $(tty) && echo 'is 'mine")
    shell.expect_exact("30 100")
    shell.expect("/dev/pts/0")
    shell.expect_exact("is mine")
    shell.setwinsize(50, 90)
    shell.sendline("until [ \"$(stty size)\" = '50 90' ]; do sleep 0.05; done; echo 're'sized")
    shell.expect_exact("resized")
    shell.sendline("exit 3")
    shell.expect(pexpect.EOF)
    shell.wait()
    assert shell.exitstatus == 3


@pytest.mark.parametrize("keys, typed", [((), "\x10\x11"), (("--detach-keys", "ctrl-x"), "\x18")])
def test_detaching_leaves_it_running(keys, typed, terminal, box: Box) -> None:
    box.start("web", "exec sleep 100")
    shell = terminal("exec", "-it", *keys, "web", "sh", "-c",
                     "echo ready; until [ -e /go ]; do sleep 0.05; done; "
                     "head -c 200000 /dev/zero | tr '\\0' x; echo x >/done; exec sleep 99")  # fmt: skip
    shell.expect("ready")
    shell.send(typed)
    shell.expect(pexpect.EOF)
    shell.wait()
    assert shell.exitstatus == 0
    box.ok("exec", "web", "touch", "/go")
    box.until(lambda: box("exec", "web", "test", "-e", "/done").returncode == 0)
    assert "sleep 99" in box.ok("top", "web")


def test_it_without_a_terminal_is_refused(box: Box) -> None:
    box.start("web", "exec sleep 100")
    assert "not a terminal" in box.refused("exec", "-it", "web", "sh")
    box.refused("exec", "web")


@pytest.mark.parametrize("count", [3, 20])
def test_a_container_with_a_large_environment_is_entered(box: Box, count: int) -> None:
    values = [f"V{number}={'x' * 60_000}" for number in range(count)]
    options = [word for value in values for word in ("-e", value)]
    box.start("large", "echo up; exec sleep 1000", *options)
    box.until_logged("large", "up")
    assert box.ok("exec", "large", "sh", "-c", f'printf %s "$V{count - 1}" | wc -c') == "60000"
    assert box.ok("exec", "-e", "V0=small", "large", "sh", "-c", "echo $V0") == "small"
