"""Escape attempts: what a container must not see, reach or change, tried from inside."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import images
from tests.conftest import Run
from tests.container_box import until
from tests.probes import requires
from tests.running_container import running

pytestmark = requires("root", "idmap", "command:cc")

Inside = Callable[..., list[str]]
DOCKERS_CAPABILITIES = 0xA80425FB  # docs.docker.com, "Runtime privilege and Linux capabilities": 14
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
FIRST_ID = 0x70000000
both_users = pytest.mark.parametrize("user_options", [(), ("--userns", "host")], ids=["own ids", "host's ids"])


@pytest.fixture(scope="module")
def escape(session_directory: Path) -> str:
    """The static program of escape.c."""
    path = session_directory / "escape"
    source = Path(__file__).with_name("escape.c")
    subprocess.run(["cc", "-static", "-O1", "-o", str(path), str(source)], check=True)
    return str(path)


@pytest.fixture
def inside(minibox: Run, escape: str) -> Inside:
    """Try things inside: ``inside(*options, script=...)`` gives what the script printed, split into lines."""

    def run(*options: str, script: str, **keywords: object) -> list[str]:
        words = ("run", "--rm", "--network", "none", "-v", f"{escape}:/escape:ro", *options, "base", "sh", "-c", script)
        done = minibox(*words, **keywords)
        assert done.returncode == 0, done.stderr
        return list(done.stdout.splitlines())

    return run


@both_users
def test_only_its_own_processes(inside: Inside, user_options: tuple[str, ...]) -> None:
    lines = inside(*user_options, script="echo $$; ls /proc | grep '^[0-9]' | xargs echo; ps -o args")
    assert lines[0] == "1"
    assert all(int(pid) < 30 for pid in lines[1].split())
    assert not any("minibox" in line or "pytest" in line for line in lines)


@both_users
def test_nothing_of_the_hosts_files(inside: Inside, state: Path, user_options: tuple[str, ...]) -> None:
    marker = state / "marker"
    marker.write_text("host")
    script = f"""
        for root in / /proc/1/root /proc/self/root /proc/1/cwd /.. /proc/1/root/../..; do
            [ -e $root{marker} ] && echo found $root; done
        ls -a / | xargs echo; cat /proc/self/mountinfo"""
    first, *mounts = inside(*user_options, script=script)
    assert not {"old", ".old", "old_root", "oldroot", ".pivot_root"} & set(first.split())
    fields = [line.split() for line in mounts]
    binds = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/escape"}
    for line in fields:  # a bind mount shows the path of its source, whoever makes it
        assert line[4] in binds or str(state) not in " ".join(line), line
        if line[4] not in binds:
            assert line[line.index("-") + 1] in ("overlay", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup",
                                                 "cgroup2", "devtmpfs"), line  # fmt: skip
    assert len([line for line in fields if line[4] == "/"]) == 1, "the old root is still mounted"
    assert not any(flag.startswith(("shared:", "master:")) for line in fields for flag in line[6 : line.index("-")])


@pytest.mark.kernel
@both_users
def test_system_calls_on_the_hosts_kernel_are_refused(inside: Inside, user_options: tuple[str, ...]) -> None:
    calls = """init_module finit_module delete_module kexec_load bpf perf_event_open userfaultfd open_by_handle_at
               unshare_user keyring request_key add_key swapon acct settimeofday iopl io_uring_setup syslog""".split()
    lines = inside(*user_options, script="for call in " + " ".join(calls) + "; do /escape $call; done")
    answers = dict(zip(calls, lines, strict=True))
    assert set(answers.values()) <= {"EPERM", "ENOSYS"}, answers


WRITES = ("/proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/vm/overcommit_memory "
          "/proc/sysrq-trigger /proc/irq/default_smp_affinity /proc/kcore /sys/kernel/mm/ksm/run /sys/power/state "
          "/sys/kernel/uevent_helper").split()  # fmt: skip


@pytest.mark.kernel
@both_users
def test_the_kernels_files_are_not_for_writing(inside: Inside, user_options: tuple[str, ...]) -> None:
    lines = inside(*user_options, script="for path in " + " ".join(WRITES) + "; do /escape write $path; done")
    allowed = {"EROFS", "EACCES", "EPERM", "ENOENT"}
    refused = dict(zip(WRITES, lines, strict=True))
    # A masked file is /dev/null: writing there reaches nobody.
    assert {path: answer for path, answer in refused.items() if answer not in allowed} in ({}, {"/proc/kcore": "ok"})


@both_users
def test_no_mount_and_no_umount(inside: Inside, user_options: tuple[str, ...]) -> None:
    script = """/escape mount /mnt; /escape mount /proc/sys; /escape umount /proc/sys; /escape umount /sys/firmware
                /escape remount /sys; /escape remount /proc/sys; /escape umount /proc/keys; /escape umount /"""
    assert set(inside(*user_options, script=script)) == {"EPERM"}


def test_who_may_mount_may_uncover_but_not_use(inside: Inside) -> None:
    """With CAP_SYS_ADMIN of its own user namespace a container may take its masks away, as in Docker:
    what lies behind is still the host's root's."""
    script = "for path in /proc/sys /proc/irq /proc/bus /proc/keys /sys; do /escape umount $path >/dev/null; done\n"
    script += "for path in " + " ".join(WRITES) + "; do /escape write $path; done\n"
    script += (
        "mount -t proc proc /mnt && /escape write /mnt/sysrq-trigger; /escape write /mnt/sys/kernel/core_pattern\n"
    )
    script += "/escape device /dev/x b 8 0; /escape finit_module"
    lines = inside("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", script=script)
    answers = dict(zip([*WRITES, "new sysrq", "new core_pattern", "device", "finit_module"], lines, strict=False))
    # The hostname is that of its own UTS namespace, and so its own to set.
    assert answers.pop("/proc/sys/kernel/hostname") in ("ok", "EACCES", "ENOENT")
    assert answers.pop("/proc/kcore") in ("ok", "ENOENT")  # still masked by /dev/null, where the kernel has one
    assert set(answers.values()) <= {"EACCES", "EPERM", "EROFS", "ENOENT", "ENOSYS"}, answers


@both_users
def test_namespaces_are_its_own(inside: Inside, user_options: tuple[str, ...]) -> None:
    lines = inside(
        *user_options, script="for name in " + " ".join(NAMESPACES) + "; do readlink /proc/self/ns/$name; done"
    )
    shared = {
        name for name, line in zip(NAMESPACES, lines, strict=True) if line == os.readlink(f"/proc/self/ns/{name}")
    }
    assert shared == ({"user"} if user_options else set())


@both_users
def test_no_way_into_the_hosts_network(inside: Inside, user_options: tuple[str, ...]) -> None:
    name = f"minibox-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        # setns needs privilege even for one's own namespace: its answer shows that the door is closed.
        script = f"/escape abstract {name}; for ns in net mnt pid; do /escape setns /proc/1/ns/$ns; done"
        assert inside(*user_options, script=script) == ["ECONNREFUSED", "EPERM", "EPERM", "EPERM"]


@both_users
def test_processes_outside_are_out_of_reach(inside: Inside, user_options: tuple[str, ...]) -> None:
    with subprocess.Popen(["sleep", "100"]) as outside:
        try:
            script = f"/escape ptrace {outside.pid}; /escape kill {outside.pid}; kill -9 -1; echo alive"
            assert inside(*user_options, script=script) == ["ESRCH", "ESRCH", "alive"]
            assert outside.poll() is None
        finally:
            outside.kill()


@both_users
def test_no_descriptor_of_the_hosts(inside: Inside, user_options: tuple[str, ...]) -> None:
    with open("/etc/hosts") as leaky:
        lines = inside(*user_options, script="/escape descriptors", pass_fds=(leaky.fileno(),))
    assert lines == ["0 1 2 "]


@pytest.mark.parametrize("number", [3, 5, 6, 7, 8, 9, 10, 12, 48])
def test_no_working_directory_outside(minibox: Run, number: int) -> None:
    """CVE-2024-21626: a descriptor of the host's, reached by /proc/self/fd."""
    for path in (f"/proc/self/fd/{number}", f"/proc/1/fd/{number}/../../.."):
        done = minibox("run", "--rm", "--network", "none", "-w", path, "base", "ls", "-a", "../../../..")
        assert done.returncode == 125, done.stdout
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) <= 3, done.stderr


