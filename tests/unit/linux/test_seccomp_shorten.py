"""A shortened seccomp program answers as the one that it was made from."""

from __future__ import annotations

import random
import struct

import pytest

from minibox.linux.capabilities import DEFAULT, NAMES

pytest.importorskip("minibox._seccomp", reason="made by the package's build")

from minibox.linux.seccomp import compile
from minibox.linux.seccomp.default_profile import default_profile
from minibox.linux.seccomp.shorten import shorten
from tests.unit.linux.test_seccomp import I386, X86_64, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import LinuxSeccomp, LinuxSyscall

X32 = 0x40000000
CLOSE: list[LinuxSyscall] = [
    {"names": ["close"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_GT"}]}
]
PROFILES: dict[str, LinuxSeccomp] = {
    "default": default_profile(DEFAULT),
    "all capabilities": default_profile(NAMES),
    "no capability": default_profile(()),
    "one rule": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": CLOSE},
    "no rule": {"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_X86"]},
}
ARGUMENTS = [0, 1, 7, 8, 17, 40, 0x5412, 1 << 32 | 0x5412, 0x10000000, 0x20008, 0xFFFFFFFF, 0xFFFFFFFF8]


@pytest.fixture(params=PROFILES)
def long(request, monkeypatch) -> bytes:
    """As libseccomp exports it, after what we put before it."""
    monkeypatch.setattr(compile, "shorten", lambda program: program)
    return compile.compile_filter(PROFILES[request.param])


def test_answers_are_the_same(long):
    short = shorten(long)
    chosen = random.Random(0)
    for arch in (X86_64, I386, 0xC00000B7, 0):
        numbers = chosen.sample(range(600), 120)
        for number in (*numbers, *(X32 | each for each in numbers[:40]), X32 - 1, 0x80000000, 0xFFFFFFFF):
            args = chosen.choices(ARGUMENTS, k=6)
            assert run(short, number, *args, arch=arch) == run(long, number, *args, arch=arch), (arch, number, args)


def test_the_default_profile_becomes_a_third(monkeypatch):
    short = compile.compile_filter(PROFILES["default"])
    monkeypatch.setattr(compile, "shorten", lambda program: program)
    assert len(short) <= len(compile.compile_filter(PROFILES["default"])) // 3


def test_kernel_takes_every_jump(long):
    """All are forward and within the program, comparisons within their eight bits, and it ends with a return."""
    code = list(struct.iter_unpack("=HBBI", shorten(long)))
    assert code[-1][0] == 0x06
    for at, (op, if_true, if_false, value) in enumerate(code):
        if op == 0x05:
            assert at + 1 + value < len(code)
        elif op & 7 == 0x05:
            assert at + 1 + max(if_true, if_false) < len(code)


def test_what_it_does_not_know_it_leaves_alone():
    masks_the_number = struct.pack("=HBBIHBBIHBBI", 0x20, 0, 0, 0, 0x54, 0, 0, 0xFF, 0x06, 0, 0, 0)
    reads_a_register = struct.pack("=HBBIHBBI", 0x07, 0, 0, 0, 0x06, 0, 0, 0)
    assert shorten(masks_the_number) == masks_the_number
    assert shorten(reads_a_register) == reads_a_register
