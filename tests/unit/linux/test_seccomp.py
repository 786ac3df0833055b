"""The seccomp profile and compiler: programs are run by a small interpreter of classic BPF."""

from __future__ import annotations

import json
import os
import struct
from hashlib import blake2b
from typing import Any

import pytest

from minibox.errors import ConfigError
from minibox.linux.capabilities import DEFAULT, NAMES
from minibox.linux.seccomp import program as seccomp

pytest.importorskip("minibox._seccomp", reason="made by the package's build")

from minibox.linux.seccomp import filter_flags
from minibox.linux.seccomp.compile import compile_filter
from minibox.linux.seccomp.default_profile import blocks, default_profile

X86_64, I386 = 0xC000003E, 0x40000003
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0, 0x00050001, 0x00050026
NEWUSER, NEWTIME, CLONE_FILES = 0x10000000, 0x80, 0x400

x86_64_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers are those of x86_64")


def run(program: bytes, nr: int, *args: int, arch: int = X86_64) -> int:
    """What the kernel would answer: classic BPF over struct seccomp_data."""
    data = struct.pack("=IIQ6Q", nr, arch, 0, *args, *[0] * (6 - len(args)))
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at, a = 0, 0
    while True:
        op, if_true, if_false, k = code[at]
        at += 1
        if op == 0x20:
            a = struct.unpack_from("=I", data, k)[0]
        elif op == 0x54:
            a &= k
        elif op == 0x05:
            at += k
        elif op == 0x06:
            return k
        else:
            taken = {0x15: a == k, 0x25: a > k, 0x35: a >= k, 0x45: bool(a & k)}[op]
            at += if_true if taken else if_false


@pytest.fixture(scope="module")
def default() -> bytes:
    return compile_filter(default_profile(DEFAULT))


@x86_64_only
@pytest.mark.parametrize(
    ("nr", "args", "expected"),
    [
        (0, (), ALLOW),  # read
        (59, (), ALLOW),  # execve
        (101, (), ALLOW),  # ptrace
        (161, (), ALLOW),  # chroot, by CAP_SYS_CHROOT
        (165, (), EPERM),  # mount
        (169, (), EPERM),  # reboot
        (175, (), EPERM),  # init_module
        (250, (), EPERM),  # keyctl
        (298, (), EPERM),  # perf_event_open
        (321, (), EPERM),  # bpf
        (323, (), EPERM),  # userfaultfd
        (425, (), EPERM),  # io_uring_setup
        (435, (), ENOSYS),  # clone3
        (452, (), ALLOW),  # fchmodat2, newer than Debian 12's libseccomp
        (462, (), ALLOW),  # mseal
        (511, (), ENOSYS),
        (0xFFFFFFFF, (), ENOSYS),
        (56, (17,), ALLOW),  # clone(SIGCHLD)
        (56, (NEWUSER | 17,), EPERM),
        (56, (1 << 32 | NEWUSER,), EPERM),
        (272, (CLONE_FILES,), ALLOW),  # unshare
        (272, (NEWUSER,), EPERM),
        (272, (NEWTIME,), EPERM),
        (272, (CLONE_FILES | NEWUSER,), EPERM),
        (135, (0xFFFFFFFF,), ALLOW),  # personality
        (135, (0x0040000,), EPERM),  # ADDR_NO_RANDOMIZE
        (41, (1,), ALLOW),  # socket(AF_UNIX)
        (41, (40,), EPERM),  # socket(AF_VSOCK)
        (41, (38,), EPERM),  # socket(AF_ALG)
        (41, (1 << 32 | 40,), EPERM),
        (41, (1 << 63 | 38,), EPERM),
        (41, (1 << 32 | 1,), ALLOW),
        (135, (0xFFFFFFFFFFFFFFFF,), ALLOW),  # personality, as a program passes -1
        (272, (0x100000,), EPERM),  # unshare(UNSHARE_EMPTY_MNTNS)
        (16, (0, 0x5401), ALLOW),  # ioctl(TCGETS)
        (16, (0, 0x5412), EPERM),  # TIOCSTI
        (16, (0, 0x541C), EPERM),  # TIOCLINUX
        (16, (0, 0x1_0000_5412), EPERM),  # the kernel looks at 32 bits
        (16, (0, 0xFFFF_FFFF_8004_5430), ALLOW),  # sign-extended, as musl passes it
    ],
)
def test_default_profile(default, nr, args, expected):
    assert run(default, nr, *args) == expected


