"""The values at the edge of each rule of the default filter, tried in a real container by each door of the kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.probes import requires

pytestmark = [
    requires("root", "command:cc"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="system call numbers are those of x86_64"),
]

#: Bits that the kernel doesn't look at where it takes an int.
ABOVE = (0, 1 << 32, 1 << 63, 0xFFFFFFFF << 32)
REFUSED, ASKED = "EPERM", "EINVAL"  # by the filter, or by the kernel, which was asked
BAD_TYPE, NO_FD = 0xFF0, 999
SIGHAND = 0x800  # without CLONE_VM clone and clone3 refuse it before they look at anything else
#: Doors, each with the numbers of socket, personality, ioctl, clone and unshare.
DOORS = {"x86_64": (41, 135, 16, 56, 272), "x32": (41, 135, 514, 56, 272), "i386": (359, 136, 54, 120, 310)}

FAMILIES = {**dict.fromkeys(range(46), ASKED), **dict.fromkeys((12, 19, 20, 23, 25, 34, 37, 38, 40), REFUSED)}
FAMILIES |= dict.fromkeys((46, 47, 64, 128, 255, 256, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF), REFUSED)
PERSONALITIES = dict.fromkeys((0, 8, 0x20000, 0x20008, 0xFFFFFFFF), "done")
PERSONALITIES |= dict.fromkeys((1, 7, 9, 0x1FFFF, 0x20001, 0x20007, 0x20009, 0x40000, 0x80000000, 0xFFFFFFFE), REFUSED)
REQUESTS = dict.fromkeys((0, 0x5401, 0x5411, 0x5413, 0x541B, 0x541D, 0x80045430, 0xFFFFFFFF), "EBADF")
REQUESTS |= {0x5412: REFUSED, 0x541C: REFUSED}
NAMESPACES = (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
CLONED = {0: ASKED, 0x80: ASKED, 0x80000000: ASKED, **dict.fromkeys((*NAMESPACES, sum(NAMESPACES)), REFUSED)}
#: 0x80 makes a namespace of time, 0x100000 (since Linux 7.1) an empty one of mounts.
UNSHARED = {0: "done", 0x200: "done", 0x400: "done", 0x40000: "done", 0x40600: "done"}
UNSHARED |= dict.fromkeys((*NAMESPACES, 1, 0x80, 0x1000, 0x100000, 0x80000000, 0x20400), REFUSED)


def _cases(door: str) -> Iterator[tuple[str, str]]:
    """Calls as calls.c takes them, and their answers."""
    socket, personality, ioctl, clone, unshare = DOORS[door]
    for high in ABOVE if door != "i386" else ABOVE[:1]:  # i386 has no higher bits
        for value, answer in FAMILIES.items():
            yield f"{door}:{socket:x}:{high | value:x},{BAD_TYPE:x},0", answer
        for value, answer in PERSONALITIES.items():
            yield f"{door}:{personality:x}:{high | value:x}", answer
        for value, answer in REQUESTS.items():
            yield f"{door}:{ioctl:x}:{NO_FD:x},{high | value:x},0", answer
        for value, answer in CLONED.items():
            yield f"{door}:{clone:x}:{high | value | SIGHAND:x},0,0,0,0", answer
    for value, answer in UNSHARED.items():
        yield f"{door}:{unshare:x}:{value:x}", answer
    yield f"{door}:1b3:0,0", "ENOSYS"  # clone3


@pytest.fixture(scope="module")
def program(session_directory: Path) -> str:
    path = session_directory / "calls"
    subprocess.run(["cc", "-static", "-O1", "-o", path, Path(__file__).with_name("calls.c")], check=True)
    return str(path)


def _answers(minibox: Run, program: str, calls: list[str], *options: str) -> list[str]:
    words = ("run", "--rm", "--network", "none", "-v", f"{program}:/calls:ro", *options, "base", "/calls", *calls)
    done = minibox(*words)
    assert done.returncode == 0, done.stderr
    return list(done.stdout.split())


@pytest.mark.parametrize("door", DOORS)
def test_each_rule_at_its_edges(minibox: Run, program: str, door: str) -> None:
    cases = list(_cases(door))
    if door == "x32":  # a kernel with x32 answers as for x86_64, one without it has no such call; both refuse the same
        cases = [case for case in cases if case[1] == REFUSED]
    there, *got = _answers(minibox, program, [f"{door}:{'14' if door == 'i386' else '27'}:", *(c for c, _ in cases)])
    if there == "dead":
        cases = [(call, "dead") for call, _ in cases]  # a kernel without the i386 entry
    wrong = [(call, answer, said) for (call, answer), said in zip(cases, got, strict=True) if said != answer]
    assert not wrong


def test_a_program_of_32_bits_has_no_other_way_to_a_socket(minibox: Run, program: str) -> None:
    """socketcall(SYS_SOCKET) names its family in memory, where no filter can look."""
    calls = [f"socketcall:66:{sub:x},{family:x},1,0" for family in (1, 2, 38, 40) for sub in (1, 1 << 32 | 1)]
    assert set(_answers(minibox, program, calls)) <= {"ENOSYS", "dead"}


def test_capabilities_open_clone_and_unshare_and_no_family(minibox: Run, program: str) -> None:
    calls = ["x86_64:38:40000800,0,0", f"x86_64:29:{1 << 32 | 40:x},ff0,0", "x86_64:29:26,ff0,0", "x86_64:110:20000"]
    options = ("--cap-add", "SYS_ADMIN")
    assert _answers(minibox, program, calls, *options) == [ASKED, REFUSED, REFUSED, "done"]


def test_a_real_socket_is_refused_with_a_bit_above_and_allowed_below(minibox: Run, program: str) -> None:
    calls = [f"x86_64:29:{family:x},1,0" for family in (40, 1 << 32 | 40, 38, 1 << 63 | 38, 1, 1 << 32 | 1, 2)]
    assert _answers(minibox, program, calls) == [*[REFUSED] * 4, "done", "done", "done"]
