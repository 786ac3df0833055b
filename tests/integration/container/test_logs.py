"""`minibox logs`: both streams, times, tails, and whoever follows loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from minibox.engine.state.log_file import log_path
from tests.container_box import Box
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")
STREAMS = ("stdout", "stderr")
WAIT_S = 60 * SLOWNESS


def log_of(box: Box, name: str) -> Path:
    return box.directory / "root/containers" / str(box.state(name)["Id"]) / "log"


def test_streams_and_tails(any_box: Box) -> None:
    any_box.start("web", "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.02; done; printf last")
    any_box.ok("wait", "web")
    done = any_box("logs", "web")
    assert (done.stdout, done.stderr) == ("out 1\nout 2\nout 3\nlast", "err 1\nerr 2\nerr 3\n")
    kept = [json.loads(line) for line in log_of(any_box, "web").read_text().splitlines()]
    last = {stream: "".join(entry["log"] for entry in kept[-3:] if entry["stream"] == stream) for stream in STREAMS}
    done = any_box("logs", "-n", "3", "web")
    assert {"stdout": done.stdout, "stderr": done.stderr} == last  # the streams' order is that in which they were read
    assert any_box("logs", "--tail", "0", "web").stdout == ""
    assert any_box("logs", "--tail", "all", "web").stdout == any_box("logs", "--tail", "-1", "web").stdout
    first = any_box("logs", "-t", "web").stdout.splitlines()[0]
    stamp, _, text = first.partition(" ")
    assert text == "out 1" and len(stamp) == len("2026-01-01T00:00:00.000000000Z")


def test_bounds_in_time(box: Box) -> None:
    box.start("web", "echo early; until [ -e /go ]; do sleep 0.02; done; echo late")
    box.until_logged("web", "early")
    box.tell("web")
    box.ok("wait", "web")
    first, last = (line.split()[0] for line in box.ok("logs", "-t", "web").splitlines())
    seconds = str(int(time.time()) - 3600)
    for words, expected in (
        (("--since", last), "late"),
        (("--until", first), "early"),
        (("--since", seconds), "early\nlate"),
        (("--until", seconds), ""),
        (("--since", "1h"), "early\nlate"),
        (("--until", "1h30m"), ""),
        (("--since", "2020-01-02"), "early\nlate"),
        (("--until", "2020-01-02T03:04:05+02:00"), ""),
    ):
        assert box.ok("logs", *words, "web") == expected, words
    for words in (("--since", "yesterday"), ("--until", "25:00"), ("--tail", "few")):
        assert "invalid" in box.refused("logs", *words, "web")


def test_following_across_rotations_loses_no_line(
    box: Box, minibox_command: list[str], environment: dict[str, str]
) -> None:
    """Nobody can follow what is rotated away faster than he reads: each hundred lines wait for the last to be read."""
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); [ $((i % 100)) != 0 ] || read -t 60 word || exit 9; done </more"
    more = box.directory / "more"
    os.mkfifo(more)
    options = ("--log-opt", "max-size=20k", "--log-opt", "max-file=3", "-v", f"{more}:/more")
    box.start("web", script, *options)
    lines = []
    with (
        subprocess.Popen(
            [*minibox_command, "logs", "-f", "web"], env=environment, stdout=subprocess.PIPE, text=True
        ) as following,
        open(more, "w", buffering=1) as told,
    ):
        assert following.stdout
        for line in following.stdout:
            lines.append(line.strip())
            if len(lines) % 100 == 0:
                told.write("more\n")
        assert following.wait(20 * SLOWNESS) == 0
    assert lines == [f"line {number}" for number in range(3000)]
    log = log_of(box, "web")
    assert all(path.stat().st_size <= 20 * 1024 for path in (log, log.with_name("log.1"), log.with_name("log.2")))
    assert not log.with_name("log.3").exists()
    rest = box.ok("logs", "web").splitlines()
    assert 0 < len(rest) < 3000 and rest == lines[-len(rest) :]


def test_following_goes_on_over_restarts_of_a_policy(box: Box) -> None:
    box.start("web", "echo try; sleep 0.2; exit 1", "--restart", "on-failure:2")
    assert box.ok("logs", "-f", "web") == "try\ntry\ntry"


def test_following_ends_when_it_is_removed(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    box.start("web", "echo ready; exec sleep 100")
    with subprocess.Popen(
        [*minibox_command, "logs", "-f", "web"], env=environment, stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout and following.stdout.readline() == "ready\n"
        box.ok("rm", "-f", "web")
        assert following.wait(20 * SLOWNESS) == 0


def test_a_prompt_is_seen_before_its_line_ends(
    box: Box, minibox_command: list[str], environment: dict[str, str]
) -> None:
    """Docker shows it when the line has ended."""
    box.start("web", "printf 'name: '; while [ ! -e /go ]; do sleep 0.01; done; echo done; sleep 600")
    with subprocess.Popen(
        [*minibox_command, "logs", "-f", "web"], env=environment, stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout and following.stdout.read(6) == "name: "
        box.tell("web")
        assert following.stdout.readline() == "done\n"
        box.ok("rm", "-f", "web")


def test_a_line_that_is_written_at_all_the_time_is_seen_before_it_ends(box: Box) -> None:
    """A dot each hundredth of a second, for three seconds, by a shell that starts nothing meanwhile."""
    tick = "read now rest </proc/uptime; [ $now = $last ] || printf .; last=$now"
    cid = box.start("web", f"read last rest </proc/uptime; end=$((${{last%.*}} + 3)); printf ready\n"
              f"while {tick}; [ ${{now%.*}} -lt $end ]; do :; done; echo done")  # fmt: skip
    box.ok("wait", "web")
    log = Path(log_path(str(box.directory / "root"), cid)).read_text()
    first, *_, last = [json.loads(line)["log"] for line in log.splitlines()]
    assert first.startswith("ready.") and not first.endswith("\n")
    assert last.endswith("done\n")


def test_a_terminals_output(box: Box) -> None:
    box.start("web", "echo out; echo err >&2", "-t")
    box.ok("wait", "web")
    done = box("logs", "web", text=False)
    assert (done.stdout, done.stderr) == (b"out\r\nerr\r\n", b"")


def test_the_file_is_as_log_shippers_know_it(box: Box) -> None:
    box.start("web", "echo '\"quoted\"'; echo err >&2")
    box.ok("wait", "web")
    entries = [json.loads(line) for line in log_of(box, "web").read_text().splitlines()]
    assert sorted((entry["stream"], entry["log"]) for entry in entries) == [
        ("stderr", "err\n"),
        ("stdout", '"quoted"\n'),
    ]
    assert all(set(entry) == {"log", "stream", "time"} for entry in entries)


def test_where_there_is_none(box: Box) -> None:
    box.ok("create", "--network", "none", "--name", "new", "base", "true")
    done = box("logs", "new")
    assert (done.returncode, done.stdout) == (0, "") and "never started" in done.stderr
    box.ok("run", "--network", "none", "--name", "front", "base", "echo", "hi")
    assert "foreground" in box.refused("logs", "front")
    box.start("silent", "echo x", "--log-driver", "none")
    assert "--log-driver none" in box.refused("logs", "silent")
    box.start("cc", "sleep 1000")
    (box.directory / "root/containers" / box.state("cc")["Id"] / "log").unlink()
    assert box.refused("logs", "cc").startswith("container cc has no log: it was removed")


def test_top_and_port(any_box: Box) -> None:
    any_box.start("web", "sleep 4712 & exec sleep 4711")

    def table() -> list[list[str]]:
        return [line.split() for line in any_box.ok("top", "web", "-o", "pid,args").splitlines()]

    any_box.until(lambda: sorted(row[-2:] for row in table()[1:]) == [["sleep", "4711"], ["sleep", "4712"]])
    assert table()[0] == ["PID", "COMMAND"] and len(any_box.ok("top", "web").splitlines()) == 3
    assert "PID" in any_box.refused("top", "web", "-o", "args")
    assert "unknown" in any_box.refused("top", "web", "--nosuch")
    assert any_box.ok("port", "web") == ""
    assert "80/tcp" in any_box.refused("port", "web", "80")
    assert "invalid port" in any_box.refused("port", "web", "http")


@pytest.mark.parametrize("files", [1, 2])
def test_who_follows_loses_nothing_however_often_the_log_is_rotated(
    box: Box, minibox_command: list[str], environment: dict[str, str], files: int
) -> None:
    """The log waits with what he hasn't seen."""
    script = "until [ -e /go ]; do sleep 0.02; done; for i in $(seq 600); do echo line $i; done; sleep 0.3; seq 700 900"
    box.start("cc", script, "--log-opt", "max-size=1k", "--log-opt", f"max-file={files}")
    with subprocess.Popen(
        [*minibox_command, "logs", "-f", "cc"], env=environment, stdout=subprocess.PIPE, text=True
    ) as follower:
        box.until(lambda: open_files(follower.pid, "log"), "it follows")
        box.tell("cc")
        out, _ = follower.communicate(timeout=WAIT_S)
    assert out.split("\n")[:-1] == [f"line {i}" for i in range(1, 601)] + [str(i) for i in range(700, 901)]
    assert len(log_files(box, "cc")) == files


