"""Capabilities: their names and numbers, Docker's default set, and ``--cap-add``/``--cap-drop``.

Numbers are bits as in `capabilities(7)` and ``include/uapi/linux/capability.h``; a set of them is an
int mask here and a sequence of ``CAP_`` names in an OCI Spec.
"""

from __future__ import annotations

from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: By number, as the kernel counts them; 40 is the last since Linux 5.9.
NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(NAMES)}

#: What a container has when nothing is asked for: Docker's 14, in the kernel's order.
DEFAULT = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
)  # fmt: skip


def last_cap() -> int:
    """The number of the last capability that the running kernel knows (`proc_sys_kernel(5)`)."""
    try:
        with open("/proc/sys/kernel/cap_last_cap", "rb", 0) as file:
            return int(file.read())
    except (OSError, ValueError):
        return len(NAMES) - 1


def mask_of(names: Iterable[str]) -> int:
    """The bit mask of ``CAP_`` names; names that no kernel here knows are left out."""
    mask = 0
    for name in names:
        number = NUMBERS.get(name)
        if number is not None:
            mask |= 1 << number
    return mask


def unknown(sets: Iterable[Iterable[str]]) -> list[str]:
    """The names that `mask_of` leaves out."""
    return sorted({name for names in sets for name in names if name not in NUMBERS})


def names_of(mask: int) -> list[str]:
    """The ``CAP_`` names of a bit mask, in the kernel's order; bits without a name are left out."""
    return [name for number, name in enumerate(NAMES) if mask >> number & 1]


def capability_name(word: str) -> str:
    """As `capability`; "" when there is none."""
    name = f"CAP_{word.strip().upper().removeprefix('CAP_')}"
    return name if name in NUMBERS else ""


def capability(word: str) -> str:
    """The full name of a capability as a user may write it: any case, with or without ``CAP_``.

    Raises:
        UsageError: no such capability; the hint lists names that look like it.
    """
    if name := capability_name(word):
        return name
    from difflib import get_close_matches

    near = get_close_matches(f"CAP_{word.strip().upper().removeprefix('CAP_')}", NAMES, n=2, cutoff=0.75)
    raise UsageError(
        f"unknown capability {word!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else "capabilities(7) lists the names",
    )


def adjusted(
    add: Iterable[str], drop: Iterable[str], *, base: tuple[str, ...] = DEFAULT, last: int = len(NAMES) - 1
) -> list[str]:
    """The set after ``--cap-add`` and ``--cap-drop``, as Docker counts it, in the kernel's order.

    ``ALL`` may be added (all that the kernel knows, less what is dropped by name) or dropped (only
    what is added by name stays). A name that is both added and dropped is there: adding wins, as
    in Docker, unless it was added by ``ALL``.

    Args:
        last: the kernel's last capability (`last_cap`); ``ALL`` stops there.

    Raises:
        UsageError: an unknown name, one that this kernel lacks, or ALL both added and dropped.
    """
    add_names, add_all = _read(add, last)
    drop_names, drop_all = _read(drop, last)
    if add_all and drop_all:
        raise UsageError("capability ALL is both added and dropped", hint="leave out --cap-add ALL or --cap-drop ALL")
    if add_all:
        wanted = set(NAMES[: last + 1]) - drop_names
    elif drop_all:
        wanted = set()
    else:
        wanted = set(base) - drop_names
    wanted |= add_names
    return [name for name in NAMES[: last + 1] if name in wanted]


def _read(words: Iterable[str], last: int) -> tuple[set[str], bool]:
    names: set[str] = set()
    every = False
    for word in words:
        if word.strip().upper() in ("ALL", "CAP_ALL"):
            every = True
            continue
        name = capability(word)
        if NUMBERS[name] > last:
            raise UsageError(f"this kernel has no {name}", hint="it needs a newer kernel; capabilities(7) says which")
        names.add(name)
    return names, every
