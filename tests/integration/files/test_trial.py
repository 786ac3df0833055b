"""try and tried: a command of the host on overlays over the host's files, by root and by an ordinary user."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import isolation
from tests.conftest import Run
from tests.container_box import until
from tests.file_trees import tree_of
from tests.leaks import SLOWNESS
from tests.probes import requires, requires_user
from tests.trial_host import Host

EVERYTHING = r"""
echo more >> d/f                                     # changed
rm -r gone                                           # a whiteout
rm d/e/g; rmdir d/e; mkdir d/e; echo new > d/e/h     # an opaque directory
ln kept/same kept/hard; ln one three                 # hard links
rm becomes-directory; mkdir becomes-directory; echo in > becomes-directory/in
rm -r becomes-directory-no-more; echo file > becomes-directory-no-more
rm link; ln -s d/f link                              # a symlink
rm again; echo again anew > again                    # deleted and made again
chmod 600 mode
mv kept moved                                        # a renamed directory
mkfifo fifo; mkdir new; echo n > 'new/odd name
with a line'; python3 -c 'import os; os.setxattr("new", "user.mark", b"m")'
truncate -s 1G sparse; printf x | dd of=sparse bs=1M seek=1 conv=notrunc 2>/dev/null
"""


LOOK = r"""
find . ! -name sparse -printf '%P %y %m %l\n' | sort; find . -type f ! -name sparse -exec sha256sum {} + | sort
find . -samefile one | sort; find . -samefile moved/same | sort
"""


def test_apply_makes_the_host_what_the_command_saw(host: Host) -> None:
    before = tree_of(host.path)
    seen = host.attempt("--keep", "sh", "-ec", EVERYTHING + LOOK).stdout
    name, found = host.kept()
    assert tree_of(host.path) == before, "the trial itself changed the host"
    kinds = {path: each["Kind"] for path, each in found.items()}
    assert kinds.items() >= {
        "d/f": "C", "gone": "D", "d/e/g": "D", "d/e/h": "A", "three": "A", "becomes-directory": "C",
        "becomes-directory/in": "A", "becomes-directory-no-more": "C", "link": "C", "again": "C", "mode": "C",
        "kept": "D", "moved": "A", "moved/hard": "A", "fifo": "A",
    }.items()  # fmt: skip
    assert not {"d", "text", "two"} & kinds.keys(), "directories on the way and untouched files aren't changes"

    host.tried(name, "--apply")
    assert subprocess.run(["sh", "-ec", LOOK], cwd=host.path, capture_output=True, text=True).stdout == seen
    assert (host.path / "d/f").read_text() == "old\nmore\n"
    assert not (host.path / "gone").exists()
    assert sorted(os.listdir(host.path / "d/e")) == ["h"]
    assert (host.path / "one").samefile(host.path / "three")
    assert (host.path / "becomes-directory/in").read_text() == "in\n"
    assert (host.path / "becomes-directory-no-more").read_text() == "file\n"
    assert os.readlink(host.path / "link") == "d/f"
    assert (host.path / "again").read_text() == "again anew\n"
    mode = (host.path / "mode").stat()
    assert (stat.S_IMODE(mode.st_mode), mode.st_mtime) == (0o600, 1000000000)
    assert stat.S_ISFIFO((host.path / "fifo").stat().st_mode)
    assert (host.path / "new/odd name\nwith a line").read_text() == "n\n"
    assert os.getxattr(host.path / "new", "user.mark") == b"m"
    sparse = (host.path / "sparse").stat()
    assert sparse.st_size == 1 << 30 and sparse.st_blocks * 512 < 1 << 24
    assert {each.stat(follow_symlinks=False).st_uid for each in os.scandir(host.path)} == {host.uid}
    assert json.loads(host.tried("--json").stdout) == [], "what was applied isn't kept"


def test_what_nobody_may_read_is_applied_as_it_is(host: Host) -> None:
    """An ordinary user can't look into his own directories of mode 000, either."""
    script = "mkdir -p closed/in; echo x > closed/in/f; echo s > secret; chmod 0 closed/in/f closed/in closed secret; chmod 0 d"
    name, found = host.keep(script)
    assert found.keys() == {"closed", "closed/in", "closed/in/f", "secret", "d"}
    host.tried(name, "--apply")
    paths = ("closed", "closed/in", "closed/in/f", "secret", "d")
    assert [stat.S_IMODE((host.path / path).stat().st_mode) for path in paths] == [0] * 5
    assert (host.path / "closed/in/f").read_text() == "x\n" and (host.path / "secret").read_text() == "s\n"


