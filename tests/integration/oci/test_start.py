"""Anybody's Spec on the real kernel: its root, what may be missing, namespaces by path, and the gate."""

from __future__ import annotations

import os
import subprocess
import sys
from errno import ENOENT
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from minibox.engine.process.gate import FIFO, GateClosed, make_gate, open_gate
from minibox.errors import StepError
from minibox.plan.start import Start
from tests.bundles import Bundle, Ended, status_of
from tests.conftest import CHECKOUT
from tests.probes import requires

pytestmark = [requires("root")]


@pytest.fixture
def bundle(state: Path) -> Bundle:
    return Bundle(state / "bundle")


# ---- the root -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [False, True], ids=["host ids", "own ids"])
def test_a_directory_is_the_root_as_it_is(bundle: Bundle, ids: bool):
    (bundle.rootfs / "greeting").write_text("hi\n")
    spec = bundle.shell(
        "cat /greeting; id -u; echo new > /made; ls /old 2>&1; cut -d' ' -f5 /proc/self/mountinfo | grep -cx /"
    )
    ended = bundle.run(bundle.with_ids(spec) if ids else spec)
    assert ended.lines == ["hi", "0", "ls: /old: No such file or directory", "1"]
    assert (bundle.rootfs / "made").stat().st_uid == (70000 if ids else 0)


