"""`make profile`: where the time of one `minibox run` goes, by step.

CPU time is the smallest of several goes: other programs only add to it. A first go fills the caches. What is measured is
the checkout's `minibox`, with the caches and images of its user.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 15
RUN = ("run", "--rm", "--network", "none", "base", "true")
BIN = Path(sys.executable).parent
#: System calls that look for files, and that open them.
LOOKING, OPENING = ("stat", "newfstatat", "statx", "lstat", "access", "faccessat2"), ("open", "openat", "openat2")
IMPORT = re.compile(r"import time: +(\d+) \| +\d+ \| +(\S+)")


def main() -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    minibox = [str(BIN / "minibox"), *RUN]
    for _ in range(2):
        cpu_ms(minibox, environment)  # the second writes the modules that the first has compiled
    bare, usual = ([sys.executable, *flags, "-c", "pass"] for flags in (("-I", "-S"), ()))
    interpreter, site, whole = (least_ms(argv, environment) for argv in (bare, usual, minibox))
    imports = imports_of([sys.executable, "-X", "importtime", *minibox], environment)
    begun = imports_of([sys.executable, "-X", "importtime", "-c", "pass"], environment).keys()
    own = {name: us for name, us in imports.items() if name.partition(".")[0] == "minibox"}
    others = {name: us for name, us in imports.items() if name not in own and name not in begun}
    own_ms, others_ms = (sum(each.values()) / 1000 for each in (own, others))
    print(f"CPU time of minibox {' '.join(RUN)}\n")
    row("interpreter", interpreter, "python -I -S -c pass")
    row("site", site - interpreter, "what python -c pass takes more")
    row("imports", own_ms, f"{len(own)} modules of minibox")
    row("", others_ms, f"{len(others)} others: {' '.join(sorted(others))}")
    row("the rest", whole - site - own_ms - others_ms, "options, image, plan, container, removal")
    row("all", whole, "")
    print()
    calls(minibox, environment)
    print("\nThe steps of a start, with the time that passed:\n")
    sys.stdout.flush()
    return subprocess.run([minibox[0], *RUN[:-2], "--trace", *RUN[-2:]], env=environment, stderr=sys.stdout).returncode


def row(step: str, ms: float, what: str) -> None:
    print(f"  {step:12} {ms:7.1f} ms  {what}")


def least_ms(argv: list[str], environment: dict[str, str]) -> float:
    return min(cpu_ms(argv, environment) for _ in range(ROUNDS))


def cpu_ms(argv: list[str], environment: dict[str, str]) -> float:
    """Run a program, and return its CPU time with that of the children that it has waited for."""
    pid = os.posix_spawn(argv[0], argv, environment)
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(argv)}: {os.waitstatus_to_exitcode(status)}")
    return 1000 * (usage.ru_utime + usage.ru_stime)


def imports_of(argv: list[str], environment: dict[str, str]) -> dict[str, int]:
    """Return the time in microseconds of each module that a program imports, without those that it imports."""
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return {name: int(us) for us, name in IMPORT.findall(done.stderr)}


def calls(argv: list[str], environment: dict[str, str]) -> None:
    """Print how many system calls a program makes, and how many of them look for files or open them."""
    if not shutil.which("strace"):
        print("  strace counts system calls, but is not installed")
        return
    with tempfile.NamedTemporaryFile("r") as found:
        subprocess.run(["strace", "-f", "-c", "-U", "name,calls", "-o", found.name, *argv], env=environment, check=True)
        rows = [line.split() for line in found.read().splitlines()[2:]]
    count = {words[0]: int(words[1]) for words in rows if len(words) == 2 and words[1].isdecimal()}
    total = count.pop("total", 0)
    looking, opening = (sum(count.get(name, 0) for name in names) for names in (LOOKING, OPENING))
    print(f"  {total} system calls; {looking} look for files, {opening} open them. The most frequent:")
    most = sorted(count.items(), key=lambda each: -each[1])[:12]
    print("  " + ", ".join(f"{name} {times}" for name, times in most))


if __name__ == "__main__":
    raise SystemExit(main())
