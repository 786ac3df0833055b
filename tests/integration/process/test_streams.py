"""Standard input, output and error reach the command as they are, and come back as they were written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.leaks import SLOWNESS
from tests.probes import requires_root

pytestmark = requires_root

MIB = 1 << 20
END_S = 60 * SLOWNESS
BINARY = bytes(range(256)) * 1024
RUN = ("run", "--rm", "--network", "none")
CLOSED = "import os,sys\nfor fd in sys.argv[1].split(','): os.close(int(fd))\nos.execv(sys.argv[2], sys.argv[2:])"


@pytest.fixture
def run(minibox):
    """``run("-i", "base", "cat", input=...)``: bytes in, bytes out."""

    def call(*words, **more):
        return minibox(*RUN, *words, text=False, **more)

    return call


@pytest.fixture
def popen(minibox, minibox_command, environment):
    """As `run`, started and not waited for; killed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(*words, **more):
            process = subprocess.Popen([*minibox_command, *RUN, *words], env=environment, **more)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


# ---- what comes in -------------------------------------------------------------------------------


@pytest.fixture(params=["file", "pipe", "socket", "fifo"])
def source(request, state):
    """A descriptor of each kind from which `BINARY` can be read, and then the end."""
    with contextlib.ExitStack() as stack:
        if request.param == "file":
            (state / "in").write_bytes(BINARY)
            yield stack.enter_context(open(state / "in", "rb")).fileno()
            return
        if request.param == "socket":
            ends = socket.socketpair()
            reader, writer = (end.detach() for end in ends)
        elif request.param == "pipe":
            reader, writer = os.pipe()
        else:
            os.mkfifo(state / "fifo")
            reader = os.open(state / "fifo", os.O_RDONLY | os.O_NONBLOCK)
            writer = os.open(state / "fifo", os.O_WRONLY)
            os.set_blocking(reader, True)
        stack.callback(os.close, reader)
        feeder = threading.Thread(target=_feed, args=(writer, BINARY))
        feeder.start()
        stack.callback(feeder.join)
        yield reader


def _feed(writer, data):
    with open(writer, "wb", 0) as file, contextlib.suppress(BrokenPipeError):
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def _send_and_end(end, data):
    end.sendall(data)
    end.shutdown(socket.SHUT_WR)


def test_input_of_any_kind_is_passed_on(run, source):
    done = run("-i", "base", "cat", stdin=source)
    assert (done.returncode, done.stdout, done.stderr) == (0, BINARY, b"")


def test_without_i_input_is_empty(run):
    assert run("base", "cat", input=b"secret").stdout == b""


def test_without_i_input_is_left_for_the_next(run, state):
    (state / "in").write_text("first\nsecond\n")
    with open(state / "in") as file:
        run("base", "cat", stdin=file)
        assert file.read() == "first\nsecond\n"


def test_null_as_input(run):
    assert run("-i", "base", "sh", "-c", "cat; echo end", stdin=subprocess.DEVNULL).stdout == b"end\n"


def test_what_a_command_leaves_in_a_pipe_is_there_for_the_next(run):
    """`(minibox run -i ... head -n1; cat)` in a shell: a pipe is handed on, nobody reads ahead."""
    reader, writer = os.pipe()
    os.write(writer, b"first\nsecond\n")
    os.close(writer)
    with open(reader, "rb") as rest:
        done = run("-i", "base", "dd", "bs=6", "count=1", stdin=rest)
        assert done.stdout == b"first\n"
        assert rest.read() == b"second\n"


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_end_with_unread_input_that_never_ends(popen, kind):
    reader, writer = os.pipe() if kind == "pipe" else (end.detach() for end in socket.socketpair())
    os.write(writer, b"x" * 1000)
    process = popen("-i", "base", "sh", "-c", "exit 4", stdin=reader)
    try:
        assert process.wait(END_S) == 4
    finally:
        os.close(reader)
        os.close(writer)


