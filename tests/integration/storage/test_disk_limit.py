"""``--disk``: a container can't write more than it may, wherever it writes, and nothing of it reaches the host's disk."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

import minibox
from tests.conftest import Run
from tests.container_box import Box
from tests.probes import requires_root, requires_user

MIB = 1 << 20
FILL = "dd if=/dev/zero of=/a bs=1M; dd if=/dev/zero of=/usr/b bs=1M; cat /a /usr/b | wc -c"
kinds = pytest.mark.parametrize(
    "options",
    [pytest.param((), marks=pytest.mark.kernel), ("--userns", "host"), ("--storage-driver", "erofs")],
    ids=["own ids", "host's ids", "erofs"],
)


def run(minibox: Run, *words: str) -> tuple[int, str, str]:
    options = words[:2] if words[0] == "--storage-driver" else ()
    done = minibox(*options, "run", "--rm", "--network", "none", *words[len(options) :])
    return done.returncode, done.stdout, done.stderr


@requires_root
@kinds
def test_it_can_not_grow_beyond_its_size(minibox: Run, options: tuple[str, ...]) -> None:
    code, out, err = run(minibox, *options, "--disk", "2m", "base", "sh", "-c", FILL)
    assert (code, int(out)) == (0, 2 * MIB), err
    assert err.count("No space left on device") == 2


@requires_user
def test_an_ordinary_users_can_not_either(minibox_user: Run) -> None:
    code, out, err = run(minibox_user, "--disk", "2m", "base", "sh", "-c", FILL)
    if "since Linux 6.6" in err:
        pytest.skip(err)
    assert (code, int(out)) == (0, 2 * MIB), err


@requires_root
def test_empty_files_are_limited_too(minibox: Run) -> None:
    script = "mkdir /d; i=0; while [ $i -lt 2000 ] && true > /d/$i; do i=$((i+1)); done 2>/dev/null; echo $i"
    code, out, err = run(minibox, "--disk", "64k", "base", "sh", "-c", script)
    assert 900 < int(out) < 1024, err


@requires_root
@kinds
def test_the_root_is_an_overlay_as_ever(minibox: Run, options: tuple[str, ...]) -> None:
    """Files of the image can be changed and replaced, their owners and root's are right."""
    script = (
        "echo 1 >> /etc/passwd && rm -r /etc/group && mkdir /etc/group && rm -r /usr && mkdir /usr && ls -A /usr && "
        "chown 7:8 /etc/passwd && stat -c '%u:%g %a' /etc/passwd / /etc/group"
    )
    code, out, err = run(minibox, *options, "--disk", "1m", "base", "sh", "-c", script)
    assert (code, out) == (0, "7:8 644\n0:0 755\n0:0 755\n"), err


@requires_root
def test_what_else_could_be_filled_is_limited(minibox: Run) -> None:
    sizes, files = "df -k / /dev /dev/shm | awk 'NR > 1 {print $2}'", "hosts hostname resolv.conf"
    code, out, err = run(
        minibox, "--disk", "2m", "base", "sh", "-c", f"{sizes}; for f in {files}; do true >> /etc/$f; done"
    )
    assert out.split() == ["2048", "1024", "2048"]
    assert err.count("Read-only file system") == 3, err
    writable = "awk '$4 ~ /^rw/ && $2 !~ /^.(proc|dev)./ {print $2}' /proc/mounts"
    found = run(minibox, "--disk", "2m", "base", "sh", "-c", writable)[1].split()
    # The tmpfs below v1's cgroups has 64 KiB.
    assert set(found) - {"/sys/fs/cgroup"} == {"/", "/dev", "/proc"}, "a place without a limit"


@requires_root
def test_nothing_reaches_the_disk_and_is_looked_for_there(minibox: Run, state: Path) -> None:
    done = minibox("run", "--network", "none", "--name", "gone", "--disk", "1m", "base", "sh", "-c", "echo x > /new")
    assert done.returncode == 0, done.stderr
    assert not list((state / "root").rglob("new"))
    for words in (("diff", "gone"), ("commit", "gone", "c"), ("export", "gone"), ("cp", "gone:/new", "-")):
        done = minibox(*words)
        assert done.returncode == 125 and "are in memory (--disk) and gone when it ends" in done.stderr, words


@requires_root
def test_of_a_detached_one_files_can_be_copied(minibox: Run, state: Path) -> None:
    box = Box(minibox, state)
    box.start("alive", "echo kept > /new; touch /ready; sleep 100", "--disk", "1m")
    box.ok("exec", "alive", "sh", "-c", "until test -e /ready; do sleep 0.05; done; cat /new")
    assert minibox("cp", "alive:/new", "-", text=False).stdout.find(b"kept\n") > 0
    assert "are in memory" in box.refused("diff", "alive")
    box.ok("rm", "-f", "alive")


CHANGES = (
    "echo kept > /new && chown 7:8 /new && rm /etc/group && rm -r /usr && mkdir /usr && touch /usr/x && chmod 600 /etc/passwd"
    " && echo ready && sleep 100"
)


@requires_root
@kinds
def test_what_is_in_memory_is_seen_while_it_runs(
    minibox: Run, minibox_command: list[str], environment: dict[str, str], options: tuple[str, ...]
) -> None:
    """Beside its owner: as of any other container, with the owners that files have inside."""
    early, late = (options, ()) if options[:1] == ("--storage-driver",) else ((), options)
    words = ["run", "--rm", "--network", "none", *late, "--disk", "1m", "--name", "alive", "base", "sh", "-c", CHANGES]
    with subprocess.Popen(
        [*minibox_command, *early, *words], env=environment, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout and run.stdout.readline() == "ready\n"
        changes = minibox("diff", "alive").stdout.splitlines()
        assert {"A /new", "D /etc/group", "C /etc/passwd", "C /usr", "A /usr/x"} <= set(changes)
        assert not [line for line in changes if line[0] == "C" and line[2:] not in ("/etc", "/etc/passwd", "/usr")]
        tar = minibox("export", "alive", text=False).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            assert (archive.getmember("new").uid, archive.getmember("new").gid) == (7, 8)
            assert archive.getmember("etc/passwd").uid == 0 and "etc/group" not in archive.getnames()
        minibox("kill", "alive")


@requires_root
def test_a_sandbox_with_a_limited_disk_is_compared_and_made_an_image(api: None) -> None:
    with minibox.Sandbox("base", disk="1m") as box:
        box.run(["sh", "-c", "echo kept > /new; chown 7:8 /new"], check=True)
        assert ("A", "/new") in box.diff()
        box.commit("frozen")
    done = minibox.run("frozen", ["stat", "-c", "%u:%g", "/new", "/etc"], capture_output=True, text=True)
    assert done.stdout == "7:8\n0:0\n"


@requires_root
@pytest.mark.parametrize(
    ("options", "says"),
    [(("--disk", "100"), "too small"), (("--storage-driver", "copy", "--disk", "1m"), "copies the whole image")],
)
def test_what_can_not_be_limited_is_said(minibox: Run, options: tuple[str, ...], says: str) -> None:
    code, _, err = run(minibox, *options, "base", "true")
    assert code == 125 and re.search(says, err)
