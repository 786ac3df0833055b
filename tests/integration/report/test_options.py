"""The options of a run, by what the command inside sees of them."""

from __future__ import annotations

import os
import socket
import stat
import time

import pytest

from tests.probes import requires_root

pytestmark = requires_root

RUN = ("run", "--rm", "--network", "none")


@pytest.fixture
def run(minibox):
    """``run("-e", "A=b", "base", "env")``: what it prints; it must succeed."""

    def call(*words, **more):
        done = minibox(*RUN, *words, **more)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    return call


def _sh(script):
    return "base", "sh", "-c", script


# ---- process -------------------------------------------------------------------------------------


def test_environment(run):
    lines = run("-e", "A=b c", "-e", "FROM_OURS", "-e", "UNSET_HERE", "-e", "EMPTY=", "base", "env",
                env={"FROM_OURS": "yes"}).splitlines()  # fmt: skip
    assert {"A=b c", "FROM_OURS=yes", "EMPTY=", "HOME=/root"} <= set(lines)
    assert not any(line.startswith("UNSET_HERE") for line in lines)
    assert not any(line.startswith("MINIBOX_") for line in lines), "nothing else of ours"


def test_environment_from_a_file(run, state):
    (state / "env").write_text("# comment\n\nA=1\nB=two words\nFROM_OURS\n")
    lines = run("--env-file", str(state / "env"), "-e", "A=over", "base", "env", env={"FROM_OURS": "x"}).splitlines()
    assert {"A=over", "B=two words", "FROM_OURS=x"} <= set(lines)


def test_working_directory_is_made_when_missing(run):
    assert run("-w", "/a/new/place", *_sh("pwd; stat -c '%a %u' .")) == "/a/new/place\n755 0\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [("user", "1000 1000"), ("1000", "1000 1000"), ("1000:33", "1000 33"), ("user:www-data", "1000 33"),
     ("4321", "4321 0"), ("4321:4322", "4321 4322"), (":33", "0 33")],
)  # fmt: skip
def test_user(run, user, expected):
    assert run("-u", user, *_sh("echo $(id -u) $(id -g)")).strip() == expected


def test_home_is_the_users(run):
    assert run("-u", "user", *_sh("echo $HOME")) == "/home/user\n"


def test_further_groups(run):
    assert {"33", "777"} <= set(run("--group-add", "www-data", "--group-add", "777", *_sh("id -G")).split())


def test_entrypoint(run):
    assert run("--entrypoint", "echo", "base", "a", "b") == "a b\n"


def test_limits_of_the_process(run):
    assert run("--ulimit", "nofile=123:456", *_sh("ulimit -n; ulimit -Hn")) == "123\n456\n"
    assert run("--oom-score-adj", "500", *_sh("cat /proc/self/oom_score_adj")) == "500\n"


# ---- names and network files ---------------------------------------------------------------------


def test_hostname(run):
    assert run("--hostname", "box.example", *_sh("hostname; cat /etc/hostname")) == "box.example\nbox.example\n"


def test_hostname_is_the_short_id_by_default(run, state):
    name = run("--cidfile", str(state / "cid"), *_sh("hostname")).strip()
    assert (state / "cid").read_text()[:12] == name


def test_hosts_and_name_servers(run):
    said = run("--add-host", "db:192.0.2.7", "--dns", "192.0.2.53", *_sh("cat /etc/hosts /etc/resolv.conf"))
    assert ["192.0.2.7", "db"] in [line.split() for line in said.splitlines()]
    assert "nameserver 192.0.2.53\n" in said


def test_hosts_can_be_written_and_the_image_is_not(run):
    assert run(*_sh("echo 192.0.2.9 other >>/etc/hosts && grep -c other /etc/hosts")) == "1\n"
    assert "other" not in run("base", "cat", "/etc/hosts")


def test_network_none_has_loopback_alone(run):
    assert run(*_sh("ls /sys/class/net; ip -4 -o addr show lo | grep -c 127.0.0.1")) == "lo\n1\n"


def test_network_host_is_the_hosts(minibox):
    links = minibox("run", "--rm", "--network", "host", "base", "cut", "-d:", "-f1", "/proc/net/dev").stdout.split()
    assert {name for _, name in socket.if_nameindex()} <= set(links)


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_a_bound_directory_and_its_owners_look_alike_on_both_sides(run, state):
    place = state / "place"
    place.mkdir()
    place.chmod(0o777)
    (place / "of-7").write_text("x")
    os.chown(place / "of-7", 7, 8)
    script = "stat -c '%u %g' of-7; echo hi >of-root; chown 1000:33 of-7; su user -s /bin/sh -c 'echo u >of-user'"
    assert run("-v", f"{place}:/mnt", "-w", "/mnt", *_sh(script)) == "7 8\n"
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in place.iterdir()}
    assert owners == {"of-7": (1000, 33), "of-root": (0, 0), "of-user": (1000, 1000)}