def test_no_working_directory_outside_by_the_images_link(minibox: Run, state: Path) -> None:
    name = images.derive(state / "root", "linked", images.link("work", "/proc/self/fd/7"))
    done = minibox("run", "--rm", "--network", "none", "-w", "/work", name, "true")
    assert done.returncode == 125, done.stderr


LINKS = ("dev", "proc", "sys", "etc", "etc/hosts", "etc/resolv.conf", "mnt", "tmp")


@pytest.mark.parametrize("target", ["/", "..", "host", "../../../../../../.."])
@pytest.mark.parametrize("place", LINKS)
def test_links_in_an_image_lead_nowhere_outside(minibox: Run, state: Path, place: str, target: str) -> None:
    outside, volume = state / "outside", state / "volume"
    for path in (outside, volume):
        path.mkdir()
        (path / "marker").write_text("host")
    if target == "host":
        target = str(outside)
    elif target.startswith("../.."):
        target += str(outside)
    name = images.derive(state / "root", "linked", images.link(place, target))
    before = _listing(outside), Path("/etc/hosts").read_text(), _names("/"), _names("/dev")
    script = f"cat {outside}/marker 2>/dev/null; ls / >/dev/null"
    options = ("-v", f"{volume}:/mnt/deep/er", "--tmpfs", "/tmp/deep", "-w", "/tmp/work")
    done = minibox("run", "--rm", "--network", "none", *options, name, "sh", "-c", script)
    # The kernel may refuse such an image; it must not be led astray by it.
    assert done.returncode in (0, 125), (done.returncode, done.stderr)
    assert done.stdout == ""
    after = _listing(outside), Path("/etc/hosts").read_text(), _names("/"), _names("/dev")
    assert after == before
    assert _listing(volume) == ["marker"]


