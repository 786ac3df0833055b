"""What the exit status, the signal and the last lines of a program usually mean, and what helps."""

from __future__ import annotations

import re
import signal

from minibox.linux.signals import SIGRTMAX, SIGRTMIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: What a signal means that the kernel or the program itself raises, and what helps. signal(7)
CRASHES: dict[int, tuple[str, str]] = {
    signal.SIGSEGV: ("it used an invalid address", "a bug in the program, or a library that doesn't fit it"),
    signal.SIGBUS: (
        "it used memory whose file was truncated or has no space left",
        "if it uses shared memory, /dev/shm may be full: --shm-size 256m",
    ),
    signal.SIGABRT: ("it called abort(3): an assertion failed, or the heap is corrupt", ""),
    signal.SIGFPE: ("it divided by zero or made another arithmetic error", ""),
    signal.SIGILL: (
        "it executed an instruction that this processor doesn't have",
        "it may have been built for a newer processor: look for an image for an older one",
    ),
    signal.SIGTRAP: ("it ran into a breakpoint", ""),
    signal.SIGSYS: (
        "a seccomp filter ended it for a system call",
        "run it with --security-opt seccomp=unconfined to see whether that is the cause",
    ),
    signal.SIGXCPU: ("it used more processor time than --ulimit cpu allows", "raise --ulimit cpu"),
    signal.SIGXFSZ: ("it wrote a larger file than --ulimit fsize allows", "raise --ulimit fsize"),
    signal.SIGPIPE: ("it wrote to a pipe without a reader", ""),
}

#: What a program prints before it ends, and what helps.
_SAYINGS: tuple[tuple[str, str], ...] = (
    (r"error while loading shared libraries: (\S+?):", "the library {0} is not in the image: install its package"),
    (r"Error loading shared library (\S+?):", "the library {0} is not in the image: install its package"),
    (r"(\\r|\r|\^M)'?: (command )?not found|bad interpreter: \S*\^M", "the script has Windows line ends: use dos2unix"),
    (r"exec format error", "the program is for another kind of machine, or a script without a #! line"),
    (r"address (already )?in use", "another program uses that port: ss -tlnp shows which"),
    (r"no space left on device", "a disk or a tmpfs is full: minibox system df, --tmpfs DST:size=256m, --shm-size"),
    (r"read-only file system", "it writes to a read-only place: mount something there with --tmpfs or -v"),
    (r"cannot allocate memory|out of memory|MemoryError|bad_alloc|OutOfMemory", "it needs more memory: --memory"),
    (r"resource temporarily unavailable|can.?t fork|cannot fork", "it needs more processes: --pids-limit"),
    (r"too many open files", "it needs more open files: --ulimit nofile=65536"),
    (
        r"name resolution|name or service not known|bad address|could not resolve|network is unreachable",
        "it needs a network: see --network and --dns",
    ),
    (r"operation not permitted", "it needs a privilege that containers don't have: see --cap-add"),
    (r"permission denied", "its user isn't allowed to: see --user, and check who owns what is mounted with -v"),
)


def signal_name(number: int) -> str:
    """``SIGKILL``, ``SIGRTMIN+3``; ``signal 32`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - SIGRTMIN}" if SIGRTMIN < number < SIGRTMAX else f"signal {number}"


def status_words(status: int) -> str:
    """What an exit status means by convention; "" for no special meaning."""
    if status == 0:
        return "success"
    if status == 126:
        return "a shell exits with this status when it can't execute a command"
    if status == 127:
        return "a shell exits with this status when it can't find a command"
    if 128 < status <= 128 + 64:
        return f"a shell exits with this status when {signal_name(status - 128)} ended its command"
    return ""


def advice(lines: Sequence[str]) -> str:
    """A hint for the last lines a program wrote; "" if we recognize none of them."""
    for line in reversed(lines):
        for pattern, hint in _SAYINGS:
            if found := re.search(pattern, line, re.IGNORECASE):
                return hint.format(*found.groups())
    return ""
