"""Compile an OCI ``linux.seccomp.program`` to BPF with libseccomp, opened by cffi. Off the hot path."""

from __future__ import annotations

import errno
import os
import struct

from minibox.base.files import closing
from minibox.errors import ConfigError, Unsupported, kernel_says
from minibox.linux.seccomp import NOTIFY
from minibox.linux.seccomp.default_profile import NEW_NUMBERS
from minibox.linux.seccomp.shorten import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.oci.runtime import LinuxSeccomp, LinuxSyscall

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_LETS_THROUGH = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_ATTRIBUTE_NO_NEW_PRIVS, _ATTRIBUTE_OPTIMIZE = 3, 8
_BINARY_TREE = 2
_ENOSYS = _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS
_AUDIT_X86_64, _X32 = 0xC000003E, 0x4000003E  # libseccomp's token for x32 isn't an audit arch of the kernel
_X32_BIT = 0x40000000
# struct seccomp_data: nr is at 0, arch at 4.
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x06


def action_names() -> list[str]:
    """Return the actions that a profile may name."""
    return list(_ACTIONS)


def operator_names() -> list[str]:
    """Return the comparison operators that a profile may name."""
    return list(_OPERATORS)


def compile_filter(profile: LinuxSeccomp) -> bytes:
    """Compile a profile to ``struct sock_filter`` instructions.

    If a profile refuses by default, calls newer than all that it names fail with ENOSYS, not EPERM, as in runc: on
    ENOSYS programs fall back to older calls, but on EPERM they give up.

    Raises:
        ConfigError: an unknown action, operator or architecture, or a rule that libseccomp refuses.
        Unsupported: libseccomp is missing.
    """
    _check_listener(profile)
    with _Library() as library:
        default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        tokens = [library.architecture(name) for name in profile.get("architectures") or ()]
        native = library.lib.seccomp_arch_native()
        # Like runc and crun, always filter the native architecture; the list only adds others.
        others = [token for token in dict.fromkeys(tokens) if token != native]
        filters = library.new(default)
        rules = [rule for rule in profile.get("syscalls") or () if _rule_action(rule) != default]
        newest = {native: library.add(filters, rules, native=True)}
        if others:
            # Build a second filter and merge it: with several architectures in one filter, libseccomp refuses numbers
            # that it has no name for, and we use some (NEW_NUMBERS).
            second = library.new(default)
            for token in others:
                library.check(library.lib.seccomp_arch_add(second, token), "add an architecture")
            library.check(library.lib.seccomp_arch_remove(second, native), "remove the native architecture")
            library.add(second, rules, native=False)
            library.merge(filters, second)
            for token in others:
                newest[token] = library.newest(rules, token)
        program = library.export(filters)
    refuses = profile["defaultAction"] not in _LETS_THROUGH
    if refuses and profile.get("defaultErrnoRet") != errno.ENOSYS and any(newest.values()):
        program = _unknown_calls(newest) + program
    program = shorten(program)
    if len(program) // 8 > 4096:
        raise ConfigError(f"the seccomp profile compiles to {len(program) // 8} instructions; the kernel allows 4096")
    return program


def call_number(name: str) -> int:
    """Return the number of a system call on this machine; a negative one if it has none.

    Raises:
        Unsupported: libseccomp is missing.
    """
    with _Library() as library:
        try:
            number = library.number(name)
        except ConfigError:
            return -1
        return number if number != -1 else NEW_NUMBERS.get(name, -1)


def _check_listener(profile: LinuxSeccomp) -> None:
    """Check the listener. The call that hands it over can't wait for the listener itself."""
    notified = [rule for rule in profile.get("syscalls") or () if rule["action"] == NOTIFY]
    if profile["defaultAction"] == NOTIFY:
        raise ConfigError(f"seccomp: {NOTIFY} can't be the default action")
    if any("sendmsg" in rule["names"] for rule in notified):
        raise ConfigError(f"seccomp: {NOTIFY} can't be used for sendmsg, which hands over the listener")
    if notified and not profile.get("listenerPath"):
        raise ConfigError(f"seccomp: {NOTIFY} needs a listenerPath")
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        raise ConfigError("seccomp: listenerMetadata needs a listenerPath")


def _action(name: str, number: int | None) -> int:
    if name not in _ACTIONS:
        raise ConfigError(f"seccomp: unknown action {name!r}", hint=f"actions are {', '.join(_ACTIONS)}")
    if name not in _WITH_ERRNO:
        if number is not None:
            raise ConfigError(f"seccomp: {name} doesn't return an errno, but errnoRet is {number}")
        return _ACTIONS[name]
    number = errno.EPERM if number is None else number
    if not 0 <= number <= 0xFFFF:
        raise ConfigError(f"seccomp: errnoRet {number} is out of range")
    return _ACTIONS[name] | number


def _rule_action(rule: LinuxSyscall) -> int:
    return _action(rule["action"], rule.get("errnoRet"))


