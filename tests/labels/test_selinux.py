"""Labels of SELinux, on a kernel that has it, with a policy of a few types; not enforced, but labels must be valid."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minibox.linux.lsm import has_selinux
from tests.bundles import Bundle
from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = [requires("root", "selinux", "command:checkpolicy")]
SELINUX = Path("/sys/fs/selinux")
PROCESS, OTHER = "system_u:system_r:container_t:s0:c1,c2", "system_u:system_r:other_t:s0"
FILES = "system_u:object_r:container_file_t:s0:c1,c2"
# In the order of the kernel's own numbers.
INITIAL = """kernel security unlabeled fs file file_labels init any_socket port netif netmsg node igmp_packet icmp_socket
    tcp_socket sysctl_modprobe sysctl sysctl_fs sysctl_kernel sysctl_net sysctl_net_unix sysctl_vm sysctl_dev kmod policy
    scmp_packet devnull""".split()
TRANS = ("tmpfs", "devpts", "mqueue", "devtmpfs", "sysfs")
POLICY = "\n".join(
    [
        "class process class file class dir",
        *(f"sid {name}" for name in INITIAL),
        "class process { fork transition dyntransition } class file { read write } class dir { read }",
        "sensitivity s0; dominance { s0 } category c1; category c2; level s0:c1,c2;",
        "mlsconstrain file { read } ( l1 dom l2 or l1 domby l2 );",
        "type kernel_t; type file_t; type container_t; type other_t; type container_file_t;",
        "allow kernel_t file_t : file { read write };",
        "role system_r; role system_r types { kernel_t container_t other_t };",
        "user system_u roles { system_r } level s0 range s0 - s0:c1,c2;",
        *(f"sid {name} system_u:system_r:kernel_t:s0" for name in INITIAL),
        *(f"fs_use_trans {name} system_u:object_r:file_t:s0;" for name in TRANS),
        "fs_use_xattr ext4 system_u:object_r:file_t:s0; fs_use_xattr overlay system_u:object_r:file_t:s0;",
        "genfscon proc / system_u:object_r:file_t:s0",
        "",
    ]
)


@pytest.fixture(scope="module", autouse=True)
def policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Loaded, for good: there is no way back."""
    subprocess.run(["mount", "-t", "selinuxfs", "selinuxfs", SELINUX], check=True)
    assert not has_selinux(), "no label is valid yet"
    directory = tmp_path_factory.mktemp("policy")
    (directory / "policy.conf").write_text(POLICY)
    command = ["checkpolicy", "-M", "-U", "allow", "-o", "policy", "policy.conf"]
    subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
    (SELINUX / "load").write_bytes((directory / "policy").read_bytes())
    yield
    subprocess.run(["umount", SELINUX], check=True)


def spec(bundle: Bundle, *args: str) -> Any:
    spec = bundle.spec(*args)
    spec["process"]["selinuxLabel"], spec["linux"]["mountLabel"] = PROCESS, FILES
    spec["mounts"] += [
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
        {"destination": "/own", "type": "tmpfs", "source": "tmpfs", "options": [f'context="{OTHER}"']},
        {"destination": "/copy", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]},
    ]
    return spec


def label(pid: int, path: str) -> str:
    return os.getxattr(f"/proc/{pid}/root{path}", "security.selinux").rstrip(b"\0").decode()


@pytest.mark.parametrize("ids", [False, True], ids=["host ids", "own ids"])
def test_the_command_and_its_mounts_have_them(runtime: Runtime, ids: bool) -> None:
    made = spec(runtime.bundle, "sleep", "1000")
    runtime.create("c1", runtime.bundle.with_ids(made) if ids else made)
    runtime.ok("start", "c1")
    pid = runtime.state("c1")["pid"]
    assert Path(f"/proc/{pid}/attr/current").read_bytes().rstrip(b"\0") == PROCESS.encode()
    shown = {path: label(pid, path) for path in ("/dev", "/dev/pts", "/dev/mqueue", "/copy", "/own", "/proc")}
    policys = "system_u:object_r:file_t:s0"
    assert shown == dict.fromkeys(("/dev", "/dev/pts", "/copy"), FILES) | {
        "/own": OTHER, "/proc": policys, "/dev/mqueue": policys if ids else FILES
    }  # fmt: skip
    show = ("cat", "/proc/self/attr/current")
    assert runtime.ok("exec", "c1", *show).rstrip("\0\n") == PROCESS
    assert runtime.ok("exec", "--process-label", OTHER, "c1", *show).rstrip("\0\n") == OTHER


def test_one_that_the_policy_does_not_know_is_an_error(runtime: Runtime) -> None:
    made = spec(runtime.bundle, "true")
    made["process"]["selinuxLabel"] = "system_u:system_r:none_t:s0"
    runtime.write(made)
    says = runtime.error("run", "--bundle", str(runtime.bundle.path), "c1")
    assert "take the label system_u:system_r:none_t:s0: Invalid argument" in says