def test_what_is_discarded_leaves_the_host_as_it_was(host: Host) -> None:
    before = tree_of(host.path)
    done = host.attempt("--discard", "sh", "-ec", EVERYTHING)
    assert tree_of(host.path) == before
    assert f"D {host.path}/gone\n" in done.stderr
    assert host.tried().stdout == ""


def test_only_the_commands_own_output_is_on_stdout(host: Host) -> None:
    done = host.attempt("--discard", "sh", "-c", "echo out; echo more >> text; id -u; pwd; cat")
    assert done.stdout == f"out\n{host.uid}\n{host.path}\n"
    assert f"C {host.path}/text  10B\n" in done.stderr
    assert " text\n+more\n" in done.stderr


def test_the_exit_status_is_the_commands(host: Host) -> None:
    assert host.minibox("try", "--discard", "sh", "-c", "exit 7").returncode == 7
    missing = host.minibox("try", "--discard", "/no/such/command")
    assert missing.returncode == 127
    assert missing.stderr.startswith("minibox: exec /no/such/command: no such command on this host\n")


@pytest.mark.parametrize("words", [(), ("--keep", "--apply")])
def test_without_a_terminal_one_of_three_must_be_said(root_host: Host, words: tuple[str, ...]) -> None:
    done = root_host.minibox("try", *words, "touch", "made")
    assert done.returncode == 125 and "--apply" in done.stderr
    assert not (root_host.path / "made").exists()


@requires("root")
@pytest.mark.parametrize("answer", ["apply", "keep", "discard"])
def test_on_a_terminal_the_answer_decides(terminal: Callable[..., Any], root_host: Host, answer: str) -> None:
    child = terminal("try", "sh", "-c", f"test -t 1 && echo made > {root_host.path}/made")
    child.expect(f"A {root_host.path}/made")
    child.expect("apply, keep or discard")
    child.sendline(answer)
    child.expect_exact(__import__("pexpect").EOF, timeout=30 * SLOWNESS)
    assert (root_host.path / "made").exists() == (answer == "apply")
    assert len(json.loads(root_host.tried("--json").stdout)) == (answer == "keep")


@requires("root")
def test_on_a_terminal_privileges_are_asked_for(terminal: Callable[..., Any], root_host: Host) -> None:
    child = terminal("try", "sh", "-c", f"cp /bin/true {root_host.path}/suid; chmod 4755 {root_host.path}/suid")
    child.expect("apply, keep or discard")
    child.sendline("apply")
    child.expect_exact("apply 1 path with these privileges?")
    child.sendline("n")
    child.expect_exact(f"{root_host.path}/suid: applied without: set-user-ID 0")
    child.expect_exact(__import__("pexpect").EOF, timeout=30 * SLOWNESS)
    assert "--privileged" not in child.before, "it is too late for that"
    assert stat.S_IMODE((root_host.path / "suid").stat().st_mode) == 0o755


# ---- attacks ------------------------------------------------------------------------------------------


def test_a_symlink_in_place_of_a_directory_leads_no_write_elsewhere(root_host: Host, state: Path) -> None:
    outside = state / "outside"
    outside.mkdir()
    (outside / "f").write_text("theirs\n")
    script = f"echo changed > d/f; mv d d.real; ln -s {outside} d; echo through > d/f; echo new > d/new"
    root_host.apply(script)
    assert os.readlink(root_host.path / "d") == str(outside)
    assert (outside / "f").read_text() == "through\n", (
        "the command wrote there by the symlink, which is a change of its own"
    )