@x86_64_only
def test_default_profile_covers_the_other_architectures(default):
    assert run(default, 3, arch=I386) == ALLOW  # read
    assert run(default, 21, arch=I386) == EPERM  # mount
    assert run(default, 120, NEWUSER, arch=I386) == EPERM  # clone
    assert run(default, 54, 0, 0x5412, arch=I386) == EPERM  # ioctl(TIOCSTI)
    assert run(default, 54, 0, 0x5401, arch=I386) == ALLOW
    assert run(default, 500, arch=I386) == ENOSYS
    assert run(default, 359, 40, arch=I386) == EPERM  # socket(AF_VSOCK)
    assert run(default, 102, 1, arch=I386) == ENOSYS  # socketcall(SYS_SOCKET)
    assert run(default, 102, 3, arch=I386) == ALLOW  # socketcall(SYS_CONNECT)
    assert run(default, 0x40000000) == ALLOW  # x32's read
    assert run(default, 0x40000000 | 165) == EPERM
    assert run(default, 0x40000000 | 16) in (ALLOW, EPERM)  # x32 has its own ioctl, 514
    assert run(default, 0x40000000 | 514, 0, 0x5412) == EPERM
    assert run(default, 0x40000000 | 4000) == ENOSYS
    assert run(default, 0, arch=0xC00000B7) == KILL  # aarch64


@x86_64_only
def test_capabilities_open_their_calls():
    everything = compile_filter(default_profile(NAMES))
    for nr in (165, 169, 175, 298, 321, 435, 304, 161):
        assert run(everything, nr) == ALLOW
    assert run(everything, 56, NEWUSER) == ALLOW
    assert run(everything, 272, NEWUSER) == ALLOW
    assert run(everything, 16, 0, 0x5412) == EPERM
    assert run(everything, 323) == EPERM  # userfaultfd has no capability
    nothing = compile_filter(default_profile(()))
    assert run(nothing, 161) == EPERM  # chroot
    assert run(compile_filter(default_profile(["CAP_BPF"])), 321) == ALLOW


