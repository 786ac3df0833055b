"""What the kernel tells of a process: its mounts, ids, capabilities, namespaces, cgroups, links; and what has changed.

Looked at from outside, in /proc, so that it works whatever the process is doing.
"""

from __future__ import annotations

import os
import re

from minibox.base.files import text_of
from minibox.base.lines import lines_of
from minibox.errors import suppress
from minibox.linux.capabilities import NAMES
from minibox.linux.mount_table import unescaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    #: What kind of thing, and which one -> its value.
    Facts = dict[tuple[str, str], str]

NAMESPACES = ("mnt", "uts", "ipc", "user", "pid", "net", "cgroup", "time")
NAMESPACE_WORDS = {"mnt": "mount", "net": "network"}
CAPABILITY_SETS = {
    "CapInh": "inheritable", "CapPrm": "permitted", "CapEff": "effective", "CapBnd": "bounding", "CapAmb": "ambient",
}  # fmt: skip
STATUS = {
    "Uid": "user ids (real, effective, saved, for files)", "Gid": "group ids (real, effective, saved, for files)",
    "Groups": "supplementary groups", "Umask": "umask", "NoNewPrivs": "no_new_privs", "Seccomp": "seccomp",
    "Seccomp_filters": "number of system call filters",
}  # fmt: skip
SECCOMP = {"0": "off", "1": "strict", "2": "a filter"}
LOCAL = re.compile(r"\|-- (\S+)\n +/32 host LOCAL")
MOST_NAMES = 6
MOVED = " now"
SEPARATOR = "\0"  # between the place of a mount and what it is


def facts_of(pid: int) -> Facts:
    """Return the facts of a process; {} if it has ended."""
    facts: Facts = {}
    with suppress(OSError):
        status = dict(line.split(":\t", 1) for line in lines_of(text_of(f"/proc/{pid}/status")) if ":\t" in line)
        if not status or status["State"].startswith("Z"):
            return {}
        facts.update(_mounts(pid))
        for kind in NAMESPACES:
            with suppress(FileNotFoundError):
                facts["namespace", NAMESPACE_WORDS.get(kind, kind)] = os.readlink(f"/proc/{pid}/ns/{kind}")
        for key, words in STATUS.items():
            value = " ".join(status.get(key, "").split())
            facts["status", words] = SECCOMP.get(value, value) if key == "Seccomp" else value
        for key, words in CAPABILITY_SETS.items():
            facts["capabilities", words] = status.get(key, "0")
        for kind in ("uid", "gid"):
            lines = lines_of(text_of(f"/proc/{pid}/{kind}_map"))
            facts["status", f"{kind} map (inside, outside, how many)"] = ", ".join(" ".join(x.split()) for x in lines)
        for line in lines_of(text_of(f"/proc/{pid}/cgroup")):
            _, controllers, path = line.split(":", 2)
            facts["cgroup", controllers or "v2"] = path
        facts.update(_links(pid))
        facts["status", "root directory"] = os.readlink(f"/proc/{pid}/root")
        facts["status", "working directory"] = os.readlink(f"/proc/{pid}/cwd")
        facts["status", "session"] = text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()[3]
        for line in lines_of(text_of(f"/proc/{pid}/limits"))[1:]:
            name, _, values = line.partition("  ")
            facts["limit", name] = " ".join(values.split()[:2])
        facts.update(_descriptors(pid))
    return facts


def _mounts(pid: int) -> Iterator[tuple[tuple[str, str], str]]:
    for line in lines_of(text_of(f"/proc/{pid}/mountinfo")):
        left, _, right = line.partition(" - ")
        number, _, _, root, point, options, *propagation = left.split(" ")
        fstype, source = right.split(" ")[:2]
        shared = " ".join(each.partition(":")[0] for each in propagation) or "private"
        below = f", {unescaped(root)} of it" if root != "/" else ""
        yield (
            ("mount", number),
            f"{unescaped(point)}{SEPARATOR}{fstype} of {unescaped(source)}{below}, {options}, {shared}",
        )


def _links(pid: int) -> Iterator[tuple[tuple[str, str], str]]:
    for line in lines_of(text_of(f"/proc/{pid}/net/dev"))[2:]:
        yield ("link", line.partition(":")[0].strip()), ""
    for address in dict.fromkeys(LOCAL.findall(text_of(f"/proc/{pid}/net/fib_trie"))):
        yield ("address", address), ""
    for line in lines_of(text_of(f"/proc/{pid}/net/route"))[1:]:
        fields = line.split()
        if fields[1] == "00000000":
            yield ("route", "default"), f"{_dotted(fields[2])} by {fields[0]}"