def test_what_is_mounted_below_the_root_belongs_to_it(bundle: Bundle):
    (bundle.rootfs / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", bundle.rootfs / "below"], check=True)
    try:
        (bundle.rootfs / "below/file").touch()
        assert bundle.run(bundle.spec("ls", "/below")).lines == ["file"]
    finally:
        subprocess.run(["umount", bundle.rootfs / "below"], check=True)


def test_a_read_only_root(bundle: Bundle):
    for name in ("proc", "dev"):
        (bundle.rootfs / name).mkdir()
    spec = bundle.shell("touch /x 2>&1; touch /dev/x && echo dev")
    spec["root"]["readonly"] = True
    assert bundle.run(spec).lines == ["touch: /x: Read-only file system", "dev"]


def test_ids_of_its_own_need_not_reach_the_directory_above(bundle: Bundle):
    """Its root, and the sources of its mounts, are opened while the host's root may."""
    spec = bundle.with_ids(bundle.spec("cat", "/file"))
    (bundle.path / "file").write_text("seen")
    spec["mounts"].append(
        {"destination": "/file", "type": "bind", "source": str(bundle.path / "file"), "options": ["bind", "ro"]}
    )
    bundle.path.chmod(0o700)
    assert bundle.run(spec).output == "seen"


# ---- what may be missing ------------------------------------------------------------------------


def test_the_least_that_a_spec_says(bundle: Bundle):
    (bundle.rootfs / "word").write_text("least\n")
    spec: Any = {
        "ociVersion": "1.0.0",
        "process": {"cwd": "/", "args": ["/bin/cat", "/word"]},
        "root": {"path": str(bundle.rootfs)},
        "linux": {"namespaces": [{"type": "mount"}]},
    }
    assert bundle.run(spec) == Ended(0, "least\n")


def test_no_capabilities_are_none(bundle: Bundle):
    ended = bundle.run(bundle.spec("grep", "Cap", "/proc/self/status"))
    assert {line.split()[1] for line in ended.lines} == {"0" * 16}


def test_without_a_pid_namespace_the_hosts_processes_are_seen(bundle: Bundle):
    spec = bundle.spec("readlink", "/proc/self/ns/pid")
    spec["linux"]["namespaces"] = [{"type": "mount"}]
    assert bundle.run(spec).output.strip() == os.readlink("/proc/self/ns/pid")


# ---- namespaces by path -------------------------------------------------------------------------

FILES = {"network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup", "pid": "pid", "time": "time", "user": "user"}


@pytest.mark.parametrize(
    ("kind", "own_ids"),
    # proc of a pid namespace is mounted by who has rights over that one's user namespace
    [(kind, own) for kind in sorted(FILES) for own in (False, True) if not (own and kind in ("user", "pid"))],
)
def test_a_namespace_is_joined_by_its_path(bundle: Bundle, kind: str, own_ids: bool):
    others = [{"type": each} for each in ("pid", "mount", "uts", "ipc", "network", "cgroup", "time") if each != kind]
    first = bundle.with_ids(bundle.spec("sleep", "1000"))
    first["linux"]["namespaces"] = [{"type": each} for each in ("mount", *FILES)]
    with bundle.started(first, Start()) as (running, _):
        assert running.init
        path = f"/proc/{running.init.pid}/ns/{FILES[kind]}"
        spec = bundle.shell(f"readlink /proc/self/ns/{FILES[kind]}; id -u; ip -o link | wc -l")
        spec["linux"]["namespaces"] = [*others, {"type": kind, "path": path}]
        if own_ids:
            spec = bundle.with_ids(spec)
        ended = bundle.run(spec)
        assert ended.lines == [os.readlink(path), "0", "1"]
        assert ended.status == 0


def test_a_pod_of_namespaces_is_joined(bundle: Bundle):
    """As Podman's pods with ids of their own do it: user, network, ipc and uts by path, the others new."""
    first = bundle.with_ids(bundle.spec("sleep", "1000"))
    first["hostname"] = "pod"
    with bundle.started(first) as (running, _):
        assert running.init
        shared = [
            {"type": kind, "path": f"/proc/{running.init.pid}/ns/{FILES[kind]}"}
            for kind in ("user", "network", "ipc", "uts")
        ]
        spec = bundle.shell("hostname; echo $$; touch /made")
        spec["linux"]["namespaces"] = [*shared, {"type": "mount"}, {"type": "pid"}]
        assert bundle.run(spec).lines == ["pod", "1"]
    assert (bundle.rootfs / "made").stat().st_uid == 70000


def test_a_path_that_is_no_namespace(bundle: Bundle):
    spec = bundle.spec("true")
    spec["linux"]["namespaces"][-1]["path"] = "/dev/null"
    with pytest.raises(StepError, match=r"enter a namespace \(NEWNET\).*EINVAL"):
        bundle.run(spec)


# ---- the gate -----------------------------------------------------------------------------------


class Gate:
    """The files of a gate, and how a container is made that waits at it."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.fds = make_gate(self.directory)
        self.how: dict[str, Any] = {"start": Start(detached=True, gate=True), "gate": self.fds}

    def creator_ends(self) -> None:
        """The container's own are left."""
        for fd in self.fds:
            os.close(fd)


def waits(directory: str) -> bool:
    try:
        os.close(os.open(f"{directory}/{FIFO}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def test_it_waits_before_its_exec_and_passes_once(bundle: Bundle):
    gate = Gate(bundle.path)
    with bundle.started(bundle.with_ids(bundle.shell("echo on; exit 7")), **gate.how) as (execution, output):
        gate.creator_ends()
        assert waits(gate.directory)
        assert open_gate(gate.directory) is None
        assert os.read(output, 100) == b"on\n"
        assert status_of(execution) == 7
        assert not waits(gate.directory)
        with pytest.raises(GateClosed, match="started already"):
            open_gate(gate.directory)


def test_what_fails_behind_the_gate_is_reported(bundle: Bundle):
    gate = Gate(bundle.path)
    with bundle.started(bundle.spec("/bin/nothing"), **gate.how) as (execution, _):
        gate.creator_ends()
        for end in execution._sockets:
            end.close()
        found = open_gate(gate.directory)
        assert found is not None
        assert (execution.plan.of("init")[found[0]].name, found[1]) == ("exec", ENOENT)


def test_nobody_waits(bundle: Bundle):
    gate = Gate(bundle.path)
    with bundle.started(bundle.spec("true"), **gate.how) as (execution, _):
        gate.creator_ends()
        assert execution.init
        execution.init.end(SIGKILL)
        assert not waits(gate.directory)
        with pytest.raises(GateClosed, match="has ended"):
            open_gate(gate.directory)


KEEPER = """
import os, sys
from pathlib import Path
from tests.bundles import Bundle
from minibox.plan.start import Start
bundle = Bundle(Path(sys.argv[1]))
print(bundle.run(bundle.shell("cat <&3; ls /proc/self/fd"), Start(kept_fds=1), kept_fds=(3,)).output)
"""


def test_descriptors_stay_open(state: Path):
    """Those from 3 on, as systemd hands them over; in a process that was started with them."""
    reader, writer = os.pipe()
    os.write(writer, b"through\n")
    os.close(writer)
    command = f'exec "$0" -c "$1" "$2" 3<&{reader}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, KEEPER, str(state / "bundle")],
        stdout=subprocess.PIPE, pass_fds=(reader,), cwd=CHECKOUT, text=True, check=True,
    )  # fmt: skip
    os.close(reader)
    assert done.stdout.split() == ["through", "0", "1", "2", "3", "4"]
