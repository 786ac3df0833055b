"""What exit statuses, signals and last words of a program usually mean, and what helps."""

from __future__ import annotations

import re
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: What the kernel, or the program itself, says by a signal that nobody sent; and what helps. signal(7)
CRASHES: dict[int, tuple[str, str]] = {
    signal.SIGSEGV: ("it touched memory that it hasn't", "a bug of the program, or a library that doesn't fit it"),
    signal.SIGBUS: (
        "it touched memory behind which there is no file or no space any more",
        "if it uses shared memory, /dev/shm may be full: --shm-size 256m",
    ),
    signal.SIGABRT: ("it gave up by abort(3): an assertion failed, or the heap is damaged", ""),
    signal.SIGFPE: ("it divided by zero, or the like", ""),
    signal.SIGILL: (
        "it executed an instruction that this processor hasn't",
        "it may have been built for a newer processor: look for an image for an older one",
    ),
    signal.SIGTRAP: ("it ran into a breakpoint", ""),
    signal.SIGSYS: (
        "a seccomp filter ended it for a system call",
        "--security-opt seccomp=unconfined shows whether that is it",
    ),
    signal.SIGXCPU: ("it used more processor time than --ulimit cpu allows", "raise --ulimit cpu"),
    signal.SIGXFSZ: ("it wrote a larger file than --ulimit fsize allows", "raise --ulimit fsize"),
    signal.SIGPIPE: ("it wrote to a pipe that nobody read", ""),
}

#: What a program says before it ends, and what helps.
_SAYINGS: tuple[tuple[str, str], ...] = (
    (r"error while loading shared libraries: (\S+?):", "the library {0} is not in the image: install what it is in"),
    (r"Error loading shared library (\S+?):", "the library {0} is not in the image: install what it is in"),
    (r"(\\r|\r|\^M)'?: (command )?not found|bad interpreter: \S*\^M", "the script has Windows line ends: dos2unix"),
    (r"exec format error", "a program for another kind of machine, or a script without its #! line"),
    (r"address (already )?in use", "another program has that port: which one says ss -tlnp"),
    (r"no space left on device", "a disk or a tmpfs is full: minibox system df, --tmpfs DST:size=256m, --shm-size"),
    (r"read-only file system", "it writes to what is read-only: give it --tmpfs or -v for that place"),
    (r"cannot allocate memory|out of memory|MemoryError|bad_alloc|OutOfMemory", "it wants more memory: --memory"),
    (r"resource temporarily unavailable|can.?t fork|cannot fork", "it wants more processes: --pids-limit"),
    (r"too many open files", "it wants more files: --ulimit nofile=65536"),
    (
        r"name resolution|name or service not known|bad address|could not resolve|network is unreachable",
        "it wants a network: see --network and --dns",
    ),
    (r"operation not permitted", "it wants a privilege that containers haven't: see --cap-add"),
    (r"permission denied", "its user may not: see --user, and who owns what is mounted with -v"),
)


def signal_name(number: int) -> str:
    """``SIGKILL``; ``signal 40`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def status_words(status: int) -> str:
    """What an exit status of a program's own means by convention; "" for no more than its number."""
    if status == 0:
        return "success"
    if status == 126:
        return "a shell exits so when it can't execute what it was told to"
    if status == 127:
        return "a shell exits so when it doesn't find what it was told to execute"
    if 128 < status <= 128 + 64:
        return f"a shell exits so when {signal_name(status - 128)} ended what it ran"
    return ""


def advice(lines: Sequence[str]) -> str:
    """What helps against what a program has said last; "" when that says nothing to us."""
    for line in reversed(lines):
        for pattern, hint in _SAYINGS:
            if found := re.search(pattern, line, re.IGNORECASE):
                return hint.format(*found.groups())
    return ""
