"""The supervisor by itself: a plan that only executes a command, and what becomes of its streams."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from minibox.base.operation import parent
from minibox.linux.process import EXEC, signatures
from minibox.linux.supervisor import Duties, Supervisor, end_signatures
from minibox.plan import operations as op
from minibox.plan.encode import HEAD, encode
from tests.leaks import SLOWNESS

WAIT_S = 30 * SLOWNESS


class Supervised:
    """A shell script under a supervisor, with its pipes, log and clients."""

    def __init__(self, directory, script, **duties):
        self.directory = directory
        self.log_path, self.exit_path = f"{directory}/log", f"{directory}/exit"
        self.supervisor = Supervisor("0123456789abcdef")
        stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
        status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        steps = (
            op.die_with_parent("test"),
            op.stdio(op.STDIN, op.STDOUT, op.STDERR, "test"),
            op.exec_(("/bin/sh",), ("sh", "-c", script), (f"PATH={os.environ['PATH']}",), "test"),
        )
        slots = [theirs.fileno(), -1, stdin[0], stdout[1], stderr[1]]
        self.child = self.supervisor.spawn(encode(steps, signatures()), 0, slots, len(steps))
        theirs.close()
        assert status.recv(8) == b""  # closed by exec
        status.close()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(f"{directory}/attach")
        self.listener.listen()
        after = (
            "/bin/sh",
            "-c",
            f"readlink /proc/self/fd/3 >{directory}/after.new; mv {directory}/after.new {directory}/after",
        )
        settings = {"log_bytes_max": 0, "log_files": 1, "after": after, **duties}
        with open(f"{directory}/claim", "w") as claim:
            self.supervisor.supervise(
                Duties(log_path=self.log_path, exit_path=self.exit_path, **settings),
                {"claim": claim.fileno(), "listener": self.listener.fileno(), "stdin": stdin[1],
                 "stdout": stdout[0], "stderr": stderr[0]},
            )  # fmt: skip
        self.supervisor.close()
        self.listener.close()
        for fd in (*stdin, *stdout, *stderr):
            os.close(fd)

    def client(self):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.settimeout(WAIT_S)
        client.connect(f"{self.directory}/attach")
        return client

    def wait(self):
        """Until the command that takes the supervisor's place has run; what is in the exit record."""
        os.waitpid(self.supervisor.pid, 0)
        self.child.close()
        with open(f"{self.directory}/after") as file:
            assert file.read().strip() == f"{self.directory}/claim"
        with open(self.exit_path) as file:
            return json.load(file)

    def logged(self, *files):
        return [json.loads(line) for path in files or (self.log_path,) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def supervised(tmp_path):
    made = []

    def start(script, **duties):
        made.append(Supervised(tmp_path, script, **duties))
        return made[-1]

    yield start
    for each in made:
        each.child.close()


def kill_supervisor(container):
    """And wait until the container has followed it."""
    os.kill(container.supervisor.pid, signal.SIGKILL)
    os.waitpid(container.supervisor.pid, 0)
    os.waitpid(container.child.pid, 0)  # whose orphan comes to us


def packets(client):
    """All that a client is sent, by kind, until the exit status."""
    found: dict[bytes, bytes] = {}
    while data := client.recv(1 << 16):
        found[data[:1]] = found.get(data[:1], b"") + data[1:]
    return found


def test_status_log_and_the_command_after(supervised):
    container = supervised("echo out; echo err >&2; printf 'no newline'; exit 7")
    assert container.child.progress()[0] == EXEC
    assert container.wait() == {
        "Kind": "exit",
        "Format": 1,
        "status": 7,
        "signal": 0,
        "timed_out": False,
        "relayed": 0,
        "log_lost_bytes": 0,
        "finished_ns": pytest.approx(time.time_ns(), abs=60e9),
    }
    lines = container.logged()
    assert sorted((line["stream"], line["log"]) for line in lines) == [
        ("stderr", "err\n"), ("stdout", "no newline"), ("stdout", "out\n")]  # fmt: skip
    assert all(
        line["time"].endswith("Z") and len(line["time"]) == len("2026-01-01T00:00:00.000000000Z") for line in lines
    )


def test_a_signal_that_ended_it(supervised):
    container = supervised("kill -SEGV $$")
    found = container.wait()
    assert (found["status"], found["signal"]) == (128 + signal.SIGSEGV, signal.SIGSEGV)


def test_timeout(supervised):
    found = supervised("exec sleep 100", timeout_s=0.2).wait()
    assert (found["status"], found["timed_out"]) == (137, True)


def test_output_that_is_no_text(supervised):
    container = supervised(r"printf 'a\000b\377c\303\251\"\\\t\342\202'; exit 0")
    container.wait()
    assert container.logged()[0]["log"] == 'a\0b�cé\\"\\\t��'


def test_a_long_line_is_cut_between_characters(supervised):
    container = supervised("i=0; while [ $i -lt 4000 ]; do printf 'é€𝄞'; i=$((i+1)); done; echo")
    container.wait()
    lines = [line["log"] for line in container.logged()]
    assert "".join(lines) == "é€𝄞" * 4000 + "\n"
    assert all(len(line.encode()) <= 16384 for line in lines) and len(lines) == 3


def test_rotation_keeps_so_many_files_and_the_newest_lines(supervised):
    container = supervised(
        "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done", log_bytes_max=8000, log_files=3
    )
    container.wait()
    path = container.log_path
    assert sorted(os.listdir(container.directory)) == ["after", "attach", "claim", "exit", "log", "log.1", "log.2"]
    assert all(os.path.getsize(each) <= 8000 for each in (path, path + ".1", path + ".2"))
    lines = [line["log"] for line in container.logged(path + ".2", path + ".1", path)]
    assert lines == [f"line {number}\n" for number in range(1000 - len(lines), 1000)]


def test_clients_see_output_and_status_and_one_writes(supervised):
    container = supervised("read go; echo got $go; cat; echo bad >&2; exit 3", stdin_once=True)
    with container.client() as writer, container.client() as reader:
        talk(writer, reader)
    assert container.wait()["status"] == 3


def talk(writer, reader):
    writer.send(b"ihello\nmore")
    writer.send(b"c")
    expected = {b"o": b"got hello\nmore", b"e": b"bad\n", b"x": struct.pack("=i", 3)}
    assert packets(reader) == packets(writer) == expected


def test_input_ends_with_its_client(supervised):
    container = supervised("cat", stdin_once=True)
    client = container.client()
    client.send(b"ilast words\n")
    assert client.recv(100) == b"olast words\n"
    client.close()
    assert container.wait()["status"] == 0


def test_a_client_that_reads_nothing_does_not_stop_the_container(supervised):
    container = supervised("head -c 3000000 /dev/zero | tr '\\0' x")
    client = container.client()
    assert container.wait()["status"] == 0
    assert sum(len(line["log"]) for line in container.logged()) == 3000000
    client.close()


def test_health_checks_run_while_it_runs(supervised, tmp_path):
    """It ends after the third: one that didn't run would leave it running. And none comes before its time."""
    health = tmp_path / "health"
    health.touch()
    begin = time.monotonic()
    container = supervised(
        f"while [ $(wc -l <{health}) -lt 3 ]; do sleep 0.05; done",
        health=("/bin/sh", "-c", f"echo x >>{health}"),
        health_interval_s=0.1,
    )
    assert container.wait()["status"] == 0
    assert time.monotonic() - begin >= 0.25  # of 0.3: clocks are rounded


def test_health_checks_run_more_often_until_one_does_well(supervised, tmp_path):
    count = f"$(cat {tmp_path}/health | wc -l)"
    container = supervised(
        f"while [ {count} -lt 3 ]; do sleep 0.05; done; sleep 0.5",
        health=("/bin/sh", "-c", f"echo x >>{tmp_path}/health; [ {count} -ge 3 ]"),
        health_interval_s=100,
        health_start_interval_s=0.1,
        health_start_period_s=100,
    )
    container.wait()
    assert Path(f"{tmp_path}/health").read_text() == "x\n" * 3


def test_sigterm_is_passed_on(supervised):
    container = supervised("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    while not os.path.exists(container.log_path) or not container.logged():
        time.sleep(0.01)
    os.kill(container.supervisor.pid, signal.SIGTERM)
    assert container.wait()["status"] == 9


def test_killed_supervisor_takes_its_container_along(supervised):
    container = supervised("exec sleep 100")
    kill_supervisor(container)
    assert not os.path.exists(container.exit_path)


def test_nobody_to_look_after_it_for(supervised, tmp_path):
    """minibox died between the two requests."""
    supervisor = Supervisor("0123456789abcdef")
    steps = (op.exec_(("/bin/sleep",), ("sleep", "100"), (), "test"),)
    status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with status, theirs:
        child = supervisor.spawn(encode(steps, signatures()), 0, [theirs.fileno()], 1)
    supervisor.close()
    child.wait()
    assert os.waitstatus_to_exitcode(os.waitpid(supervisor.pid, 0)[1]) == 1
    os.waitpid(child.pid, 0)  # whose orphan came to us
    child.close()


def end_of(*steps):
    return bytes(encode([parent(*step, why="test") for step in steps], end_signatures()))


def test_an_end_of_its_own(supervised, tmp_path):
    """The command after is executed only if the list can't be."""
    file = tmp_path / "file"
    file.touch()
    container = supervised("exit 3", end=end_of(("remove_file", str(file))))
    assert os.waitstatus_to_exitcode(os.waitpid(container.supervisor.pid, 0)[1]) == 0
    container.child.close()
    assert json.loads(Path(container.exit_path).read_text())["status"] == 3
    assert not file.exists()
    assert not (tmp_path / "after").exists()


def test_an_end_that_fails(supervised, tmp_path):
    file = tmp_path / "file"
    file.touch()
    end = end_of(("expect_none", str(file)), ("remove_file", str(file)))
    assert supervised("exit 3", end=end).wait()["status"] == 3
    assert file.exists()


@pytest.mark.parametrize("change", ["operation", "size", "magic"])
def test_an_end_that_it_does_not_know(supervised, tmp_path, change):
    file = tmp_path / "file"
    file.touch()
    end = bytearray(end_of(("remove_file", str(file))))
    if change == "operation":
        put = struct.pack("=I", len(end_signatures()))
        end[HEAD.size : HEAD.size + len(put)] = put
    elif change == "size":
        end += b"x"
    else:
        end[0] ^= 1
    assert supervised("exit 3", end=bytes(end)).wait()["status"] == 3
    assert file.exists()


def test_private_memory(supervised):
    container = supervised("exec sleep 100")
    with open(f"/proc/{container.supervisor.pid}/smaps_rollup") as file:
        sizes = dict(line.split()[:2] for line in file if line.startswith("Private_"))
    kill_supervisor(container)
    assert int(sizes["Private_Dirty:"]) <= 128, sizes  # its text is a file's, shared by all supervisors
