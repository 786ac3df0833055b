"""`make_spec`: exact Specs of options."""

from __future__ import annotations

import json
from typing import Any

import pytest

from minibox.engine.spec.mount_options import user_mounts
from minibox.engine.spec.options import RunOptions, typed
from minibox.engine.spec.runtime_spec import complete
from minibox.errors import ConfigError, Unsupported, UsageError
from minibox.linux.capabilities import DEFAULT, NAMES
from minibox.linux.lsm import has_apparmor
from minibox.oci.schema import SPEC, checked
from tests.unit.specs import ID, RANGE, SINGLE, facts, mount_at, spec_of


def test_plain_spec():
    spec = spec_of(given={"files": {"/etc/hosts": "/run/hosts"}})
    assert spec["process"] == {
        "terminal": False,
        "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
        "args": ["sh"],
        "env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=0123456789ab",
            "HOME=/root",
        ],
        "cwd": "/",
        "capabilities": {"bounding": list(DEFAULT), "effective": list(DEFAULT), "permitted": list(DEFAULT)},
        "noNewPrivileges": False,
    }
    assert spec["root"] == {"path": "/bundle/rootfs", "readonly": False}
    assert spec["hostname"] == "0123456789ab"
    assert [(mount["destination"], mount["type"], mount["options"]) for mount in spec["mounts"]] == [
        ("/proc", "proc", ["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
        ("/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", ["nosuid", "noexec", "nodev", "ro"]),
        ("/etc/hosts", "bind", ["bind", "rprivate"]),
    ]
    linux = spec["linux"]
    assert [each["type"] for each in linux["namespaces"]] == ["pid", "ipc", "uts", "mount", "cgroup", "network"]
    assert "/proc/kcore" in linux["maskedPaths"] and "/proc/sys" in linux["readonlyPaths"]
    assert list(linux["resources"]) == ["devices"]
    assert "seccomp" not in linux and spec["annotations"] == {"io.minibox.seccomp": "default"}
    assert complete(spec)["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"


def test_every_spec_is_a_valid_oci_config():
    spec = spec_of(
        ulimit=("nofile=1024:2048", "core=-1"), device=("/dev/fuse",), memory_bytes=64 << 20, cpus=1.5, pids_limit=5,
        oom_score_adj=5, sysctl=("net.core.somaxconn=5",), label=("a=b",), stop_signal="INT", volume=("data:/data",),
        given={"cgroups_path": "/minibox-x"},
    )  # fmt: skip
    assert checked(json.loads(json.dumps(complete(spec))), SPEC, "config.json") == complete(spec)


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        ({"Cmd": ["sh"]}, {}, ["sh"]),
        ({"Cmd": ["sh"]}, {"command": ("ls", "-l")}, ["ls", "-l"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {}, ["e", "c"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"command": ("x",)}, ["e", "x"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": "o"}, ["o"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": "o", "command": ("x",)}, ["o", "x"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": "", "command": ("x",)}, ["x"]),
    ],
)
def test_entrypoint_and_command(image, options, expected):
    assert spec_of(image, **options)["process"]["args"] == expected


@pytest.mark.parametrize("options", [{}, {"entrypoint": ""}, {"command": ("",)}])
def test_no_command(options):
    with pytest.raises(UsageError):
        spec_of({"Cmd": ["c"]} if options.get("entrypoint") == "" else {}, **options)


def test_environment_precedence():
    image = {"Cmd": ["sh"], "Env": ["PATH=/image", "A=image", "B=image", "GONE=image", "HOME=/image-home"]}
    env = spec_of(image, env=("A=user", "CALLER", "GONE", "EMPTY=", "X=a=b"), env_file=("env",), tty=True)["process"][
        "env"
    ]
    assert env == [
        "PATH=/image", "HOSTNAME=0123456789ab", "TERM=xterm", "A=user", "B=image", "HOME=/image-home", "FROM_FILE=1",
        "SPACED= x y ", "CALLER=mine", "EMPTY=", "X=a=b",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["", "=x", "A=\0"])
def test_bad_environment(word):
    with pytest.raises(UsageError, match="invalid environment variable"):
        spec_of(env=(word,))


@pytest.mark.parametrize(
    ("user", "groups", "expected", "home"),
    [
        ("", (), (0, 0, [0]), "/root"),
        ("ada", (), (1000, 1001, [1001, 29, 998]), "/home/ada"),
        ("1000", (), (1000, 1001, [1001, 29, 998]), "/home/ada"),
        ("ada:users", (), (1000, 100, [100]), "/home/ada"),
        ("ada:7", (), (1000, 7, [7]), "/home/ada"),
        ("4242", (), (4242, 0, [0]), "/"),
        ("4242:4243", ("audio", "55"), (4242, 4243, [4243, 29, 55]), "/"),
    ],
)
def test_users(user, groups, expected, home):
    process = spec_of(user=user, group_add=groups)["process"]
    assert (process["user"]["uid"], process["user"]["gid"], process["user"]["additionalGids"]) == expected
    assert f"HOME={home}" in process["env"]
    assert bool(process["capabilities"]["effective"]) == (expected[0] == 0)
    assert process["capabilities"]["bounding"] == list(DEFAULT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": "eve"}, "unable to find user eve: no matching entries in passwd file"),
        ({"user": "ada:eve"}, "unable to find group eve: no matching entries in group file"),
        ({"group_add": ("eve",)}, "unable to find group eve: no matching entries in group file"),
        ({"user": "2147483648"}, "id 2147483648 is out of range"),
    ],
)
def test_unknown_users(options, message):
    with pytest.raises(UsageError) as caught:
        spec_of(**options)
    assert str(caught.value) == message


def test_image_user_and_workdir_and_stop_signal_and_labels():
    image = {
        "Cmd": ["sh"],
        "User": "ada",
        "WorkingDir": "/srv",
        "StopSignal": "SIGQUIT",
        "Labels": {"a": "1", "b": "2"},
    }
    spec = spec_of(image, label=("b=3", "c"))
    assert spec["process"]["user"]["uid"] == 1000 and spec["process"]["cwd"] == "/srv"
    del spec["annotations"]["io.minibox.seccomp"]
    assert spec["annotations"] == {"a": "1", "b": "3", "c": "", "org.opencontainers.image.stopSignal": "SIGQUIT"}


def test_user_namespace():
    spec = spec_of(given={"id_mappings": RANGE, "idmap_binds": True}, volume=("/src:/a", "/src:/b:noidmap,ro"))
    assert {"type": "user"} in spec["linux"]["namespaces"]
    assert spec["linux"]["uidMappings"] == list(RANGE.uids)
    assert mount_at(spec, "/a")["options"] == ["rbind", "rprivate", "idmap"]
    assert mount_at(spec, "/b")["options"] == ["rbind", "rprivate", "rro"]
    assert "gid=5" in mount_at(spec, "/dev/pts")["options"]
    with pytest.raises(UsageError, match="uid 70000 is not mapped"):
        spec_of(user="70000:0", given={"id_mappings": RANGE})


def test_a_map_of_one_id():
    spec = spec_of(given={"id_mappings": SINGLE})
    assert "gid=5" not in mount_at(spec, "/dev/pts")["options"]
    assert spec["process"]["user"]["additionalGids"] == []
    with pytest.raises(UsageError, match="can't add groups"):
        spec_of(group_add=("audio",), given={"id_mappings": SINGLE})


def test_host_network():
    spec = spec_of(given={"network": "host"})
    assert {"type": "network"} not in spec["linux"]["namespaces"]
    assert spec["hostname"] == "thehost" and spec["linux"]["sysctl"] == {}
    assert mount_at(spec, "/sys")["type"] == "sysfs"
    bound = mount_at(spec_of(given={"network": "host", "id_mappings": RANGE}), "/sys")
    assert bound["type"] == "bind" and "rro" in bound["options"] and "rbind" in bound["options"]


def test_privileged():
    spec = spec_of(privileged=True)
    linux = spec["linux"]
    assert spec["process"]["capabilities"]["bounding"] == list(NAMES)
    assert linux["maskedPaths"] == linux["readonlyPaths"] == [] and "io.minibox.seccomp" not in spec["annotations"]
    assert [device["path"] for device in linux["devices"]] == ["/dev/fuse", "/dev/sda", "/dev/snd/seq"]
    assert linux["resources"]["devices"][-1] == {"allow": True, "access": "rwm"}
    assert "ro" not in mount_at(spec, "/sys")["options"] + mount_at(spec, "/sys/fs/cgroup")["options"]


def test_capabilities():
    def bounding(**options: Any) -> list[str]:
        return list(spec_of(**options)["process"]["capabilities"]["bounding"])

    assert bounding(cap_drop=("ALL",), cap_add=("chown", "CAP_KILL")) == ["CAP_CHOWN", "CAP_KILL"]
    assert bounding(cap_drop=("all",)) == []
    assert set(NAMES) - set(bounding(cap_add=("ALL",), cap_drop=("sys_admin",))) == {"CAP_SYS_ADMIN"}
    assert set(bounding(cap_add=("NET_ADMIN",), cap_drop=("MKNOD",))) == {*DEFAULT, "CAP_NET_ADMIN"} - {"CAP_MKNOD"}
    with pytest.raises(UsageError) as caught:
        spec_of(cap_add=("SYS_ADMN",))
    assert caught.value.hint and "CAP_SYS_ADMIN" in caught.value.hint
    with pytest.raises(UsageError, match="no CAP_CHECKPOINT_RESTORE"):
        spec_of(cap_add=("CHECKPOINT_RESTORE",), given={"host": facts(last_cap=37)})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"volume": ("/src:/dst",)}, {"type": "bind", "source": "/src", "options": ["rbind", "rprivate"]}),
        ({"volume": ("/src:/dst:ro",)}, {"type": "bind", "source": "/src", "options": ["rbind", "rprivate", "rro"]}),
        ({"volume": ("./data:/dst/",)}, {"type": "bind", "source": "/here/data", "options": ["rbind", "rprivate"]}),
        ({"volume": ("/src:/dst:rslave,z",)}, {"type": "bind", "source": "/src", "options": ["rbind", "rslave"]}),
        ({"volume": ("data:/dst",)},
         {"type": "bind", "source": "/root-dir/volumes/data/_data", "options": ["rbind", "rprivate"]}),
        ({"mount": ("type=bind,src=/src,dst=/dst,readonly",)},
         {"type": "bind", "source": "/src", "options": ["rbind", "rprivate", "rro"]}),
        ({"mount": ("type=bind,src=/src,dst=/dst,ro=false,bind-propagation=shared,bind-recursive=disabled",)},
         {"type": "bind", "source": "/src", "options": ["bind", "shared"]}),
        ({"mount": ('type=tmpfs,"target=/dst",tmpfs-size=1m,tmpfs-mode=1770',)},
         {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "noexec", "size=1048576", "mode=1770"]}),
        ({"tmpfs": ("/dst",)}, {"type": "tmpfs", "source": "tmpfs", "options": ["noexec", "nosuid", "nodev"]}),
        ({"tmpfs": ("/dst:rw,exec,size=64m",)},
         {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "rw", "exec", "size=64m"]}),
    ],
)  # fmt: skip
def test_user_mounts(options, expected):
    assert mount_at(spec_of(**options), "/dst") == {"destination": "/dst", **expected}


