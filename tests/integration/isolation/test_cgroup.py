"""Cgroups on the real kernel: limits that hold, kills that leave nothing, errors that say why."""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from minibox.errors import LimitError, MiniboxError
from minibox.linux.cgroup import (
    Cgroup,
    CgroupHost,
    CgroupMounts,
    create,
    detect,
    find,
    parse_mounts,
)
from tests.container_box import until
from tests.probes import requires

MIB = 1 << 20
MEMORY = {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}}


def mounts() -> CgroupMounts:
    with open("/proc/self/mountinfo") as stream:
        return parse_mounts(stream.read())


def hosts() -> list[CgroupHost]:
    """This host as it is and, where it has both, each of its halves as a host of its own."""
    here = mounts()
    found = {"here": here}
    if here.v1 and here.v2:
        found |= {"v1 alone": CgroupMounts(here.v1, "", ""), "v2 alone": CgroupMounts({}, here.v2, here.v2_root)}
    return [pytest.param(detect(each), id=name) for name, each in found.items()]  # type: ignore[misc]


def has(host: CgroupHost, controller: str) -> bool:
    return controller in host.v1 or controller in host.v2_available


pytestmark = [requires("root", "cgroup"), pytest.mark.kernel]
every_host = pytest.mark.parametrize("host", hosts())


@pytest.fixture
def name() -> Iterator[str]:
    name = f"minibox-test{os.getpid()}"
    yield name
    assert not find(detect(), name).directories, "the test left its cgroup"


@pytest.fixture
def make(name: str, orphans: None) -> Iterator[Callable[..., Cgroup]]:
    made: list[Cgroup] = []

    def make(host: CgroupHost, resources: dict, **options: bool) -> Cgroup:
        made.append(create(host, name, resources, **options))
        return made[-1]

    yield make
    for cgroup in made:
        cgroup.kill()
        cgroup.remove()


