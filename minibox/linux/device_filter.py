"""Control which device nodes a container may make and open: turn OCI device rules into cgroup v1 lines or BPF.

The rules are `linux.resources.devices` (OCI runtime spec, config-linux.md "Allowed Device list"). They apply in
order: the last rule that matches decides, separately for read, write and mknod. Sources: cgroup-v1/devices.rst;
cgroup-v2.rst "Device controller"; bpf(2); BPF_PROG_TYPE_CGROUP_DEVICE and struct bpf_cgroup_dev_ctx in linux/bpf.h
(Linux 4.15).
"""

from __future__ import annotations

import os
from struct import pack

from minibox.base.files import closing
from minibox.errors import LimitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Rule = dict[str, Any]
    Node = tuple[str, int | None, int | None]  # type, major, minor; None means any

# linux/bpf.h: bits of the wanted access, and types of devices.
MKNOD, READ, WRITE = 1, 2, 4
_ACCESS = {"m": MKNOD, "r": READ, "w": WRITE}
_TYPES = {"b": 1, "c": 2}


def default_rules() -> list[Rule]:
    """Return the rules that every container gets after its own (OCI "Default Devices"; runc's AllowedDevices).

    A container may make any node, since only opening it matters. It may open null, zero, full, random, urandom, tty,
    console, ptmx and the ptys.
    """
    opened = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None)]
    rules: list[Rule] = [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    for major, minor in opened:
        rule: Rule = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        rules.append(rule if minor is None else {**rule, "minor": minor})
    return rules


def with_defaults(rules: Iterable[Rule]) -> list[Rule]:
    """Return ``rules`` followed by the default devices, like runc and crun."""
    return [*rules, *default_rules()]


def denies_something(rules: Iterable[Rule]) -> bool:
    """Tell whether the rules deny anything, that is, unless they all allow or the last ones do after an "allow all"."""
    denied = False
    for rule in rules:
        kind, major, minor, access = _parse(rule)
        if not rule.get("allow"):
            denied = True
        elif kind == "a" and major is None and minor is None and access == MKNOD | READ | WRITE:
            denied = False
    return denied


def rule_lines(rules: Iterable[Rule]) -> list[tuple[str, str]]:
    """Return the (file, line) pairs to write into a v1 devices cgroup, with one write(2) each.

    The kernel keeps a default and exceptions from it. It removes an exception only if you write it exactly as you
    added it.
    So we combine the rules here: otherwise denying "c 1:*" would leave "c 1:3" allowed.

    Raises:
        LimitError: a rule removes a part of an exception, which v1 can't do.
    """
    default, is_reset = True, False
    exceptions: dict[Node, int] = {}
    for rule in rules:
        kind, major, minor, access = _parse(rule)
        allow = bool(rule.get("allow"))
        if kind == "a" and major is None and minor is None and access == MKNOD | READ | WRITE:
            default, is_reset, exceptions = allow, True, {}
            continue
        for each in "cb" if kind == "a" else kind:
            if allow != default:
                exceptions[each, major, minor] = exceptions.get((each, major, minor), 0) | access
                continue
            for node, bits in exceptions.items():
                if node[0] == each and bits & access and _meet(node, major, minor):
                    if (major is not None and node[1] is None) or (minor is not None and node[2] is None):
                        raise LimitError(
                            f"device rule {rule!r}: cgroup v1 can't undo only a part of an earlier rule",
                            "write the rules the other way round, or boot with cgroup v2",
                        )
                    exceptions[node] = bits & ~access
    lines = [("devices.allow" if default else "devices.deny", "a")] if is_reset else []
    file = "devices.deny" if default else "devices.allow"
    for (kind, major, minor), bits in exceptions.items():
        letters = "".join(letter for letter, bit in (("r", READ), ("w", WRITE), ("m", MKNOD)) if bits & bit)
        if letters:
            numbers = f"{'*' if major is None else major}:{'*' if minor is None else minor}"
            lines.append((file, f"{kind} {numbers} {letters}"))
    return lines


def _meet(node: Node, major: int | None, minor: int | None) -> bool:
    """Tell whether some device matches both."""
    return (None in (node[1], major) or node[1] == major) and (None in (node[2], minor) or node[2] == minor)


# One instruction: code, destination and source register, jump offset, immediate (struct bpf_insn).
_LOAD_WORD = 0x61  # dst = *(u32 *)(src + off)
_AND, _SHIFT_RIGHT = 0x54, 0x74  # on 32 bits, by an immediate
_MOVE = 0xB7  # dst = immediate
_JUMP, _JUMP_NOT_EQUAL, _JUMP_ANY_BIT = 0x05, 0x56, 0x46  # the last two on 32 bits: majors use them all (Linux 5.1)
_EXIT = 0x95
_RESULT, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR = range(6)  # registers


def compile_rules(rules: Iterable[Rule]) -> bytes:
    """Compile a BPF_PROG_TYPE_CGROUP_DEVICE program that returns 1 for what ``rules`` allow, otherwise 0. Pure.

    It walks the rules from the last to the first with the set of wanted accesses. A rule that denies any of them
    returns 0. A rule that allows some removes these from the set, and returns 1 if none are left. So two rules may
    allow ``open(O_RDWR)``, one for each half. Anything without a matching rule is allowed, as in a new v1 cgroup.
    """
    code = [
        _insn(_LOAD_WORD, _TYPE, _CONTEXT, 0),  # access_type: wanted << 16 | type
        _insn(_LOAD_WORD, _WANTED, _CONTEXT, 0),
        _insn(_AND, _TYPE, immediate=0xFFFF),
        _insn(_SHIFT_RIGHT, _WANTED, immediate=16),
        _insn(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        _insn(_LOAD_WORD, _MINOR, _CONTEXT, 8),
    ]
    for rule in reversed(list(rules)):
        code += _rule(rule)
    code += _return(1)
    return b"".join(code)


def _rule(rule: Rule) -> list[bytes]:
    kind, major, minor, access = _parse(rule)
    if rule.get("allow"):
        body = [
            _insn(_AND, _WANTED, immediate=~access & 7),
            _insn(_JUMP_NOT_EQUAL, _WANTED, offset=2, immediate=0),
            *_return(1),
        ]
    else:
        body = [_insn(_JUMP_ANY_BIT, _WANTED, offset=1, immediate=access), _jump(2), *_return(0)]
    tests = [(_TYPE, _TYPES[kind])] if kind != "a" else []
    tests += [(_MAJOR, major)] if major is not None else []
    tests += [(_MINOR, minor)] if minor is not None else []
    for register, value in reversed(tests):  # each test jumps over everything after it
        body.insert(0, _insn(_JUMP_NOT_EQUAL, register, offset=len(body), immediate=value))
    return body


def _return(value: int) -> list[bytes]:
    return [_insn(_MOVE, _RESULT, immediate=value), _insn(_EXIT)]


def _jump(offset: int) -> bytes:
    return _insn(_JUMP, offset=offset)


def _insn(code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return pack("=BBhI", code, src << 4 | dst, offset, immediate & 0xFFFFFFFF)


def _parse(rule: Rule) -> tuple[str, int | None, int | None, int]:
    """Return a rule's (type, major, minor, access bits); None means any number, like -1 in runc."""
    kind, letters = rule.get("type") or "a", rule.get("access") or "rwm"
    if kind == "u":  # OCI: an unbuffered character device
        kind = "c"
    if kind not in ("a", "b", "c") or not set(letters) <= set("rwm"):
        raise LimitError(f"device rule {rule!r}: the type must be a, b or c, and the access made of r, w and m")
    major, minor = rule.get("major"), rule.get("minor")
    access = sum({_ACCESS[letter] for letter in letters})
    return kind, None if major in (None, -1) else major, None if minor in (None, -1) else minor, access


def attach(directory: str, program: bytes) -> None:
    """Attach a program of `compile_rules` to the v2 cgroup ``directory``.

    The kernel frees it with the cgroup. Programs of the cgroups above still apply (BPF_F_ALLOW_MULTI).

    Raises:
        OSError: from bpf(2): EPERM without CAP_BPF, ENOSYS or EINVAL without CONFIG_CGROUP_BPF.
    """
    from minibox._native import ffi, lib

    with closing(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        result = lib.mb_bpf_device_attach(fd, ffi.from_buffer(program), len(program) // 8)
    if result < 0:
        raise OSError(-result, os.strerror(-result), directory)