def test_volumes_to_create():
    options = RunOptions(image="base", **typed({"volume": ("data:/b:nocopy", "/anon"), "mount": ("target=/c/d",)}))
    image: dict[str, Any] = {"Volumes": {"/image": {}, "/b": {}}}
    made = user_mounts(options, image, facts(), root="/r", container_id=ID)
    assert [(volume.destination, volume.anonymous, volume.copy) for volume in made.volumes] == [
        ("/anon", True, True), ("/b", False, False), ("/image", True, True), ("/c/d", True, True),
    ]  # fmt: skip
    assert made.volumes[1].path == "/r/volumes/data/_data"
    assert len({volume.name for volume in made.volumes}) == 4 and len(made.volumes[0].name) == 64
    assert made == user_mounts(options, image, facts(), root="/r", container_id=ID)


def test_mounts_over_our_own():
    spec = spec_of(volume=("/src:/dev", "/src/file:/etc/hosts"), given={"files": {"/etc/hosts": "/run/hosts"}})
    assert mount_at(spec, "/etc/hosts")["source"] == "/src/file"
    assert not [mount for mount in spec["mounts"] if mount["destination"].startswith("/dev/")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volume": ("/nowhere:/dst",)}, "bind source '/nowhere' does not exist"),
        ({"volume": ("/src:dst",)}, "destination 'dst' is not absolute"),
        ({"volume": ("/src:/a/../b",)}, r"contains '\.\.'"),
        ({"volume": ("/src:/",)}, "can't be '/'"),
        ({"volume": ("/src:/a:rw:ro",)}, "invalid volume"),
        ({"volume": ("/src:/a:fast",)}, "unknown option 'fast'"),
        ({"volume": ("/src:/a:ro,rw",)}, "both ro and rw"),
        ({"volume": ("",)}, "invalid volume"),
        ({"volume": ("/a:ro",)}, "options without a source"),
        ({"volume": ("a/b:/dst",)}, "invalid volume name"),
        ({"volume": ("v:/dst",)}, "invalid volume name 'v' in 'v:/dst'"),
        ({"volume": ("/src:/a", "/src:/a/")}, "duplicate mount point '/a'"),
        ({"volume": ("/src:/a",), "tmpfs": ("/a",)}, "duplicate mount point '/a'"),
        ({"mount": ("type=bind,source=/nowhere,target=/a",)}, "does not exist"),
        ({"mount": ("type=bind,source=src,target=/a",)}, "not absolute"),
        ({"mount": ("type=floppy,target=/a",)}, "unknown type"),
        ({"mount": ("type=bind,source=/src",)}, "no target"),
        ({"mount": ("type=tmpfs,target=/a,bind-propagation=shared",)}, "unexpected key"),
        ({"mount": ("type=tmpfs,target=/a,tmpfs-mode=9",)}, "octal"),
        ({"mount": ("nonsense",)}, "is not key=value"),
        ({"mount": ("\x08=\0",)}, r"x08. contains a NUL byte"),
        ({"tmpfs": ("/a:size",)}, "unknown option"),
        ({"device": ("/dev/nowhere",)}, "can't look up device"),
        ({"device": ("/src/file",)}, "is not a device"),
        ({"device": ("/dev/fuse:/dev/x:q",)}, "invalid device"),
        ({"ulimit": ("nofile=5:4",)}, "above the hard limit"),
        ({"ulimit": ("nofile",)}, "invalid ulimit"),
        ({"ulimit": ("speed=1",)}, "invalid ulimit"),
        ({"sysctl": ("kernel.panic=1",)}, "is not namespaced"),
        ({"sysctl": ("net..ipv4=1",)}, "invalid sysctl"),
        ({"sysctl": ("net.x/../../../kernel=1",)}, "invalid sysctl"),
        ({"memory_bytes": 1 << 20}, "too small"),
        ({"memory_swap_bytes": 1 << 30}, "needs a memory limit"),
        ({"memory_bytes": 1 << 30, "memory_swap_bytes": 1 << 29}, "less than the memory limit"),
        ({"cpus": 5.0}, "out of range"),
        ({"cpus": float("nan")}, "out of range"),
        ({"cpu_shares": 1}, "invalid cpu shares"),
        ({"cpuset_cpus": "3-1"}, "is not in ascending order"),
        ({"cpuset_cpus": "a"}, "invalid cpuset"),
        ({"cpuset_mems": "0-"}, "invalid cpuset"),
        ({"cpus": 0.5, "cpu_quota_us": 5000}, "can't be combined with --cpu-quota"),
        ({"cpu_period_us": 999}, "invalid cpu period"),
        ({"cpu_quota_us": 999}, "invalid cpu quota"),
        ({"memory_reservation_bytes": 1}, "too small"),
        ({"memory_bytes": 64 << 20, "memory_reservation_bytes": 65 << 20}, "more than the memory limit"),
        ({"blkio_weight": 9}, "invalid blkio weight"),
        ({"pids_limit": -2}, "invalid pids limit"),
        ({"oom_score_adj": 1001}, "invalid oom-score-adj"),
        ({"hostname": "-x"}, "invalid hostname"),
        ({"hostname": "x" * 65}, "invalid hostname"),
        ({"hostname": "a b"}, "invalid hostname"),
        ({"workdir": "relative"}, "not absolute"),
        ({"stop_signal": "SIGNOTHING"}, "invalid signal"),
        ({"label": ("=x",)}, "invalid label"),
        ({"security_opt": ("seccomp=nowhere",)}, "read seccomp profile"),
        ({"security_opt": ("magic",)}, "invalid security option"),
        ({"env_file": ("nowhere",)}, "read env-file"),
    ],
)  # fmt: skip
def test_bad_options(options, message):
    with pytest.raises(UsageError, match=message) as caught:
        spec_of(**options)
    assert "\n" not in str(caught.value) and not str(caught.value).endswith(".")