def test_a_symlink_on_the_way_that_appears_before_apply_is_refused(root_host: Host, state: Path) -> None:
    outside = state / "outside"
    outside.mkdir()
    name, _ = root_host.keep("echo more >> d/f; echo new > d/e/new")
    root_host.sh(f"rm -r d; ln -s {outside} d")
    for words in ((), ("--force",)):
        done = root_host.minibox("tried", name, "--apply", *words)
        assert done.returncode == 125, done.stderr
        assert os.listdir(outside) == []


def test_privileges_are_told_and_only_applied_if_asked_for(root_host: Host) -> None:
    script = "cp /bin/true suid; chmod 4755 suid; cp /bin/true sgid; chmod 2755 sgid; mkdir dir; chmod 2775 dir"
    name, found = root_host.keep(script)
    assert {path: each["Privilege"] for path, each in found.items() if "Privilege" in each} == {
        "suid": "set-user-ID 0",
        "sgid": "set-group-ID 0",
    }
    done = root_host.tried(name, "--apply")
    assert f"{root_host.path}/suid: applied without: set-user-ID 0" in done.stderr
    assert "--privileged would have applied them as they are" in done.stderr
    modes = {name: stat.S_IMODE((root_host.path / name).stat().st_mode) for name in ("suid", "sgid", "dir")}
    assert modes == {"suid": 0o755, "sgid": 0o755, "dir": 0o2775}
    root_host.apply("chmod 4755 suid", "--privileged")
    assert stat.S_IMODE((root_host.path / "suid").stat().st_mode) == 0o4755