@pytest.mark.parametrize("target", ["../run/systemd/resolve/stub-resolv.conf", "/run/nowhere", "nowhere"])
def test_a_file_of_ours_over_a_link_to_nowhere(minibox: Run, state: Path, target: str) -> None:
    """Images of whole systems have such an /etc/resolv.conf."""
    name = images.derive(state / "root", "linked", images.link("etc/resolv.conf", target))
    done = minibox("run", "--rm", "--network", "none", "--dns", "192.0.2.53", name, "cat", "/etc/resolv.conf")
    assert "nameserver 192.0.2.53" in done.stdout, done.stderr


def _names(directory: str) -> list[str]:
    """What is in a directory of the machine's, but for devices: the kernel adds some, such as loop's, for others."""
    with os.scandir(directory) as entries:
        return sorted(each.name for each in entries if each.is_dir() or each.is_file() or each.is_symlink())


def _listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.mark.kernel
def test_root_inside_is_not_root_outside(minibox: Run, inside: Inside, state: Path) -> None:
    shared = state / "shared"
    shared.mkdir()
    (shared / "secret").write_text("of the host's root")
    (shared / "secret").chmod(0o600)
    lines = inside(
        "-v", f"{shared}:/shared", script="cat /proc/self/uid_map; touch /shared/made; stat -c %u /shared/made"
    )
    first_inside, first_outside, count = map(int, lines[0].split())
    assert first_inside == 0 and first_outside >= FIRST_ID and count == 65536
    assert lines[1] == "0"
    assert (shared / "made").stat().st_uid == 0, "the bind mount is id-mapped: owners look alike on both sides"


def test_its_processes_belong_to_nobody_outside(
    minibox: Run, minibox_command: list[str], environment: dict[str, str]
) -> None:
    script = "sleep 97 & while ! pidof sleep; do :; done"
    with running(minibox_command, environment, "--network", "none", script=script):
        until(_sleepers, "it can be seen")  # its name, which pidof goes by, is set before its command line
        assert min(Path(f"/proc/{pid}").stat().st_uid for pid in _sleepers()) >= FIRST_ID