def test_net_sysctl_on_the_hosts_network():
    assert spec_of(sysctl=("net.core.somaxconn=1",))["linux"]["sysctl"]["net.core.somaxconn"] == "1"
    with pytest.raises(UsageError, match="host's network"):
        spec_of(sysctl=("net.core.somaxconn=1",), given={"network": "host"})


def test_limits():
    resources = spec_of(
        memory_bytes=100 << 20, cpus=0.5, cpu_shares=512, cpuset_cpus="0-1,3", pids_limit=10
    )["linux"]["resources"]  # fmt: skip
    del resources["devices"]
    assert resources == {
        "memory": {"limit": 100 << 20, "swap": 200 << 20},
        "cpu": {"quota": 50000, "period": 100000, "shares": 512, "cpus": "0-1,3"},
        "pids": {"limit": 10},
    }
    others = spec_of(
        memory_reservation_bytes=50 << 20, cpu_quota_us=5000, cpu_period_us=10000, cpuset_mems="0", blkio_weight=10
    )["linux"]["resources"]  # fmt: skip
    del others["devices"]
    assert others == {
        "memory": {"reservation": 50 << 20},
        "cpu": {"quota": 5000, "period": 10000, "mems": "0"},
        "blockIO": {"weight": 10},
    }
    unlimited = spec_of(memory_bytes=100 << 20, memory_swap_bytes=-1, pids_limit=-1)["linux"]["resources"]
    assert unlimited["memory"]["swap"] == -1 and unlimited["pids"] == {"limit": -1}
    no_swap = spec_of(memory_bytes=100 << 20, given={"host": facts(swap_limit=False)})["linux"]["resources"]
    assert no_swap["memory"] == {"limit": 100 << 20}


