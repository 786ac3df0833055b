"""Labels of AppArmor and SELinux as operations: what the command, its keys and its mounts are under.

The kernel takes a label for the next exec from a file of the process's own in /proc; proc_pid_attr(5). It is opened
while the host's /proc is in sight, since the container's may be anything, and written to right before the exec: hooks
would go under it too. By then only a write is sure to pass the filter of system calls.
"""

from __future__ import annotations

from os import fsencode

from minibox.plan import operations as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import Process
    from minibox.plan.operations import Op

O_WRONLY = 1
ATTRIBUTES = "/thread-self/attr"  # below /proc
# slot: file
FILES = {op.LABEL_APPARMOR: "apparmor/exec", op.LABEL_SELINUX: "exec", op.LABEL_KEYS: "keycreate"}


def hosts_proc(process: Process) -> list[Op]:
    """Hold the host's /proc, before a mount namespace is joined that may have anything there."""
    if not is_labelled(process):
        return []
    return hold_proc()


def is_labelled(process: Process) -> bool:
    """Is a label of either kind asked for?"""
    return bool(process.get("apparmorProfile") or process.get("selinuxLabel"))


def hold_proc() -> list[Op]:
    """The host's /proc, for what this process has to tell the kernel of itself."""
    return [op.open_("/proc", op.O_PATH_DIRECTORY, op.PROC, "the host's, for what is told the kernel there")]


def opened(process: Process, keyring: bool, *, joined: bool) -> list[Op]:
    """Open the files.

    Args:
        keyring: it gets a session keyring of its own.
        joined: the mount namespace is another's: they are below what `hosts_proc` holds.
    """
    slots = []
    if process.get("apparmorProfile"):
        slots.append(op.LABEL_APPARMOR)
    if process.get("selinuxLabel"):
        slots += [op.LABEL_SELINUX, *([op.LABEL_KEYS] if keyring else [])]
    why = "of the host's /proc: the container's may be anything"
    if not joined:
        return [op.open_(f"/proc{ATTRIBUTES}/{FILES[slot]}", O_WRONLY, slot, why) for slot in slots]
    return [op.open_in(op.PROC, f"{ATTRIBUTES}/{FILES[slot]}", O_WRONLY, slot, why) for slot in slots]


def of_keys(process: Process) -> list[Op]:
    """Before its keyring is made."""
    label = process.get("selinuxLabel", "")
    return [op.label(op.LABEL_KEYS, fsencode(label), "its keyring is the container's, too")] if label else []


def at_exec(process: Process) -> list[Op]:
    """Before its exec."""
    steps = []
    if profile := process.get("apparmorProfile", ""):
        steps.append(op.label(op.LABEL_APPARMOR, fsencode(f"exec {profile}"), "the AppArmor profile of the command"))
    if label := process.get("selinuxLabel", ""):
        steps.append(op.label(op.LABEL_SELINUX, fsencode(label), "the SELinux label of the command"))
    return steps