def _sleepers() -> list[str]:
    return [pid for pid in os.listdir("/proc") if _words(pid) == ["sleep", "97"]]


def _words(pid: str) -> list[str]:
    try:
        return Path(f"/proc/{int(pid)}/cmdline").read_text().rstrip("\0").split("\0")
    except (OSError, ValueError):
        return []


def test_two_containers_have_no_id_in_common(
    inside: Inside, minibox_command: list[str], environment: dict[str, str]
) -> None:
    script = "cat /proc/self/uid_map"
    with running(minibox_command, environment, "--network", "none", script=script) as first:
        other = inside(script=script)[0].split()
    assert first.first_line.split()[1] != other[1]


@pytest.mark.kernel
@both_users
def test_devices_of_the_host_can_not_be_opened(inside: Inside, user_options: tuple[str, ...]) -> None:
    devices = ["b 8 0", "b 7 0", "c 1 1", "b 254 0"]
    if not user_options:
        devices += ["c 10 200"]  # /dev/net/tun: Docker's default list allows it to who may make its node
    script = "".join(
        f"/escape device /x {device}; /escape device /dev/x {device}; rm -f /x /dev/x;" for device in devices
    )
    assert inside(*user_options, script=script) == ["EPERM"] * 2 * len(devices)


def test_a_terminal_of_the_hosts_takes_no_input_from_inside(minibox: Run, escape: str) -> None:
    master, slave = os.openpty()
    try:
        done = minibox(
            "run",
            "--rm",
            "-i",
            "--network",
            "none",
            "-v",
            f"{escape}:/escape",
            "base",
            "/escape",
            "tiocsti",
            stdin=slave,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert done.stdout in ("EPERM\n", "EIO\n", "ENOTTY\n")


@pytest.mark.kernel
@both_users
def test_privileges(inside: Inside, user_options: tuple[str, ...]) -> None:
    script = "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status"
    status = dict(line.split(":\t") for line in inside(*user_options, script=script))
    assert {int(status[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Bnd")} == {DOCKERS_CAPABILITIES}
    assert int(status["CapAmb"], 16) == 0
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "0"
    status = dict(
        line.split(":\t") for line in inside(*user_options, "--security-opt", "no-new-privileges", script=script)
    )
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    status = dict(line.split(":\t") for line in inside(*user_options, "-u", "1000", script=script))
    assert {int(status[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Inh", "Amb")} == {0}


@both_users
def test_the_standard_file_systems(inside: Inside, user_options: tuple[str, ...]) -> None:
    """OCI runtime-spec, config-linux.md, "Default Filesystems" and "Default Devices"."""
    script = """cat /proc/self/mountinfo; echo ==
        for device in null zero full random urandom tty; do [ -c /dev/$device ] && echo $device; done
        for name in fd stdin stdout stderr ptmx; do readlink /dev/$name; done
        head -c 4 /dev/zero | wc -c; echo x > /dev/null; echo x 2>/dev/null > /dev/full || echo full; cat /proc/keys; ls -A /sys/firmware"""
    lines = inside(*user_options, script=script)
    at = lines.index("==")
    kinds, options = {}, {}
    for line in map(str.split, lines[:at]):
        kinds[line[4]], options[line[4]] = line[line.index("-") + 1], set(line[5].split(","))
    wanted = {"/": "overlay", "/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs",
              "/dev/mqueue": "mqueue", "/sys": "sysfs"}  # fmt: skip
    assert {path: kinds.get(path) for path in wanted} == wanted
    for path in ("/proc", "/dev/shm", "/dev/mqueue", "/sys"):
        assert {"nosuid", "nodev", "noexec"} <= options[path]
    assert "ro" in options["/sys"] and {"ro", "nosuid"} <= options["/proc/sys"]
    links = ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"]
    assert lines[at + 1 :] == ["null", "zero", "full", "random", "urandom", "tty", *links, "4", "full"]
