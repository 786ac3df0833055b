"""The command lines of a recording: made from a seed, and the same for each tree."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from tests.behaviour import specs, words

SEED = 14
COUNTS = {"run": 120, "exec": 40, "oci": 75, "api": 65}
IMAGE = "base"
BAD_SHARE = 0.1
BOXES = ("plain", "user", "host", "limited", "init")

#: What a container tells of itself before it waits at the gate.
PROBE = """
id; pwd; hostname; umask; env | sort; ulimit -a
grep -E '^(Cap|NoNewPrivs|Seccomp|Groups)' /proc/self/status
cat /proc/self/oom_score_adj /proc/self/cgroup /proc/self/uid_map /etc/hosts /etc/resolv.conf
cut -d ' ' -f 4- /proc/self/mountinfo
ls -ln /dev / /data /m /scratch | awk '/^[bc]/ { print $1, $3, $4, $5, $6, $NF; next } { print $1, $3, $4, $NF }'
ip -o addr | grep -v ': mb-'; ip route | grep -v 'dev mb-'
cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax
read line && echo "stdin: $line"
read nothing </gate/fifo
"""


def all_cases(counts: dict[str, int] = COUNTS) -> list[dict[str, Any]]:
    """Each is ``{"name": ..., "front": ..., ...}``, the rest as its front's recorder reads it."""
    make = {"run": _run, "exec": _exec, "oci": specs.case, "api": _api}
    found = []
    for front, count in counts.items():
        chance = random.Random(f"{SEED} {front}")
        for number in range(count):
            found.append({"name": f"{front}-{number:03}", "front": front, **make[front](chance, number)})
    return found + list(_bad())


def _bad() -> Iterator[dict[str, Any]]:
    """Each bad value once, by option."""
    for front, table in (("run", words.RUN), ("exec", words.EXEC)):
        command = {"run": ["--network=none", "--rm", IMAGE, "true"], "exec": ["plain", "true"]}[front]
        for name, (_, bad) in table.items():
            lines = [
                [front, *options, *([*command[1:]] if "--network" in "".join(options) else command)] for options in bad
            ]
            yield {"name": f"bad-{front}{name}", "front": "bad", "lines": lines}


def _pick(chance: random.Random, number: int, table: dict[str, words.Values]) -> list[str]:
    """One option that is its turn, so that each comes, and up to three others; at most one value is bad."""
    names = list(table)
    others = chance.sample(names, chance.choice((0, 1, 1, 2, 3)))
    found: list[str] = []
    bad_share = BAD_SHARE
    for name in dict.fromkeys([names[number % len(names)], *others]):
        good, bad = table[name]
        if bad and (not good or chance.random() < bad_share):
            found += chance.choice(bad)
            bad_share = 0
        elif good:
            found += chance.choice(good)
    return found


def _run(chance: random.Random, number: int) -> dict[str, Any]:
    options = _pick(chance, number, words.RUN)
    command = chance.choices(
        [["sh", "-c", f"{PROBE}\nexit {number % 7}"], ["/no/such/command"], ["/etc/passwd"], [], ["sh", "-c", "kill -9 $$"]],
        [20, 1, 1, 1, 1],
    )[0]  # fmt: skip
    if not any(word.startswith(("--rm", "--restart", "-d", "--detach")) for word in options) and chance.random() < 0.7:
        options.append("--rm")
    if (
        not any(word.startswith("--net") for word in options)
        and not {"-p", "-P"} & {*options}
        and chance.random() < 0.6
    ):
        options.append("--network=none")
    if any(word.startswith("--entrypoint=/bin") for word in options):
        command = command[1:]
    image = chance.choices([IMAGE, "no-such-image", "Bad:Image:x"], [30, 1, 1])[0]
    return {"words": ["run", *options, "-v", "{work}/gate:/gate", image, *command]}


def _exec(chance: random.Random, number: int) -> dict[str, Any]:
    options = _pick(chance, number, words.EXEC)
    command = chance.choices(
        [["sh", "-c", f"{PROBE}\nexit {number % 7}"], ["/no/such/command"], ["/etc/passwd"], []], [12, 1, 1, 1]
    )[0]
    box = chance.choices([*BOXES, "no-such-box"], [4, 4, 4, 4, 4, 1])[0]
    return {"words": ["exec", *options, box, *command]}


def _api(chance: random.Random, number: int) -> dict[str, Any]:
    names = list(words.API)
    keywords: dict[str, Any] = {}
    bad_share = BAD_SHARE
    for name in dict.fromkeys([names[number % len(names)], *chance.sample(names, chance.choice((0, 1, 2)))]):
        good, bad = words.API[name]
        if bad and (not good or chance.random() < bad_share):
            keywords[name] = chance.choice(bad)
            bad_share = 0
        elif good:
            keywords[name] = chance.choice(good)
    kind = chance.choice(("run", "run", "Sandbox", "popen"))
    command = chance.choices([["sh", "-c", f"{PROBE}\nexit {number % 7}"], ["/no/such/command"], "a text"], [14, 1, 1])[
        0
    ]
    return {"kind": kind, "command": command, "keywords": keywords}