def test_who_follows_and_stands_still_holds_up_nobody(
    box: Box, minibox_command: list[str], environment: dict[str, str]
) -> None:
    box.start("cc", "until [ -e /go ]; do sleep 0.02; done; yes | head -c 1000000; echo end; sleep 1000",
              "--log-opt", "max-size=1k", "--log-opt", "max-file=1")  # fmt: skip
    with subprocess.Popen(
        [*minibox_command, "logs", "-f", "cc"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as follower:
        box.until(lambda: has_lock(follower.pid), "it follows")
        follower.send_signal(signal.SIGSTOP)
        box.tell("cc")
        box.until_logged("cc", "end")
        follower.send_signal(signal.SIGCONT)
        assert follower.stderr and "minibox: lines are missing here" in follower.stderr.readline()
        follower.kill()


def log_files(box: Box, name: str) -> list[str]:
    directory = box.directory / "root/containers" / box.state(name)["Id"]
    return sorted(path.name for path in directory.iterdir() if path.name.split(".")[0] == "log")


def has_lock(pid: int) -> bool:
    """Whether a process has a lock on a file: the log that it reads, so that what is removed unread is noted there."""
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(str(pid) in row and "FLOCK" in row for row in rows)


def open_files(pid: int, name: str) -> list[str]:
    """Those of a process that have this name."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += [path for path in [os.readlink(fd)] if os.path.basename(path) == name]
        except FileNotFoundError:
            pass
    return found
