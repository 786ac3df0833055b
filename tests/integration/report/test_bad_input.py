"""What can't be done is refused by one clear line and a hint, with status 125, and nothing is left."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.leaks import SLOWNESS
from tests.probes import requires_root

pytestmark = requires_root

RUN = ("run", "--rm", "--network", "none")


@pytest.fixture
def refused(minibox, state):
    """``refused("-v", "/no:/x", "base", "true")``: the line and the hint; nothing may be left behind."""

    def call(*words, hint=True, run=RUN, **more):
        before = _tree(state)
        done = minibox(*run, *words, **more)
        assert (done.returncode, done.stdout) == (125, ""), done
        first, *rest = done.stderr.splitlines()
        assert first.startswith("minibox: ") and "internal error" not in first and "Traceback" not in done.stderr
        assert not first.endswith(".")
        assert len(rest) <= 2 and all(line.startswith(("hint: ", "      ", "Try ")) for line in rest), done.stderr
        if hint:
            assert rest, f"no hint: {first}"
        assert _tree(state) == before
        return done.stderr

    return call


def _tree(state: Path) -> set[str]:
    """All names of the state, but for what is kept on purpose: empty directories, locks and caches."""
    return {
        str(path.relative_to(state))
        for path in state.rglob("*")
        if not path.is_dir() and "cache" not in path.parts and "lock" not in path.name
    }


# ---- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ["no-such-image", "docker.io/library/nothing:1.0", "base:other"])
def test_unknown_image(refused, image):
    assert image.split(":")[0] in refused("--pull", "never", image, "true")


@pytest.mark.parametrize(
    "image", ["", "UPPER", "a//b", "base:", "base@sha256:12", "-x", "a b", "ba\nse", "base:" + "x" * 200]
)
def test_malformed_reference(refused, image):
    refused("--", image, "true", hint=False)


# ---- mounts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("-v", "/no/such/place:/mnt"), "bind source '/no/such/place' does not exist"),
        (("--mount", "type=bind,src=/no/such,dst=/mnt"), "bind source '/no/such' does not exist"),
        (("-v", "/etc:/mnt/../etc"), "contains '..'"),
        (("--tmpfs", "/a/../b"), "contains '..'"),
        (("-v", "/etc:relative"), "is not absolute"),
        (("-v", "/etc:/"), "can't be '/'"),
        (("-v", "/etc:/mnt:rx"), "unknown option 'rx'"),
        (("-v", "/etc:/mnt", "-v", "/usr:/mnt"), "duplicate mount point '/mnt'"),
        (("-v", "b@d:/mnt"), "invalid volume name"),
        (("--mount", "type=nfs,dst=/mnt"), "unknown type 'nfs'"),
        (("--tmpfs", "/mnt:size=huge"), "huge"),
        (("--device", "/dev/no-such"), "/dev/no-such"),
    ],
)
def test_mounts_that_cannot_be(refused, words, why):
    assert why in refused(*words, "base", "true")


def test_a_file_over_a_directory(refused):
    assert "/etc" in refused("-v", "/etc/hostname:/etc", "base", "true", hint=False)


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (("--memory", "12x"), "12x"),
        (("--memory", "-5"), "-5"),
        (("--memory", "1k"), "too small"),
        (("--shm-size", "lots"), "lots"),
        (("--cpus", "many"), "many"),
        (("--cpus", "-1"), "-1"),
        (("--cpuset-cpus", "99999"), "99999"),
        (("--pids-limit", "x"), "x"),
        (("--ulimit", "nofile"), "nofile"),
        (("--ulimit", "nothing=1"), "nothing"),
        (("--ulimit", "nofile=9:3"), "nofile"),
        (("--oom-score-adj", "5000"), "5000"),
        (("-u", "nobody-here"), "nobody-here"),
        (("-u", "-7"), "-7"),
        (("-u", "99999999999"), "99999999999"),
        (("-u", "0:no-such-group"), "no-such-group"),
        (("-u", "70000"), "70000"),
        (("--group-add", "no-such-group"), "no-such-group"),
        (("-e", "=x"), "=x"),
        (("--env-file", "/no/such/file"), "/no/such/file"),
        (("-w", "relative"), "relative"),
        (("--hostname", "under score!"), "under score!"),
        (("--add-host", "just-a-name"), "just-a-name"),
        (("--add-host", "a:300.1.1.1"), "300.1.1.1"),
        (("--dns", "not-an-address"), "not-an-address"),
        (("--cap-add", "FLY"), "FLY"),
        (("--cap-drop", "WALK"), "WALK"),
        (("--security-opt", "nonsense"), "nonsense"),
        (("--security-opt", "seccomp=/no/such/profile"), "/no/such/profile"),
        (("--sysctl", "kernel.panic=1"), "kernel.panic"),
        (("--sysctl", "nonsense"), "nonsense"),
        (("--network", "no-such-network"), "no-such-network"),
        (("--userns", "sideways"), "sideways"),
        (("--stop-signal", "SIGNONE"), "SIGNONE"),
        (("--pull", "sometimes"), "sometimes"),
        (("--name", "-bad name"), "-bad name"),
    ],
)
def test_values_that_cannot_be_meant(refused, words, quoted):
    option, value = words
    words = (f"{option}={value}",) if option.startswith("--") else words
    assert quoted in refused(*words, "base", "true", hint=False)


def test_a_duplicate_name(minibox, refused):
    assert minibox("run", "--network", "none", "--name", "taken", "base", "true").returncode == 0
    said = refused("--name", "taken", "base", "true")
    assert "the name 'taken' is taken by container" in said and "minibox rm taken" in said
    assert minibox("rm", "taken").returncode == 0


def test_a_cidfile_that_exists(refused, state):
    (state / "cid").write_text("older")
    assert f"container ID file {state}/cid exists" in refused("--cidfile", state / "cid", "base", "true")
    assert (state / "cid").read_text() == "older"


def test_a_cidfile_that_cannot_be_written(refused):
    assert "No such file or directory" in refused("--cidfile", "/no/such/cid", "base", "true", hint=False)


def test_a_command_that_fails_to_start_leaves_nothing(minibox, state):
    before = _tree(state)
    assert minibox(*RUN, "--cidfile", state / "cid", "base", "no-such-thing").returncode == 127
    (state / "cid").unlink()
    words = ("--cidfile", state / "cid", "--sysctl", "net.core.nothing=1", "base", "true")
    assert minibox(*RUN, *words).returncode == 125
    assert _tree(state) == before


def test_an_option_that_is_not_there(minibox):
    done = minibox("run", "--nonsense", "base", "true")
    assert done.returncode == 125 and "--nonsense" in done.stderr


def test_a_caller_who_is_not_in_a_directory_any_more(minibox, minibox_command, environment, state):
    (state / "gone").mkdir()
    script = f'cd {state}/gone && rmdir {state}/gone && exec "$@"'
    argv = ["sh", "-c", script, "sh", *minibox_command, *RUN, "base", "echo", "hi"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr


# ---- disks ---------------------------------------------------------------------------------------


@pytest.fixture
def on(state, minibox_command, environment, minibox):
    """``on("mount ...", "run", ...)``: a minibox whose state is in $D, in a mount namespace of its own."""

    def call(setup, *words, after=""):
        script = f'set -e; D={state}/disk; mkdir -p $D; {setup}\nset +e; "$@"; status=$?; {after}\nexit $status'
        own = {"MINIBOX_ROOT": f"{state}/disk/root", "MINIBOX_RUNROOT": f"{state}/run"}
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *minibox_command, *words]
        return subprocess.run(argv, env={**environment, **own}, capture_output=True, text=True, timeout=60 * SLOWNESS)

    return call


def _left(done):
    return [line for line in done.stdout.splitlines() if "lock" not in line]


def test_a_full_disk_at_the_first_run(on):
    done = on("mount -t tmpfs -o size=256k tmpfs $D", *RUN, "base", "true")
    assert done.returncode == 125
    assert "No space left on device" in done.stderr and "free some space" in done.stderr
    assert "internal error" not in done.stderr


def test_a_full_disk_at_a_later_run(on, seed, state):
    setup = (
        f"mount -t tmpfs -o size=40m tmpfs $D; cp -a {seed} $D/root; dd if=/dev/zero of=$D/fill bs=64k 2>/dev/null || :"
    )
    done = on(
        setup, *RUN, "base", "true", after="ls -A $D/root/live $D/root/ids $D/root/containers | grep -v : | grep ."
    )
    if done.returncode == 0:  # nothing needed a page: tmpfs has room for names as long as there are inodes
        pytest.skip("a start writes too little for a full tmpfs to matter")
    assert done.returncode == 125
    assert "No space left on device" in done.stderr and "hint: " in done.stderr
    assert done.stdout == ""


def test_no_inodes_left(on, seed):
    setup = f"mount -t tmpfs -o nr_inodes=3000 tmpfs $D; cp -a {seed} $D/root; n=0; while true >$D/f$n; do n=$((n+1)); done 2>/dev/null || :"
    done = on(
        setup, *RUN, "base", "true", after="ls -A $D/root/live $D/root/ids $D/root/containers | grep -v : | grep ."
    )
    assert done.returncode == 125
    assert "No space left on device" in done.stderr and "hint: " in done.stderr
    assert done.stdout == ""


def test_a_root_on_overlayfs(on):
    setup = "mkdir $D/l $D/u $D/w $D/m; mount -t overlay -o lowerdir=$D/l,upperdir=$D/u,workdir=$D/w o $D/m; D=$D/m; export MINIBOX_ROOT=$D/root"
    done = on(
        setup, *RUN, "base", "true", after="ls -A $D/root/live $D/root/ids $D/root/containers | grep -v : | grep ."
    )
    assert done.returncode == 125
    assert "on overlay, which can't be overlayfs's upperdir" in done.stderr
    assert "hint: set --root to a directory on ext4, xfs or btrfs" in done.stderr
    assert done.stdout == ""


def test_a_root_on_a_read_only_file_system(on, seed):
    done = on(
        f"mkdir $D/root; cp -a {seed}/. $D/root; mount --bind $D $D; mount -o remount,bind,ro $D", *RUN, "base", "true"
    )
    assert done.returncode == 125
    assert "Read-only file system" in done.stderr and "hint: " in done.stderr


def test_a_run_root_that_cannot_be_written(minibox, state):
    done = minibox("run", "--rm", "base", "true", env={"MINIBOX_RUNROOT": "/proc/nothing"})
    assert done.returncode == 125
    assert "/proc/nothing" in done.stderr and "internal error" not in done.stderr


def test_a_root_that_is_a_file(minibox, state):
    (state / "file").write_text("")
    done = minibox(*RUN, "base", "true", env={"MINIBOX_ROOT": str(state / "file")})
    assert done.returncode == 125
    assert str(state / "file") in done.stderr and "internal error" not in done.stderr
