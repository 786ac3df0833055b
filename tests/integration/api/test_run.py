"""`minibox.run`: as `subprocess.run`, in a container of its own."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import minibox
from tests.container_box import EVER_LONGER_S

pytestmark = pytest.mark.requires("root")


def test_output_is_captured_as_subprocess_does(api: None) -> None:
    done = minibox.run("base", ["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert done.args == ("sh", "-c", "echo out; echo err >&2; exit 3")


def test_text_mode_gives_str_and_newlines(api: None) -> None:
    done = minibox.run("base", ["printf", "a\\r\\nb\\344"], capture_output=True, text=True, errors="replace")
    assert done.stdout == "a\nb\N{REPLACEMENT CHARACTER}"


def test_input_larger_than_a_pipe_comes_back(api: None) -> None:
    data = os.urandom(3 << 20)
    assert minibox.run("base", ["cat"], input=data, capture_output=True).stdout == data


def test_input_that_nobody_reads_is_no_error(api: None) -> None:
    assert minibox.run("base", ["true"], input=bytes(1 << 20)).returncode == 0


def test_streams_that_are_not_given_are_the_callers(environment: dict[str, str]) -> None:
    program = 'import minibox; print(minibox.run("base", ["sh", "-c", "cat; echo err >&2"]))'
    done = subprocess.run(
        [sys.executable, "-c", program], input="in\n", capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.startswith("in\nCompletedRun(") and done.stderr == "err\n"
    assert "stdout=None" in done.stdout


def test_streams_go_to_files(api: None, tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w") as file:
        minibox.run("base", ["sh", "-c", "echo 1; echo 2 >&2"], stdout=file, stderr=minibox.STDOUT)
    assert path.read_text() == "1\n2\n"


def test_return_code_of_a_signal_is_negative(api: None) -> None:
    done = minibox.run("base", ["sh", "-c", "kill -9 $$"], init=True, capture_output=True)
    assert done.returncode == 128 + 9  # of the init, which can't end by a signal
    done = minibox.run("base", ["sh", "-c", "ulimit -t 1; while :; do :; done"], capture_output=True)
    assert done.returncode == -signal.SIGKILL or done.returncode == -signal.SIGXCPU


def test_check_raises_with_all_that_is_known(api: None) -> None:
    with pytest.raises(minibox.CalledProcessError, match="exit status 4") as caught:
        minibox.run("base", ["sh", "-c", "echo why >&2; exit 4"], capture_output=True, text=True, check=True)
    assert (caught.value.returncode, caught.value.stderr) == (4, "why\n")
    assert caught.value.completed.verdict.kind == "exited"


def test_timeout_kills_it_and_keeps_what_it_wrote(api: None) -> None:
    for timeout_s in EVER_LONGER_S:
        with pytest.raises(minibox.TimeoutExpired) as caught:
            minibox.run(
                "base", ["sh", "-c", "echo so far; sleep 600"], capture_output=True, text=True, timeout=timeout_s
            )
        if caught.value.stdout:
            break
    assert caught.value.stdout == "so far\n" and caught.value.timeout == timeout_s


def test_a_time_beyond_what_poll_takes_is_waited_for(api: None) -> None:
    done = minibox.run("base", ["true"], timeout=1e9, wall_time=1e9, cpu_time=1e9)
    assert done.verdict.kind == "exited"
    with minibox.Sandbox("base", ["true"]) as box:
        assert box.wait(timeout=1e9) == 0


def test_a_missing_command_is_an_error_of_its_own(api: None) -> None:
    with pytest.raises(minibox.CommandNotFound, match="nope"):
        minibox.run("base", ["nope"])


def test_a_text_is_no_command(api: None) -> None:
    with pytest.raises(TypeError, match="list of words"):
        minibox.run("base", "echo hi")


def test_unknown_options_are_refused(api: None) -> None:
    with pytest.raises(TypeError, match="'memroy'"):
        minibox.run("base", ["true"], memroy="64m")  # type: ignore[call-overload]


def test_options_mean_what_they_do_on_the_command_line(api: None, tmp_path: Path) -> None:
    (tmp_path / "a,b:c").mkdir()
    (tmp_path / "a,b:c" / "file").write_text("content\n")
    script = "cat /m/file; echo $X; pwd; id -u; hostname; touch /m/new /root/new; ls /sys/class/net"
    done = minibox.run(
        "base", ["sh", "-c", script], capture_output=True, text=True, env={"X": "a=b"}, cwd="/tmp", user=7,
        hostname="here", mounts=[(tmp_path / "a,b:c", "/m", "ro")], read_only=True,
    )  # fmt: skip
    assert done.stdout.split() == ["content", "a=b", "/tmp", "7", "here", "lo"]
    assert done.stderr.count("touch: /") == 2


def test_usage_and_verdict_tell_of_it(api: None) -> None:
    done = minibox.run("base", ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"], memory="32m")
    assert done.usage.wall_s > 0 and done.usage.cpu_s
    assert done.verdict.kind == "exited" and done.verdict.status == 0


def test_a_memory_limit_is_named(api: None) -> None:
    hog = ["awk", 'BEGIN { x = "x"; while (1) x = x x }']
    done = minibox.run("base", hog, memory="16m", capture_output=True)
    assert done.returncode == -signal.SIGKILL and done.verdict.kind == "out-of-memory"


def test_it_dies_with_its_program(environment: dict[str, str], request: pytest.FixtureRequest) -> None:
    command = request.getfixturevalue("minibox")
    program = 'import minibox; minibox.run("base", ["sh", "-c", "echo runs; sleep 600"])'
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout and parent.stdout.readline() == b"runs\n"
        parent.kill()
        assert parent.stdout.read() == b""  # nobody has it open any more
    assert command("ps", "-aq").stdout == ""  # and the next command collects what it left


def test_a_word_or_a_value_must_be_a_string_or_a_path(api: None) -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="word 1 of the command must be a string or a path, not 3"):
        minibox.run("base", ["sleep", wrong])
    with pytest.raises(TypeError, match="the value of environment variable A must be a string or a path, not 3"):
        minibox.run("base", ["true"], env={"A": wrong})
    with pytest.raises(TypeError):
        minibox.run("base", ["cat"], input=wrong)
    assert minibox.run("base", [Path("/bin/echo"), Path("/x")], capture_output=True).stdout == b"/x\n"


def test_errors_go_to_another_process_by_pickle(api: None) -> None:
    with pytest.raises(minibox.CalledProcessError, match="exit status 3: no such thing$") as called:
        minibox.run("base", ["sh", "-c", "echo no such thing >&2; exit 3"], check=True, capture_output=True, text=True)
    copy = pickle.loads(pickle.dumps(called.value))
    assert str(copy) == str(called.value) and (copy.returncode, copy.stderr) == (3, "no such thing\n")
    assert copy.completed == called.value.completed and copy.cmd[0] == "sh" and copy.output == ""
    with pytest.raises(minibox.TimeoutExpired) as expired:
        minibox.run("base", ["sleep", "9"], timeout=0.01, capture_output=True)
    late = pickle.loads(pickle.dumps(expired.value))
    assert (late.cmd, late.timeout, late.output) == (("sleep", "9"), 0.01, b"")
    hinted = pickle.loads(pickle.dumps(minibox.UsageError("what", "hint")))
    assert (str(hinted), hinted.hint) == ("what", "hint")


def test_what_it_was_is_told_in_a_line(api: None) -> None:
    done = minibox.run("base", ["echo", "x"], capture_output=True, text=True)
    assert repr(done) == (
        "CompletedRun(args=('echo', 'x'), returncode=0, stdout='x\\n', stderr='', "
        "verdict='it ended by itself, with exit status 0: success')"
    )


@pytest.mark.parametrize("option", ["root", "runroot"])
def test_a_place_that_others_could_change_is_refused(option: str, api: None, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    place: Any = {option: tmp_path}
    with pytest.raises(minibox.MiniboxError, match=f"use the directory {tmp_path}: others may write to it"):
        minibox.run("base", ["true"], **place)
    assert list(tmp_path.iterdir()) == []