def test_ulimits():
    limits = spec_of(ulimit=("nofile=5:6", "core=-1", "nofile=7"))["process"]["rlimits"]
    assert limits == [
        {"type": "RLIMIT_NOFILE", "soft": 7, "hard": 7},
        {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
    ]


def test_devices():
    spec = spec_of(device=("/dev/fuse:/dev/f:r", "/dev/sda:rw", "/dev/snd"))
    assert [(each["path"], each["type"], each["major"], each["minor"]) for each in spec["linux"]["devices"]] == [
        ("/dev/f", "c", 10, 229), ("/dev/sda", "b", 8, 0), ("/dev/snd/seq", "c", 116, 1),
    ]  # fmt: skip
    assert spec["linux"]["resources"]["devices"][-3:] == [
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"},
        {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "rw"},
        {"allow": True, "type": "c", "major": 116, "minor": 1, "access": "rwm"},
    ]
    inside = spec_of(device=("/dev/fuse",), given={"id_mappings": RANGE})
    assert "devices" not in inside["linux"] and mount_at(inside, "/dev/fuse")["source"] == "/dev/fuse"


def test_security_options():
    spec = spec_of(security_opt=("no-new-privileges", "seccomp=unconfined", "systempaths=unconfined"))
    assert spec["process"]["noNewPrivileges"] and spec["linux"]["maskedPaths"] == []
    assert "seccomp" not in spec["linux"] and "io.minibox.seccomp" not in spec["annotations"]
    assert not spec_of(security_opt=("no-new-privileges:false",))["process"]["noNewPrivileges"]
    profile = spec_of(security_opt=("seccomp=profile",))["linux"]["seccomp"]
    assert profile == {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    assert "apparmorProfile" not in spec_of(security_opt=("apparmor=unconfined", "label=disable"))["process"]
    with pytest.raises(Unsupported):
        spec_of(security_opt=("label=type:mine",))


def test_a_profile_of_apparmor_needs_it():
    if has_apparmor():
        assert spec_of(security_opt=("apparmor=mine",))["process"]["apparmorProfile"] == "mine"
    else:
        with pytest.raises(Unsupported, match="AppArmor is not enabled on this host"):
            spec_of(security_opt=("apparmor=mine",))


def test_init():
    spec = spec_of(init=True, given={"init_path": "/lib/init"})
    assert spec["process"]["args"] == ["/dev/init", "--", "sh"]
    assert mount_at(spec, "/dev/init")["source"] == "/lib/init"
    with pytest.raises(ConfigError):
        spec_of(init=True)