def start(cgroup: Cgroup, work: Callable[[], int]) -> int:
    """Fork a child that does ``work`` once it is in ``cgroup``; its pid."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.read(reader, 1)
            os._exit(work())
        except BaseException:
            os._exit(99)
    cgroup.attach(pid)
    os.write(writer, b"x")
    os.close(reader)
    os.close(writer)
    return pid


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def sleep_forever() -> int:
    time.sleep(1000)
    return 0


def fork_four_times() -> int:
    for _ in range(4):
        os.fork()
    return sleep_forever()


def fork_forever() -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            os.fork()
        except OSError:
            pass


def open_errno(path: str, flags: int) -> int:
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return error.errno or 0
    return 0


@requires("cgroup:memory")
def test_a_process_over_its_memory_is_killed_and_counted(make):
    cgroup = make(detect(), MEMORY)
    assert wait(start(cgroup, lambda: len(bytearray(4 * MIB)) and 7)) == 7
    assert cgroup.oom_kills() == 0
    assert wait(start(cgroup, lambda: len(bytearray(128 * MIB)) and 0)) == -signal.SIGKILL
    assert cgroup.oom_kills() == 1
    peak = cgroup.usage().memory_peak_bytes
    assert peak is not None and 16 * MIB < peak <= 32 * MIB


@requires("cgroup:pids")
def test_a_process_limit_counts_all_processes(make):
    def fork_until_refused() -> int:
        count = 0
        while True:
            try:
                if os.fork() == 0:
                    sleep_forever()
            except BlockingIOError:  # EAGAIN
                return count
            count += 1

    cgroup = make(detect(), {"pids": {"limit": 10}})
    assert wait(start(cgroup, fork_until_refused)) == 9
    assert cgroup.usage().pids == 9
    assert len(cgroup.pids()) == 9


@requires("cgroup:cpu")
def test_a_cpu_limit_holds(make):
    def spin() -> int:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
        return int(time.process_time() * 100)

    cgroup = make(detect(), {"cpu": {"quota": 20000, "period": 100000}})
    assert wait(start(cgroup, spin)) <= 20  # of 50 hundredths, 10 are its own


def disk_of(device: int) -> int:
    """The disk that ``device`` is a partition of, else itself."""
    link = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    if not (link / "partition").exists():
        return device
    major, minor = (link.parent / "dev").read_text().split(":")
    return os.makedev(int(major), int(minor))


@requires("root")
def test_bytes_to_and_from_a_disk_are_counted(make, session_directory):
    def write() -> int:
        fd = os.open(session_directory / "written", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
        os.write(fd, mmap.mmap(-1, MIB))  # past the page cache, whose writers v1 doesn't know
        return 0

    device = disk_of(session_directory.stat().st_dev)
    limit = {"major": os.major(device), "minor": os.minor(device), "rate": 1 << 40}
    if not has(detect(), "blkio") and not has(detect(), "io") or not os.major(device):
        pytest.skip("needs a file system on a disk, and a controller that counts")
    cgroup = make(detect(), {"blockIO": {"throttleWriteBpsDevice": [limit]}})
    before = cgroup.usage().io_write_bytes
    assert before == 0
    assert wait(start(cgroup, write)) == 0
    written = cgroup.usage().io_write_bytes
    assert written is not None and MIB <= written < 2 * MIB
    assert cgroup.usage().io_read_bytes is not None


@requires("cgroup:cpuset")
def test_cpus_are_those_that_were_asked_for(make):
    cgroup = make(detect(), {"cpu": {"cpus": "0"}})
    assert wait(start(cgroup, lambda: 0 if os.sched_getaffinity(0) == {0} else 1)) == 0


@requires("cgroup:pids")
def test_a_child_enters_by_itself(make):
    """The fast way in for v1: the child writes "0" to descriptors that were opened for it."""
    cgroup = make(detect(), {"pids": {"limit": 5}})
    fds = cgroup.open_tasks()
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)  # the permission is that of the opener
        for fd in fds:
            os.write(fd, b"0")
        try:
            os.setsid()
            sleep_forever()
        finally:
            os._exit(0)
    for fd in fds:
        os.close(fd)
    expected = {pid} if fds else set()
    until(lambda: all(_pids(path) == expected for path in cgroup.v1.values()))
    os.kill(pid, signal.SIGKILL)
    wait(pid)


def _pids(directory: str) -> set[int]:
    with open(f"{directory}/cgroup.procs") as stream:
        return set(map(int, stream.read().split()))


def test_the_v2_descriptor_is_the_directory(make):
    cgroup = make(detect(), {})
    fd = cgroup.open_v2()
    if not cgroup.v2:
        assert fd == -1
        return
    assert os.path.samestat(os.fstat(fd), os.stat(cgroup.v2))
    assert not os.get_inheritable(fd)
    os.close(fd)


@every_host
def test_a_fork_bomb_is_killed(make, host):
    limits = {"pids": {"limit": 50}} if has(host, "pids") else {}
    cgroup = make(host, limits)
    if limits:
        pid = start(cgroup, fork_forever)
        until(lambda: len(cgroup.pids()) > 10)
    else:  # no limit to hold a bomb: a small tree will do
        pid = start(cgroup, fork_four_times)
        until(lambda: len(cgroup.pids()) == 16)
    cgroup.kill()
    assert cgroup.pids() == set()
    assert wait(pid) == -signal.SIGKILL


@every_host
def test_frozen_processes_stand_still_and_can_be_killed(make, host):
    def count() -> int:
        while True:
            os.write(writer, b".")
            time.sleep(0.001)

    reader, writer = os.pipe2(os.O_NONBLOCK)
    cgroup = make(host, {})
    pid = start(cgroup, count)
    assert select.select([reader], [], [], 10)[0]
    cgroup.freeze()
    assert os.read(reader, 65536)
    time.sleep(0.05)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    cgroup.thaw()
    assert select.select([reader], [], [], 10)[0]
    assert os.read(reader, 65536)
    cgroup.freeze()
    cgroup.kill()
    assert wait(pid) == -signal.SIGKILL
    os.close(reader)
    os.close(writer)


@every_host
def test_what_a_container_made_below_goes_too(make, host):
    cgroup = make(host, {})
    for directory in cgroup.directories:
        os.makedirs(f"{directory}/inner/most")
    inner = Cgroup(cgroup.name, {}, f"{cgroup.directories[0]}/inner/most")
    pid = start(inner, sleep_forever)
    assert cgroup.pids() == {pid}
    cgroup.kill()
    wait(pid)
    cgroup.remove()
    assert not any(map(os.path.exists, cgroup.directories))
    cgroup.remove()  # and again: nothing to do


@every_host
def test_a_leftover_is_found_killed_and_removed(name, host):
    pid = start(create(host, name, {}), sleep_forever)
    found = find(host, name)
    assert found.pids() == {pid}
    found.kill()
    assert wait(pid) == -signal.SIGKILL
    found.remove()
    assert not find(host, name).directories


def test_a_cgroup_in_use_is_not_removed(make):
    cgroup = make(detect(), {})
    pid = start(cgroup, sleep_forever)
    with pytest.raises(MiniboxError, match=f"busy.*processes {pid} are in it"):
        cgroup.remove(timeout_s=0.05)


def test_one_that_is_in_use_in_one_hierarchy_is_removed_from_the_others(make):
    cgroup = make(detect(), {})
    busy, *others = cgroup.directories
    below = os.path.join(busy, "below")
    os.mkdir(below)
    child = subprocess.Popen(["sleep", "1000"])
    try:
        Path(below, "cgroup.procs").write_text(str(child.pid))
        with pytest.raises(MiniboxError, match="busy"):
            cgroup.remove(timeout_s=0.05)
        assert not any(map(os.path.isdir, others))
    finally:
        child.kill()
        child.wait()


def test_a_second_one_of_the_name_is_refused_and_the_first_stays(make, name):
    first = make(detect(), {})
    with pytest.raises(MiniboxError, match="File exists"):
        create(detect(), name, MEMORY)
    assert all(map(os.path.isdir, first.directories))


@pytest.mark.parametrize(
    ("resources", "message", "hint"),
    [
        (
            {"cpu": {"cpus": "0-4095"}},
            "set of CPUs: write .*cpuset.cpus.*value 0-4095",
            "/sys/devices/system/cpu/online",
        ),
        ({"cpu": {"quota": 10, "period": 100000}}, "CPU limit: write .*EINVAL.*value 10", "at least 0.01 CPUs"),
        ({"pids": {"limit": 1 << 40}}, "process limit: write .*EINVAL", "1 or more"),
    ],
)
def test_what_the_kernel_refuses_is_named_and_undone(name, resources, message, hint):
    with pytest.raises(LimitError, match=message) as caught:
        create(detect(), name, {**MEMORY, **resources})
    assert hint in str(caught.value.hint)
    assert not find(detect(), name).directories


def test_attach_names_the_process_that_is_not_there(make):
    with pytest.raises(MiniboxError, match=r"move process 4194304 to cgroup .*ESRCH"):
        make(detect(), {}).attach(4194304)


RULES = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]


@every_host
def test_device_rules_hold(make, host):
    if "devices" not in host.v1:
        pytest.importorskip("minibox._native")
    cgroup = make(host, {"devices": RULES})
    assert open_errno("/dev/kmsg", os.O_WRONLY) == 0  # outside
    for path, flags, answer in (
        ("/dev/null", os.O_RDWR, 0),
        ("/dev/kmsg", os.O_RDONLY, 0),
        ("/dev/kmsg", os.O_WRONLY, errno.EPERM),
        ("/dev/kmsg", os.O_RDWR, errno.EPERM),
        ("/dev/mem", os.O_RDONLY, errno.EPERM),
    ):
        if os.path.exists(path):
            assert wait(start(cgroup, partial(open_errno, path, flags))) == answer, (path, flags)


def test_a_host_without_cgroups_runs_without_limits_and_says_no_to_one(name):
    host = detect(CgroupMounts({}, "", ""))
    cgroup = create(host, name, {})
    assert (cgroup.directories, cgroup.open_v2(), cgroup.open_tasks()) == ((), -1, [])
    cgroup.attach(os.getpid())
    cgroup.kill()
    assert (cgroup.oom_kills(), cgroup.usage().memory_bytes) == (0, None)
    cgroup.remove()
    with pytest.raises(LimitError, match="no cgroup hierarchy"):
        create(host, name, MEMORY)


@pytest.fixture
def v2_controller() -> Iterator[tuple[str, dict]]:
    """A controller that is on v2 here, and limits for it; what the test enables at the root is undone."""
    here = mounts()
    limits: dict[str, dict] = {
        "pids": {"pids": {"limit": 7}},
        "hugetlb": {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
    }
    host = detect(CgroupMounts({}, here.v2, here.v2_root)) if here.v2 else CgroupHost("none", {})
    name = next((name for name in limits if name in host.v2_available), "")
    if not name:
        pytest.skip("needs a controller on cgroup v2")
    yield name, limits[name]
    if name not in host.v2_enabled:
        with open(f"{host.v2_parent}/cgroup.subtree_control", "w") as stream:
            stream.write(f"-{name}")


def test_a_controller_is_enabled_and_refused_below_processes(v2_controller, make):
    controller, limits = v2_controller
    here = mounts()
    outer = make(detect(CgroupMounts({}, here.v2, here.v2_root)), limits)
    file = "pids.max" if controller == "pids" else "hugetlb.2MB.max"
    with open(f"{outer.v2}/{file}") as stream:
        assert stream.read().strip() == ("7" if controller == "pids" else "0")
    inner = CgroupHost("v2", {}, (), outer.v2, (controller,), ())
    start(outer, sleep_forever)
    with pytest.raises(LimitError, match="EBUSY.*the cgroup has processes of its own") as caught:
        create(inner, "minibox-inner", limits)
    assert f"mkdir {outer.v2}/init" in str(caught.value.hint)
    outer.kill()
    create(inner, "minibox-inner", limits).remove()


@pytest.mark.not_in_vm("cgroup v1")
def test_a_process_in_one_hierarchy_alone_is_killed_too(make):
    host = detect()
    if not (host.v1 and host.v2_parent):
        pytest.skip("needs cgroup v1 and v2 at once")
    cgroup = make(host, {})
    pid = start(Cgroup(cgroup.name, cgroup.v1, ""), sleep_forever)
    assert cgroup.usage().pids == 1
    cgroup.kill()
    assert wait(pid) == -signal.SIGKILL