def test_no_device_can_be_made_or_opened(host: Host) -> None:
    if not host.uid:
        os.mknod(host.path / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    else:
        host.sh("touch device")
    script = "! mknod made c 1 5; test ! -c device || ! head -c1 device"
    host.attempt("--discard", "sh", "-c", script)


# What a program of the host tries from inside, each in a line of its own; prints which gets through.
REACH = r"""
import os, socket, sys
path, abstract, fifo = sys.argv[1:]
def attempt(name, function):
    try:
        function()
    except OSError as error:
        print(name, error.errno, file=sys.stderr)
    else:
        print(name)
def connect(address):
    socket.socket(socket.AF_UNIX).connect(address)
attempt("socket", lambda: connect(path))
attempt("abstract", lambda: connect("\0" + abstract))
attempt("fifo", lambda: os.write(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK), b"x"))
attempt("tcp", lambda: socket.create_connection(("127.0.0.1", int(abstract.split("-")[-1])), 1))
"""


@pytest.fixture
def reached(host: Host) -> Iterator[Callable[..., set[str]]]:
    """``reached("--network", "host")``: which sockets and FIFOs of the host a command reaches."""
    with socket.socket(socket.AF_UNIX) as file, socket.socket(socket.AF_UNIX) as hidden, socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        abstract = f"minibox-trial-{os.getpid()}-{tcp.getsockname()[1]}"
        file.bind(str(host.path / "socket"))
        hidden.bind(f"\0{abstract}")
        os.mkfifo(host.path / "fifo")
        for name in ("socket", "fifo"):
            os.chmod(host.path / name, 0o666)
        for each in (file, hidden, tcp):
            each.listen()
        reader = os.open(host.path / "fifo", os.O_RDONLY | os.O_NONBLOCK)

        def reach(*words: str) -> set[str]:
            done = host.attempt(
                "--discard",
                *words,
                "python3",
                "-c",
                REACH,
                str(host.path / "socket"),
                abstract,
                str(host.path / "fifo"),
            )
            return set(done.stdout.split())

        yield reach
        os.close(reader)


def test_no_socket_or_fifo_of_the_host_is_reached(reached: Callable[..., set[str]]) -> None:
    assert reached() == set()


def test_what_is_asked_for_is_reached(reached: Callable[..., set[str]], host: Host) -> None:
    assert reached("-v", f"{host.path}/socket:{host.path}/socket") == {"socket"}
    assert reached("-v", f"{host.path}/fifo:{host.path}/fifo") == {"fifo"}
    assert reached("--network", "host") == {"abstract", "tcp"}


# ---- what is shown -----------------------------------------------------------------------------------


@requires("root")
def test_each_mount_of_the_host_is_stacked(root_host: Host) -> None:
    point = root_host.path / "mount"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", point], check=True)
    try:
        (point / "below").write_text("below\n")
        name, found = root_host.keep(
            "cat mount/below; echo more >> mount/below; echo x > mount/new; cp /bin/true mount; ! mount/true"
        )
        assert {path: each["Kind"] for path, each in found.items()} == {
            "mount/below": "C",
            "mount/new": "A",
            "mount/true": "A",
        }
        assert os.listdir(point) == ["below"]
        root_host.tried(name, "--apply")
        assert (point / "below").read_text() == "below\nmore\n"
    finally:
        subprocess.run(["umount", point], check=True)


@requires("root")
def test_a_mounted_socket_is_not_reached(root_host: Host) -> None:
    """As /run/docker.sock is mounted in a container that shall build images."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root_host.path / "socket"))
        listener.listen()
        point = root_host.path / "point"
        point.touch()
        subprocess.run(["mount", "--bind", root_host.path / "socket", point], check=True)
        try:
            done = root_host.attempt(
                "--discard", "python3", "-c", REACH, str(point), "none-1", str(root_host.path / "none")
            )
        finally:
            subprocess.run(["umount", point], check=True)
        assert done.stdout == "" and f"{point} was not shown to the command" in done.stderr


def test_another_process_joins_it_as_the_same_user(host: Host) -> None:
    """While it runs, a trial is a container like any other."""
    with ThreadPoolExecutor() as pool:
        trial = pool.submit(
            host.attempt,
            "--discard",
            "sh",
            "-c",
            "echo inside > /tmp/here; while ! test -e /tmp/go; do sleep 0.1; done",
        )
        until(lambda: host.minibox("ps", "-q").stdout)
        name = host.minibox("ps", "-q").stdout.strip()
        until(lambda: host.minibox("exec", name, "test", "-s", "/tmp/here").returncode == 0)
        assert host.minibox("exec", name, "id", "-u").stdout == f"{host.uid}\n"
        copied = host.minibox("cp", f"{name}:/tmp/here", "copied")
        assert host.minibox("exec", name, "touch", "/tmp/go").returncode == 0
        assert "A /tmp/here" in trial.result().stderr
    assert (copied.returncode, copied.stderr) == (0, "")
    assert (host.path / "copied").read_text() == "inside\n"


def test_what_a_killed_one_leaves_is_collected(
    root_host: Host, minibox_command: list[str], environment: dict[str, str], state: Path, orphans: None
) -> None:
    running = subprocess.Popen(
        [*minibox_command, "try", "--keep", "sh", "-c", "echo mine >> text; echo ready; read go"],
        cwd=root_host.path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with running:
        assert running.stdout and running.stdout.readline() == "ready\n"
        running.kill()
    until(lambda: root_host.minibox("ps", "-aq").stdout == "" and not os.listdir(state / "root/containers"))
    assert (root_host.path / "text").read_text() == "text\n"
    assert root_host.tried().stdout == ""


def test_a_single_mounted_file_is_read_only_and_told(host: Host) -> None:
    """Of the session: /etc/passwd has an ordinary user more (`isolation.enter`)."""
    done = host.attempt(
        "--discard", "sh", "-c", f"grep ^{isolation.USER_NAME}: /etc/passwd; ! echo x 2>&- >> /etc/passwd"
    )
    assert done.stdout.startswith(isolation.USER_NAME)
    told = [line for line in done.stderr.splitlines() if "read-only for the command" in line]
    assert len(told) == 1 and "/etc/passwd" in told[0], "one line for all"


def test_the_state_of_minibox_is_not_shown(host: Host) -> None:
    done = host.attempt("--discard", "sh", "-c", 'ls -A "$MINIBOX_ROOT" "$MINIBOX_RUNROOT"; ps -e | wc -l')
    assert done.stdout.split()[:2] == [f"{host.path.parent}/root:", f"{host.path.parent}/run:"]
    assert len(done.stdout.split()) == 3


def test_over_a_directory(root_host: Host) -> None:
    root_host.sh(
        "mkdir -p tree/bin; cp /bin/busybox tree/bin/busybox 2>&- || cp $(command -v busybox) tree/bin/busybox"
    )
    before = tree_of(root_host.path)
    done = root_host.attempt(
        "--keep", "--over", "tree", "/bin/busybox", "sh", "-c", "pwd; echo x > /made; echo y > /bin/y"
    )
    assert done.stdout == "/\n"
    assert tree_of(root_host.path) == before
    [row] = json.loads(root_host.tried("--json").stdout)
    assert [(each["Kind"], each["Path"]) for each in row["Changes"]] == [("A", "/bin/y"), ("A", "/made")]
    root_host.tried(row["Name"], "--apply")
    assert (root_host.path / "tree/made").read_text() == "x\n"


@requires_user
def test_an_ordinary_user_is_himself_and_no_root(minibox_user: Run, user_state: Path) -> None:
    user_host = Host(minibox_user, user_state / "host", isolation.USER_ID)
    script = "id -u; id -g; grep CapEff /proc/self/status; ! touch /usr/made 2>&-; ! cat /etc/shadow 2>&-; touch /tmp/made-$$"
    done = user_host.attempt("--discard", "sh", "-c", script)
    assert done.stdout.split() == [str(user_host.uid), str(user_host.uid), "CapEff:", "0000000000000000"]


def test_kept_trials_are_shown_and_discarded(host: Host) -> None:
    name, _ = host.keep("echo more >> text; rm d/f")
    assert host.tried().stdout.startswith(f"{name}  2 changes, status 0: sh -ec echo more")
    shown = host.tried(name).stdout
    assert f"D {host.path}/d/f\n" in shown and "+more" in shown and "0 added, 1 changed, 1 deleted" in shown
    host.tried(name, "--discard")
    assert host.tried().stdout == ""
    assert host.minibox("tried", name).returncode == 125
    assert host.minibox("tried", "../containers").returncode == 125


def test_system_df_counts_what_is_kept(host: Host) -> None:
    def row() -> dict[str, Any]:
        shares = json.loads(host.minibox("system", "df", "--json").stdout)["shares"]
        return next(each for each in shares if each["type"] == "Trials")

    assert (row()["total"], row()["size_bytes"]) == (0, 0)
    name, _ = host.keep("head -c 1000000 /dev/urandom > large")
    found = row()
    assert found["total"] == 1 and 1_000_000 < found["size_bytes"] == found["reclaimable_bytes"] < 6_000_000
    host.tried(name, "--discard")
    assert row()["total"] == 0


@pytest.mark.parametrize("content", ["", "{", None])
def test_a_damaged_record_costs_one_trial(root_host: Host, state: Path, content: str | None) -> None:
    damaged, _ = root_host.keep("echo more >> text")
    record = state / "root/trials" / damaged / "trial"
    record.unlink() if content is None else record.write_text(content)
    root_host.attempt("--keep", "touch", "made")
    listed = root_host.tried()
    assert listed.stdout.endswith("1 change, status 0: touch made\n") and damaged not in listed.stdout
    assert "warning: " in listed.stderr and damaged in listed.stderr
    assert root_host.minibox("tried", damaged).returncode == 125
    for words in ((), ("--repair",)):
        checked = root_host.minibox("system", "check", *words)
        assert checked.returncode == 1 and f"minibox tried {damaged} --discard removes it" in checked.stdout
    root_host.tried(damaged, "--discard")
    assert root_host.tried().stderr == ""
    assert root_host.minibox("system", "check").returncode == 0