def test_blocks_fit_each_number_of_their_ranges_exactly_once():
    ranges = ((0, 4), (6, 6), (9, 62), (64, 0xFFFFFFFF))
    pairs = blocks(*ranges)
    for number in (*range(130), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        wanted = any(first <= number <= last for first, last in ranges)
        assert sum(number & mask == value for mask, value in pairs) == wanted


def test_profile_version_is_bound_to_the_profile():
    """The cache's key is the version: change the number with the profile, then the digest here."""
    text = json.dumps([default_profile(caps, "x86_64") for caps in (DEFAULT, NAMES, ())], sort_keys=True)
    digest = blake2b(text.encode(), digest_size=8).hexdigest()
    assert (seccomp.PROFILE_VERSION, digest) == (3, "348eeedc00287b58")


def test_program_is_cached_and_verified(tmp_path):
    root = str(tmp_path)
    first = seccomp.program(seccomp.DEFAULT_PROFILE, DEFAULT, root)
    (entry,) = (tmp_path / "cache/seccomp").iterdir()
    assert entry.stat().st_mode & 0o777 == 0o600
    whole = entry.read_bytes()
    for damaged in (b"", whole[:-8], whole[:30], whole[:-1] + b"x", b"x" * len(whole)):
        entry.write_bytes(damaged)
        assert seccomp.program(seccomp.DEFAULT_PROFILE, DEFAULT, root) == first
        assert entry.read_bytes() == whole
    seccomp.program(seccomp.DEFAULT_PROFILE, ["CAP_SYS_ADMIN"], root)
    assert len(list((tmp_path / "cache/seccomp").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert seccomp.program(seccomp.DEFAULT_PROFILE, DEFAULT, str(tmp_path))


def test_program_of_a_spec(tmp_path):
    process = {"cwd": "/", "user": {"uid": 0, "gid": 0}, "capabilities": {"bounding": list(DEFAULT)}}
    root = str(tmp_path)
    spec: Any = {"ociVersion": "1.2.0", "process": process}
    assert seccomp.program_of(spec, root) is None
    spec["annotations"] = {seccomp.SECCOMP_ANNOTATION: "default"}
    by_reference = seccomp.program_of(spec, root)
    spec["linux"] = {"seccomp": default_profile(DEFAULT)}
    assert seccomp.program_of(spec, root) == by_reference


@x86_64_only
def test_actions_and_operators():
    def rule(nr_name, action, op, value, value_two=0, **more):
        arg = {"index": 0, "op": op, "value": value, "valueTwo": value_two}
        return {"names": [nr_name], "action": action, "args": [arg], **more}

    program = compile_filter(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                rule("dup", "SCMP_ACT_ERRNO", "SCMP_CMP_EQ", 7, errnoRet=5),
                rule("close", "SCMP_ACT_KILL_PROCESS", "SCMP_CMP_GT", 10),
                rule("fsync", "SCMP_ACT_TRAP", "SCMP_CMP_LE", 3),
                rule("fchdir", "SCMP_ACT_LOG", "SCMP_CMP_NE", 3),
                rule("fdatasync", "SCMP_ACT_TRACE", "SCMP_CMP_GE", 1 << 40, errnoRet=9),
                rule("umask", "SCMP_ACT_ERRNO", "SCMP_CMP_MASKED_EQ", 0xFF, 0x12),
                rule("alarm", "SCMP_ACT_KILL", "SCMP_CMP_LT", 2),
                {"names": ["no_such_call_anywhere"], "action": "SCMP_ACT_KILL"},
            ],
        }
    )
    assert run(program, 32, 7) == 0x00050005 and run(program, 32, 8) == ALLOW
    assert run(program, 3, 11) == 0x80000000 and run(program, 3, 10) == ALLOW
    assert run(program, 74, 3) == 0x00030000 and run(program, 74, 4) == ALLOW
    assert run(program, 81, 4) == 0x7FFC0000 and run(program, 81, 3) == ALLOW
    assert run(program, 75, 1 << 40) == 0x7FF00009 and run(program, 75, 5) == ALLOW
    assert run(program, 95, 0x3412) == EPERM and run(program, 95, 0x13) == ALLOW
    assert run(program, 37, 1) == KILL and run(program, 37, 2) == ALLOW
    assert run(program, 999) == ALLOW  # who allows what it doesn't name, allows what is new


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_DANCE"},
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 70000},
        {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]},
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP", "errnoRet": 1}],
        },
        {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_PDP11"]},
        {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_\0"]},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["re ad"], "action": "SCMP_ACT_ALLOW"}]},
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}
            ],
        },
    ],
)
def test_a_profile_that_cannot_be_compiled(profile):
    with pytest.raises(ConfigError):
        compile_filter(profile)


LISTENED = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/s"}, "can't be the default action"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [LISTENED]}, "needs a listenerPath"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s",
          "syscalls": [{"names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY"}]}, "can't be used for sendmsg"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}, "listenerMetadata needs a listenerPath"),
    ],
)  # fmt: skip
def test_a_listener_that_can_not_be(profile, says):
    with pytest.raises(ConfigError, match=says):
        compile_filter(profile)


def test_flags_of_a_filter():
    names = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    profile: Any = {"defaultAction": "SCMP_ACT_ALLOW", "flags": names}
    assert filter_flags(profile) == 2
    assert filter_flags(profile | {"syscalls": [LISTENED]}) == 0x2A