class _Library:
    """libseccomp, and the filters to release at the end."""

    def __enter__(self) -> _Library:
        try:
            from minibox._seccomp import ffi

            self.ffi: Any = ffi
            self.lib: Any = ffi.dlopen("libseccomp.so.2")
        except (ImportError, OSError) as error:
            raise Unsupported(
                f"open libseccomp.so.2: {error}",
                hint="apt install libseccomp2, or run without a filter: --security-opt seccomp=unconfined",
            ) from error
        self.filters: list[Any] = []
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.filters:
            self.lib.seccomp_release(each)

    def check(self, result: int, what: str) -> None:
        if result < 0:
            raise ConfigError(f"seccomp: {what}: {kernel_says(-result)}")

    def architecture(self, name: str) -> int:
        word = name.removeprefix("SCMP_ARCH_").lower()
        token = int(self.lib.seccomp_arch_resolve_name(word.encode())) if "\0" not in word else 0
        if not name.startswith("SCMP_ARCH_") or not token:
            raise ConfigError(f"seccomp: unknown architecture {name!r}", hint="for example SCMP_ARCH_X86_64")
        return token

    def new(self, default: int) -> Any:
        created = self.lib.seccomp_init(default)
        if created == self.ffi.NULL:
            raise ConfigError(f"seccomp: libseccomp refuses the default action {default:#x}")
        self.filters.append(created)
        self.lib.seccomp_attr_set(created, _ATTRIBUTE_NO_NEW_PRIVS, 0)
        self.lib.seccomp_attr_set(created, _ATTRIBUTE_OPTIMIZE, _BINARY_TREE)  # since 2.5; older ones are slower
        return created

    def merge(self, into: Any, other: Any) -> None:
        self.check(self.lib.seccomp_merge(into, other), "merge architectures")
        self.filters.remove(other)  # freed by the merge

    def add(self, filters: Any, rules: list[LinuxSyscall], *, native: bool) -> int:
        """Add rules; return their highest call number on the native architecture."""
        newest = 0
        for rule in rules:
            if not rule["names"]:
                raise ConfigError(f"seccomp: a rule of {rule['action']} names no system call")
            action = _rule_action(rule)
            conditions = self.conditions(rule)
            for name in rule["names"]:
                number = self.number(name)
                if number == -1 and native:
                    number = NEW_NUMBERS.get(name, -1)
                if number == -1:
                    continue  # this libseccomp doesn't know the call, so there is no number to allow or refuse
                newest = max(newest, number)
                for condition in conditions:
                    result = self.lib.seccomp_rule_add_array(filters, action, number, len(condition), condition)
                    if result != -errno.EEXIST:
                        self.check(result, f"add a rule for {name}")
        return newest

    def number(self, name: str) -> int:
        if not name.isascii() or not name.replace("_", "a").isalnum():
            raise ConfigError(f"seccomp: {name!r} is not the name of a system call")
        return int(self.lib.seccomp_syscall_resolve_name(name.encode()))

    def newest(self, rules: list[LinuxSyscall], token: int) -> int:
        """Return the highest call number in rules on an architecture."""
        numbers = (
            self.lib.seccomp_syscall_resolve_name_arch(token, name.encode()) for rule in rules for name in rule["names"]
        )
        return max(numbers, default=0)

    def conditions(self, rule: LinuxSyscall) -> list[Any]:
        """Return arrays of ``struct scmp_arg_cmp``: one whose comparisons must all hold, or several with one each.

        libseccomp allows one comparison per argument. Like runc, we read two for the same argument as "or".
        """
        compared = []
        for arg in rule.get("args") or ():
            if arg["op"] not in _OPERATORS:
                raise ConfigError(f"seccomp: unknown operator {arg['op']!r}", hint=", ".join(_OPERATORS))
            values = (arg["value"], arg.get("valueTwo", 0))
            if not 0 <= arg["index"] <= 5 or not all(0 <= value < 1 << 64 for value in values):
                raise ConfigError(f"seccomp: a comparison for {', '.join(rule['names'][:3])} is out of range")
            compared.append((arg["index"], _OPERATORS[arg["op"]], *values))
        several = len({each[0] for each in compared}) != len(compared)
        groups = [[each] for each in compared] if several else [compared]
        return [self.ffi.new("struct scmp_arg_cmp[]", group) for group in groups]

    def export(self, filters: Any) -> bytes:
        with closing(os.memfd_create("minibox-seccomp", os.MFD_CLOEXEC)) as fd:
            self.check(self.lib.seccomp_export_bpf(filters, fd), "compile the filter")
            return os.pread(fd, os.fstat(fd).st_size, 0)


def _unknown_calls(newest: dict[int, int]) -> bytes:
    """Return instructions to put before the program: ENOSYS for numbers above an architecture's newest known one."""
    blocks = []
    for token, number in newest.items():
        if token == _X32 or number <= 0:
            continue
        block = [(_LOAD, 0, 0, 0)]
        if token == _AUDIT_X86_64:
            # x32 has the same architecture, but a bit set in the number. If the profile doesn't have x32,
            # the program itself handles such numbers.
            limit = newest.get(_X32, 0)
            if limit > 0:
                block += [(_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT), (_JUMP_GREATER, _REFUSE, _PASS, limit)]
            else:
                block += [(_JUMP_GREATER_EQUAL, _PASS, 0, _X32_BIT)]
        block.append((_JUMP_GREATER, _REFUSE, _PASS, number))
        blocks += [(_JUMP_EQUAL, 0, len(block), token), *block]
    instructions = [(_LOAD, 0, 0, 4), *blocks]
    # After the blocks: a jump over the refusal, the refusal, and then the program.
    instructions += [(_JUMP_ALWAYS, 0, 0, 1), (_RETURN, 0, 0, _ENOSYS)]
    refuse = len(instructions) - 1
    targets = {_REFUSE: refuse, _PASS: refuse + 1}
    return b"".join(
        struct.pack(
            "=HBBI",
            code,
            targets[if_true] - at - 1 if if_true in targets else if_true,
            targets[if_false] - at - 1 if if_false in targets else if_false,
            value,
        )
        for at, (code, if_true, if_false, value) in enumerate(instructions)
    )


_REFUSE, _PASS = -1, -2  # jump targets whose distance isn't known yet
_JUMP_ALWAYS = 0x05
