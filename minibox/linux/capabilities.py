"""Capabilities: their names and numbers, Docker's default set, and ``--cap-add``/``--cap-drop``.

Numbers are bits as in `capabilities(7)` and ``include/uapi/linux/capability.h``. A set is an int mask here, and a
list of ``CAP_`` names in an OCI Spec.
"""

from __future__ import annotations

from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: In the order of the kernel's numbers; 40 is the last since Linux 5.9.
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

#: A container's capabilities by default: Docker's 14, in the kernel's order.
DEFAULT = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
)  # fmt: skip


def last_cap() -> int:
    """Return the number of the last capability that the running kernel knows (`proc_sys_kernel(5)`)."""
    try:
        with open("/proc/sys/kernel/cap_last_cap", "rb", 0) as file:
            return int(file.read())
    except (OSError, ValueError):
        return len(NAMES) - 1


def mask_of(names: Iterable[str]) -> int:
    """Return the bit mask of ``CAP_`` names; unknown names are left out."""
    mask = 0
    for name in names:
        number = NUMBERS.get(name)
        if number is not None:
            mask |= 1 << number
    return mask


def unknown(sets: Iterable[Iterable[str]]) -> list[str]:
    """Return the names that `mask_of` leaves out."""
    return sorted({name for names in sets for name in names if name not in NUMBERS})


def names_of(mask: int) -> list[str]:
    """Return the ``CAP_`` names of a bit mask, in the kernel's order; bits without a name are left out."""
    return [name for number, name in enumerate(NAMES) if mask >> number & 1]


def capability_name(word: str) -> str:
    """Like `capability`, but return "" for an unknown name."""
    name = f"CAP_{word.strip().upper().removeprefix('CAP_')}"
    return name if name in NUMBERS else ""


def capability(word: str) -> str:
    """Return the full name of a capability, which a user may write in any case and without ``CAP_``.

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


def adjusted(add: Iterable[str], drop: Iterable[str], *, last: int = len(NAMES) - 1) -> list[str]:
    """Apply ``--cap-add`` and ``--cap-drop`` as Docker does; return the names in the kernel's order.

    You may add ``ALL`` (all that the kernel knows, except those dropped by name) or drop it (only those added by name
    stay). If a name is both added and dropped, adding wins as in Docker, unless only ``ALL`` added it.

    Args:
        last: the kernel's last capability (`last_cap`), where ``ALL`` ends.

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
        wanted = set(DEFAULT) - drop_names
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
            raise UsageError(f"this kernel has no {name}", hint="it needs a newer kernel: see capabilities(7)")
        names.add(name)
    return names, every