def test_end_of_input_reaches_the_command_while_it_writes(popen):
    process = popen(
        "-i", "base", "sh", "-c", "echo ready; cat; echo end", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"one\n"
    process.stdin.close()
    assert process.stdout.read() == b"end\n"


# ---- what goes out -------------------------------------------------------------------------------


def test_output_and_error_stay_apart(run):
    done = run("base", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_output_to_a_file_keeps_what_is_there(run, state):
    with open(state / "out", "wb") as file:
        file.write(b"before\n")
        file.flush()
        run("base", "echo", "hi", stdout=file)
        file.write(b"after\n")
    assert (state / "out").read_bytes() == b"before\nhi\nafter\n"


def test_output_to_a_file_opened_for_appending(run, state):
    (state / "out").write_bytes(b"before\n")
    with open(state / "out", "ab") as file:
        run("base", "seq", "1000", stdout=file)
    assert (state / "out").read_text() == "before\n" + "".join(f"{n}\n" for n in range(1, 1001))


@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_lines_of_output_and_error_in_one_file_stay_in_order(run, state, mode):
    script = "for n in $(seq 200); do echo out $n; echo err $n >&2; done"
    with open(state / "both", mode) as file:
        run("base", "sh", "-c", script, stdout=file, stderr=subprocess.STDOUT)
    assert (state / "both").read_text() == "".join(f"out {n}\nerr {n}\n" for n in range(1, 201))


def test_output_and_error_in_one_pipe_stay_in_order(run):
    script = "for n in $(seq 200); do echo out $n; echo err $n >&2; done"
    done = run("base", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.stdout.decode() == "".join(f"out {n}\nerr {n}\n" for n in range(1, 201))


def test_output_to_a_socket(run):
    reader, writer = socket.socketpair()
    with reader, writer:
        done = run("base", "echo", "hi", stdout=writer.fileno())
        writer.close()
        assert (done.returncode, reader.makefile("rb").read()) == (0, b"hi\n")


def test_output_to_a_slow_reader_that_set_it_non_blocking(popen):
    """O_NONBLOCK belongs to the open file, so any other program that has it can set it."""
    reader, writer = (end.detach() for end in socket.socketpair())
    os.set_blocking(writer, False)
    process = popen("base", "head", "-c", "3000000", "/dev/zero", stdout=writer)
    os.close(writer)
    time.sleep(0.3)
    with open(reader, "rb") as file:
        assert len(file.read()) == 3_000_000
    assert process.wait(END_S) == 0


def test_input_that_is_set_non_blocking(popen):
    ours, its = socket.socketpair()
    with ours, its:
        its.setblocking(False)
        process = popen("-i", "base", "sh", "-c", "echo ready >&2; cat", stdin=its.fileno(), stdout=-1, stderr=-1)
        assert process.stderr.readline() == b"ready\n"
        ours.sendall(b"late")
        ours.shutdown(socket.SHUT_WR)
        assert process.stdout.read() == b"late"


# ---- closed ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["0", "1", "2", "0,1", "0,2", "1,2", "0,1,2"])
def test_closed_ends_are_null_inside(minibox_command, environment, minibox, state, closed):
    script = "cat; echo out; echo err >&2; readlink /proc/self/fd/0 >/tmp/host/result; exit 5"
    words = [*minibox_command, *RUN, "-i", "-v", f"{state}:/tmp/host", "base", "sh", "-c", script]
    command = ["/usr/bin/python3", "-c", CLOSED, closed, *words]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=END_S)
    assert done.returncode == 5
    assert done.stdout == (b"" if "1" in closed else b"out\n")
    assert done.stderr == (b"" if "2" in closed else b"err\n")
    assert (state / "result").read_text() == "/dev/null\n"


def test_an_error_of_ours_with_all_ends_closed(minibox_command, environment):
    command = ["/usr/bin/python3", "-c", CLOSED, "0,1,2", *minibox_command, "run", "--rm", "no-such-image"]
    assert subprocess.run(command, env=environment, timeout=END_S).returncode == 125


def test_no_other_descriptor_is_inherited(run):
    reader, writer = os.pipe()
    try:
        listed = run("base", "sh", "-c", "ls /proc/$$/fd; exit 0", pass_fds=(reader, writer)).stdout.split()
    finally:
        os.close(reader)
        os.close(writer)
    assert set(listed) - {b"10"} == {b"0", b"1", b"2"}  # 10 is the shell's own


# ---- much, and readers that go away ---------------------------------------------------------------


def test_256_mib_through_pipes_both_ways(popen):
    process = popen("-i", "base", "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    sent, received = hashlib.blake2b(), hashlib.blake2b()

    def feed():
        with process.stdin:
            for number in range(256):
                chunk = bytes([number]) * 1000 + os.urandom(64) + bytes(MIB - 1064)
                sent.update(chunk)
                process.stdin.write(chunk)

    feeder = threading.Thread(target=feed)
    feeder.start()
    count = 0
    while chunk := process.stdout.read(MIB):
        received.update(chunk)
        count += len(chunk)
    feeder.join()
    assert (process.wait(END_S), count, received.digest()) == (0, 256 * MIB, sent.digest())


def test_64_mib_from_file_to_file(run, state):
    data = os.urandom(MIB) * 64
    (state / "in").write_bytes(data)
    with open(state / "in", "rb") as source, open(state / "out", "wb") as target:
        assert run("-i", "base", "cat", stdin=source, stdout=target).returncode == 0
    assert (state / "out").read_bytes() == data


def test_both_ends_full_is_no_deadlock(popen):
    """A command that reads and writes while nobody reads: it stops, and goes on when somebody does."""
    ours, its = socket.socketpair()
    with ours:
        process = popen("-i", "base", "cat", stdin=its.fileno(), stdout=its.fileno())
        its.close()
        feeder = threading.Thread(target=_send_and_end, args=(ours, bytes(16 * MIB)))
        feeder.start()
        time.sleep(0.5)
        count = 0
        while chunk := ours.recv(MIB):
            count += len(chunk)
        feeder.join()
        assert (process.wait(END_S), count) == (0, 16 * MIB)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_that_goes_away_ends_the_writer(popen, kind):
    reader, writer = os.pipe() if kind == "pipe" else (end.detach() for end in socket.socketpair())
    process = popen("base", "yes", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert os.read(reader, 2) == b"y\n"
    os.close(reader)
    assert process.wait(END_S) in (1, 141)  # process 1 of a pid namespace isn't killed by SIGPIPE: yes sees EPIPE
    assert b"minibox:" not in process.stderr.read()


# ---- opened by name ------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["root", "1000", "user", "12345:12345"])
@pytest.mark.parametrize("target", ["pipe", "file", "socket"])
def test_dev_stdout_and_stderr_can_be_opened(run, state, user, target):
    script = "echo out >/dev/stdout; echo err >/dev/stderr; echo again >>/dev/fd/1"
    if target == "pipe":
        done = run("-u", user, "base", "sh", "-c", script)
        assert (done.stdout, done.stderr) == (b"out\nagain\n", b"err\n")
        return
    if target == "file":
        with open(state / "out", "wb") as file:
            done = run("-u", user, "base", "sh", "-c", script, stdout=file, stderr=subprocess.PIPE)
        assert ((state / "out").read_bytes(), done.stderr) == (b"out\nagain\n", b"err\n")
        return
    reader, writer = socket.socketpair()
    with reader, writer:
        done = run("-u", user, "base", "sh", "-c", script, stdout=writer.fileno(), stderr=subprocess.PIPE)
        writer.close()
        assert (reader.makefile("rb").read(), done.stderr) == (b"out\nagain\n", b"err\n")


def test_dev_stdin_can_be_opened(run):
    assert run("-i", "-u", "1000", "base", "cat", "/dev/stdin", input=b"hi").stdout == b"hi"


def test_a_file_of_the_callers_keeps_its_owner(run, state):
    with open(state / "out", "wb") as file:
        run("-u", "1000", "base", "echo", "hi", stdout=file)
    assert Path(state / "out").stat().st_uid == os.geteuid()


def test_dev_full_and_null(run):
    done = run("base", "sh", "-c", "echo x >/dev/full || echo refused; echo y >/dev/null; head -c3 /dev/zero | wc -c")
    assert done.stdout == b"refused\n3\n"


@pytest.mark.parametrize(("command", "status"), [("echo hi", 125), ("echo hi; exit 7", 7)])
def test_output_to_a_full_disk_is_told(run, command, status):
    """The command may have ended before: what it wrote fits into a pipe."""
    with open("/dev/full", "wb", 0) as full:
        done = run("base", "sh", "-c", command, stdout=full, stderr=subprocess.PIPE)
    words = b"minibox: part of the container's output could not be written: No space left on device (ENOSPC)\n"
    assert (done.returncode, done.stderr) == (status, words)


def test_a_writer_to_a_full_disk_hears_of_it(run):
    with open("/dev/full", "wb", 0) as full:
        done = run("base", "sh", "-c", "yes; echo $? >&2", stdout=full, stderr=subprocess.PIPE)
    assert done.stderr.startswith(b"141\n")


def test_a_file_shared_with_other_programs_loses_nothing(minibox_command, environment, state):
    script = "echo ready >&2; while [ ! -e /tmp/host/go ]; do sleep 0.05; done; echo inside"
    inside = f"{' '.join(minibox_command)} run --rm --network none -v {state}:/tmp/host base sh -c '{script}'"
    outside = "(while [ ! -s err ]; do sleep 0.05; done; echo outside; touch go) & "
    with open(state / "shared", "wb") as out, open(state / "err", "wb") as err:
        words = ["sh", "-c", f"echo before; {outside}{inside}; wait; echo after"]
        subprocess.run(words, env=environment, cwd=state, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=True)
    assert (state / "shared").read_text().split() == ["before", "outside", "inside", "after"]