def _dotted(word: str) -> str:
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(word)))


def _descriptors(pid: int) -> Iterator[tuple[tuple[str, str], str]]:
    for number in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
        with suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            yield ("descriptor", number), re.sub(r":\[\d+\]", "", target)


# ---- in words --------------------------------------------------------------------------------------


def in_words(facts: Facts) -> list[str]:
    """Return all facts as lines."""
    return [_fact(kind, name, value) for (kind, name), value in facts.items()]


def birth(facts: Facts, parents: Facts) -> list[str]:
    """Return what a new process has of its own, as lines; [] if it has ended already."""
    own = [name for (kind, name), value in facts.items() if kind == "namespace" and parents.get((kind, name)) != value]
    return [f"it is there, with namespaces of its own: {', '.join(own) or 'none'}"] if facts else []


def changes(before: Facts, after: Facts) -> list[str]:
    """Return what is new, gone and different, as lines."""
    if not after:
        return ["it has ended"] if before else []
    lines = _mount_changes(before, after)
    moved = any(line.endswith(MOVED) for line in lines)
    for key in sorted({*before, *after}, key=[*after, *before].index):
        kind, name = key
        old, new = before.get(key), after.get(key)
        if old == new or kind == "mount" or (kind == "descriptor" and old and new and moved):
            continue
        if kind == "capabilities":
            lines.append(f"{name} capabilities: {_capability_change(old or '0', new or '0')}")
        elif old is None:
            lines.append(f"new {_fact(kind, name, new or '')}")
        elif new is None:
            lines.append(f"gone {_fact(kind, name, old)}")
        elif kind == "namespace":
            lines.append(f"another {name} namespace")
        else:
            lines.append(f"{_label(kind, name)}: {old or '(none)'} -> {new or '(none)'}")
    return lines


def _mount_changes(before: Facts, after: Facts) -> list[str]:
    old, new = (
        {name: value.split(SEPARATOR) for (kind, name), value in facts.items() if kind == "mount"}
        for facts in (before, after)
    )
    lines = [f"new mount at {point}: {what}" for name, (point, what) in new.items() if name not in old]
    gone = [point for name, (point, _) in old.items() if name not in new]
    if gone:
        lines.append(f"gone {'mount' if len(gone) == 1 else f'{len(gone)} mounts'} at {', '.join(gone)}")
    moved = {old[name][0]: point for name, (point, _) in new.items() if name in old and old[name][0] != point}
    if moved:
        first = min(moved, key=len)
        below = len(moved) - 1
        more = f", with {below} {'mount' if below == 1 else 'mounts'} below it," if below else ""
        lines.append(f"the mount at {first}{more} is at {moved[first]}{MOVED}")
    for name, (point, what) in new.items():
        if name in old and old[name][1] != what:
            lines.append(f"mount at {point}: {old[name][1]} -> {what}")
    return lines


def _fact(kind: str, name: str, value: str) -> str:
    if kind == "mount":
        return "mount at " + value.replace(SEPARATOR, ": ")
    if kind == "capabilities":
        value = _names(int(value, 16))
    return f"{_label(kind, name)}: {value}" if value else _label(kind, name)


def _label(kind: str, name: str) -> str:
    if kind in ("namespace", "capabilities"):
        return f"{name} {kind}"
    return name if kind == "status" else f"{kind} {name}"


def _capability_change(old: str, new: str) -> str:
    before, after = int(old, 16), int(new, 16)
    gained, lost = after & ~before, before & ~after
    words = [f"gained {_names(gained)}" if gained else "", f"lost {_names(lost)}" if lost else ""]
    return "; ".join([*filter(None, words), f"now {_names(after)}"])


def _names(mask: int) -> str:
    found: Sequence[str] = [name.removeprefix("CAP_").lower() for bit, name in enumerate(NAMES) if mask >> bit & 1]
    if len(found) > len(NAMES) - MOST_NAMES:
        missing = [name.removeprefix("CAP_").lower() for bit, name in enumerate(NAMES) if not mask >> bit & 1]
        return f"all but {', '.join(missing)}" if missing else "all"
    return ", ".join(found) or "none"