@pytest.mark.parametrize("words", [("-v", "{}:/mnt:ro"), ("--mount", "type=bind,src={},dst=/mnt,readonly")])
def test_a_read_only_bind(run, state, words):
    (state / "place").mkdir()
    (state / "place" / "file").write_text("content")
    script = "cat /mnt/file; touch /mnt/new 2>&1 | grep -o Read-only; mount -o remount,rw /mnt 2>/dev/null || echo kept"
    assert run(*(word.format(state / "place") for word in words), *_sh(script)) == "contentRead-only\nkept\n"


def test_a_bound_file(run, state):
    (state / "file").write_text("before\n")
    run("-v", f"{state}/file:/etc/some/file", *_sh("cat /etc/some/file; echo after >/etc/some/file"))
    assert (state / "file").read_text() == "after\n"


def test_a_bind_over_what_the_image_has(run, state):
    (state / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    assert run("-v", f"{state}/passwd:/etc/passwd:ro", "base", "cat", "/etc/passwd") == "root:x:0:0::/:/bin/sh\n"


def test_a_named_volume_lasts_and_begins_with_the_images_content(run, state):
    script = "ls -ld /home/user | cut -c1-10; stat -c '%u %g' /home/user; echo more >>/home/user/file"
    first = run("-v", "vol-1:/home/user", *_sh(script))
    assert first.splitlines()[1] == "1000 1000", "the owner of the image's directory"
    assert run("-v", "vol-1:/elsewhere", *_sh("cat /elsewhere/file")) == "more\n"
    assert (state / "root" / "volumes" / "vol-1" / "_data" / "file").read_text() == "more\n"


def test_a_volume_is_filled_with_files_links_and_owners(run):
    script = "cd /mnt && stat -c '%n %u %g %a' passwd group && test -d /mnt && head -n1 passwd"
    lines = run("-v", "etc:/etc", "-v", "etc2:/mnt", *_sh("ls /etc/passwd")).splitlines()
    assert lines == ["/etc/passwd"]
    assert run("-v", "etc:/mnt", *_sh(script)).splitlines() == [
        "passwd 0 0 644", "group 0 0 644", "root:x:0:0:root:/root:/bin/sh"]  # fmt: skip


def test_a_volume_without_copy_begins_empty(run):
    assert (
        run("--mount", "type=volume,src=vol-2,dst=/etc,volume-nocopy", *_sh("ls /etc | grep -c passwd; true")) == "0\n"
    )


def test_an_anonymous_volume_goes_with_the_container(run, state):
    run("-v", "/data", *_sh("echo x >/data/file; mount | grep -c ' /data '"))
    assert not list(state.rglob("file"))


def test_tmpfs(run):
    said = run("--tmpfs", "/scratch:size=1m,mode=0700", *_sh("mount | grep /scratch; stat -c %a /scratch"))
    assert "tmpfs" in said and "size=1024k" in said and "noexec" in said
    assert said.endswith("700\n")


def test_a_read_only_root_has_read_only_files_of_ours(run):
    script = "for f in hosts hostname resolv.conf; do true >> /etc/$f || echo $f; done 2>/dev/null"
    assert run("--read-only", *_sh(script)).split() == ["hosts", "hostname", "resolv.conf"]


def test_read_only_root(run):
    script = "touch /new 2>&1 | grep -o Read-only; touch /dev/shm/x && echo shm; touch /tmp/x && echo tmp"
    assert run("--read-only", "--tmpfs", "/tmp", *_sh(script)) == "Read-only\nshm\ntmp\n"


def test_shared_memory_size(run):
    assert run("--shm-size", "1m", *_sh("df -k /dev/shm | tail -n1 | tr -s ' ' | cut -d' ' -f2")) == "1024\n"


def test_device(minibox):
    done = minibox(
        *RUN, "--device", "/dev/zero:/dev/mine:r", *_sh("head -c2 /dev/mine | wc -c; stat -c %t,%T /dev/mine")
    )
    assert (done.returncode, done.stdout) == (0, "2\n1,5\n"), done.stderr


@pytest.mark.parametrize("userns", ["private", "host"])
@pytest.mark.parametrize(("access", "answers"), [("rw", "read\nwrite\n"), ("r", "read\n")])
def test_a_device_that_only_root_may_open(minibox, state, userns, access, answers):
    os.mknod(state / "device", stat.S_IFCHR | 0o600, os.makedev(10, 229))  # FUSE's, which opens without effect
    script = _sh("stat -c '%a %U' /dev/a/b; (: </dev/a/b) && echo read; (: >/dev/a/b) && echo write")
    done = minibox(*RUN, "--userns", userns, "--device", f"{state}/device:/dev/a/b:{access}", *script)
    assert done.stdout == "600 root\n" + answers, done.stderr
    assert ("Operation not permitted" in done.stderr) == (access == "r")


@pytest.mark.kernel
@pytest.mark.parametrize("userns", ["private", "host"])
def test_a_time_namespace(run, userns):
    """The clocks that count from the boot run ahead; the time of day is everybody's."""
    script = _sh("cut -d. -f1 /proc/uptime; date +%s; readlink /proc/self/ns/time")
    before = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    uptime, date, namespace = run("--userns", userns, "--time-offset", "1000000", *script).split()
    assert 0 <= int(uptime) - 1_000_000 - before < 60
    assert abs(int(date) - time.time()) < 60
    assert namespace != os.readlink("/proc/self/ns/time") == run(*_sh("readlink /proc/self/ns/time")).strip()


# ---- isolation -----------------------------------------------------------------------------------


def _capabilities(said):
    return int(said.split()[1], 16)


def test_capabilities(run):
    show = ("base", "grep", "CapEff", "/proc/self/status")
    default = _capabilities(run(*show))
    assert default == 0x00000000A80425FB, "as Docker's"
    assert _capabilities(run("--cap-add", "NET_ADMIN", *show)) == default | 1 << 12
    assert _capabilities(run("--cap-drop", "CHOWN", *show)) == default & ~1
    assert _capabilities(run("--cap-drop", "ALL", *show)) == 0
    assert _capabilities(run("--cap-drop", "all", "--cap-add", "cap_chown", *show)) == 1
    assert _capabilities(run("-u", "1000", *show)) == 0


def test_no_new_privileges(run):
    assert (
        run("--security-opt", "no-new-privileges", "base", "grep", "NoNewPrivs", "/proc/self/status").split()[1] == "1"
    )


def test_seccomp(run, state):
    show = ("base", "grep", "^Seccomp:", "/proc/self/status")
    assert run(*show).split()[1] == "2"
    assert run("--security-opt", "seccomp=unconfined", *show).split()[1] == "0"
    profile = (
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    (state / "profile").write_text(profile)
    assert (
        run("--security-opt", f"seccomp={state}/profile", *_sh("mkdir /x 2>/dev/null || echo refused")) == "refused\n"
    )


@pytest.mark.kernel
def test_user_namespace(run):
    show = ("base", "cat", "/proc/self/uid_map")
    assert run("--userns", "host", *show).split() == ["0", "0", "4294967295"]
    inside, outside, count = map(int, run(*show).split())
    assert inside == 0 and outside > 0 and count == 65536


def test_privileged(run):
    script = "grep -c . /proc/sys/kernel/core_pattern >/dev/null && mkdir /m && mount -t tmpfs t /m && echo mounted"
    assert run("--privileged", *_sh(script)) == "mounted\n"
    assert run("--privileged", "base", "grep", "^Seccomp:", "/proc/self/status").split()[1] == "0"


def test_sysctl(run):
    said = run(
        "--sysctl", "net.ipv4.ip_unprivileged_port_start=7", *_sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
    )
    assert said == "7\n"
    assert run("--sysctl", "kernel.msgmax=4242", *_sh("cat /proc/sys/kernel/msgmax")) == "4242\n"


# ---- the container itself ------------------------------------------------------------------------


def test_label_name_and_cidfile(minibox, state):
    done = minibox(
        "run", "--network", "none", "--name", "kept", "--label", "a=b", "--cidfile", state / "cid", "base", "true"
    )
    assert done.returncode == 0, done.stderr
    listed = minibox("ps", "--all").stdout
    assert "kept" in listed and (state / "cid").read_text()[:12] in listed
    assert minibox("rm", "kept").returncode == 0
    assert not (state / "root" / "containers" / (state / "cid").read_text()).exists()


def test_rm_leaves_nothing(minibox, state):
    minibox(*RUN, "--name", "gone", "base", "touch", "/file")
    assert not list((state / "root" / "containers").iterdir())
    assert not list((state / "root" / "names").iterdir())
    assert not list((state / "root" / "live").iterdir())
    assert not list((state / "root" / "ids").iterdir())
