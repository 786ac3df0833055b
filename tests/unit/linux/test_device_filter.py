"""Device rules: the v1 lines, and the BPF program run by an interpreter of the few instructions it uses."""

from __future__ import annotations

import struct
from random import Random

import pytest

from minibox.errors import LimitError
from minibox.linux.device_filter import compile_rules, denies_something, rule_lines, with_defaults

DENY_ALL = {"allow": False, "access": "rwm"}
BITS = {"m": 1, "r": 2, "w": 4}


def run(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Interpret a program as the kernel would for one access; refuse anything the verifier would."""
    context = {0: sum(BITS[letter] for letter in access) << 16 | {"b": 1, "c": 2}[kind], 4: major, 8: minor}
    registers: dict[int, int] = {}
    insns = list(struct.iter_unpack("=BBhI", program))
    at = 0
    while True:
        code, operands, offset, immediate = insns[at]
        dst, src = operands & 15, operands >> 4
        at += 1
        if code == 0x61:
            assert src == 1
            registers[dst] = context[offset]
        elif code == 0x54:
            registers[dst] &= immediate
        elif code == 0x74:
            registers[dst] >>= immediate
        elif code == 0xB7:
            registers[dst] = immediate
        elif (
            code == 0x05
            or (code == 0x56 and registers[dst] != immediate)
            or (code == 0x46 and registers[dst] & immediate)
        ):
            assert offset >= 0, "a loop"
            at += offset
        elif code == 0x95:
            return bool(registers[0])
        else:
            assert code in (0x56, 0x46), f"unknown instruction {code:#x}"


def expected(rules: list[dict], kind: str, major: int, minor: int, access: str) -> bool:
    """The definition: for each access by itself the last rule that matches decides."""

    def one(letter: str) -> bool:
        verdict = True
        for rule in rules:
            if (
                rule.get("type", "a") in ("a", kind)
                and rule.get("major", major) == major
                and rule.get("minor", minor) == minor
                and letter in rule.get("access", "rwm")
            ):
                verdict = rule["allow"]
        return verdict

    return all(one(letter) for letter in access)


def test_the_defaults_allow_the_usual_devices_and_no_disk():
    program = compile_rules(with_defaults([DENY_ALL]))
    for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, 0), (136, 77)):
        assert run(program, "c", major, minor, "rw")
    assert run(program, "b", 8, 0, "m")  # a node may be made
    for kind, major, minor in (("b", 8, 0), ("b", 1, 3), ("c", 1, 1), ("c", 10, 229), ("c", 10, 200), ("c", 1, 4)):
        assert not run(program, kind, major, minor, "r")
        assert not run(program, kind, major, minor, "w")


def test_two_rules_may_allow_one_half_each():
    rules = [DENY_ALL, *({"allow": True, "type": "c", "major": 4, "minor": 5, "access": letter} for letter in "rw")]
    assert run(compile_rules(rules), "c", 4, 5, "rw")
    assert not run(compile_rules(rules), "c", 4, 5, "rwm")


def test_the_last_rule_that_matches_decides():
    fuse = {"type": "c", "major": 10, "minor": 229}
    assert run(compile_rules([DENY_ALL, {"allow": True, **fuse}]), "c", 10, 229, "rw")
    assert not run(compile_rules([{"allow": True, **fuse}, DENY_ALL]), "c", 10, 229, "rw")
    read_only = compile_rules([{"allow": True}, {"allow": False, **fuse, "access": "w"}])
    assert run(read_only, "c", 10, 229, "r")
    assert not run(read_only, "c", 10, 229, "rw")


def test_any_rules_give_what_they_say():
    random = Random(7)
    for _ in range(300):
        rules = []
        for _ in range(random.randrange(8)):
            rule = {"allow": random.random() < 0.5, "access": "".join(random.sample("rwm", random.randint(1, 3)))}
            for key, values in (("type", "abc"), ("major", (1, 2, 0xFFFFF000)), ("minor", (1, 2))):
                if random.random() < 0.6:
                    rule[key] = random.choice(values)
            rules.append(rule)
        program = compile_rules(rules)
        for kind in "bc":
            for major in (1, 2, 3, 0xFFFFF000):
                for minor in (1, 2, 3):
                    for access in ("r", "w", "m", "rw", "rwm"):
                        assert run(program, kind, major, minor, access) == expected(rules, kind, major, minor, access)


def test_v1_lines():
    rules = [
        DENY_ALL,
        {"allow": True, "type": "b", "major": 8, "minor": -1, "access": "r"},
        {"allow": False, "access": "w"},
    ]
    assert rule_lines(rules) == [
        ("devices.deny", "a"),
        ("devices.allow", "b 8:* r"),
    ]
    assert ("devices.allow", "c 136:* rwm") in rule_lines(with_defaults([DENY_ALL]))


def test_v1_lines_take_back_what_a_wildcard_denies():
    """The kernel's devices.deny takes back an exception that is written as it was made, and no other."""
    tty, any_tty = {"type": "c", "major": 4, "minor": 7}, {"type": "c", "major": 4}
    after = [DENY_ALL, {"allow": True, **tty}, {"allow": False, **any_tty, "access": "w"}]
    assert rule_lines(after) == [("devices.deny", "a"), ("devices.allow", "c 4:7 rm")]
    open_by_default = [{"allow": False, **tty}, {"allow": True, **any_tty, "access": "r"}]
    assert rule_lines(open_by_default) == [("devices.deny", "c 4:7 wm")]
    assert rule_lines([{"allow": True}, *open_by_default]) == [("devices.allow", "a"), ("devices.deny", "c 4:7 wm")]


def test_v1_has_no_lines_for_a_part_of_an_exception():
    with pytest.raises(LimitError, match="can't undo only a part"):
        rule_lines([DENY_ALL, {"allow": True, "type": "c", "major": 4}, {"allow": False, "type": "c", "minor": 7}])


def test_rules_that_allow_everything_need_no_filter():
    assert not denies_something([])
    assert not denies_something([{"allow": True, "access": "rwm"}])
    assert not denies_something([DENY_ALL, {"allow": True, "type": "a", "access": "rwm"}])
    assert denies_something([DENY_ALL])
    assert denies_something([{"allow": True}, {"allow": False, "type": "c", "major": 1, "minor": 1}])


@pytest.mark.parametrize("rule", [{"type": "x"}, {"access": "rwx"}, {"type": "p"}])
def test_a_rule_that_makes_no_sense(rule):
    with pytest.raises(LimitError, match="device rule"):
        compile_rules([{"allow": True, **rule}])
