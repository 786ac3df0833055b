"""AppArmor and SELinux labels as operations: for the command, its keys and its mounts.

The kernel takes the label of the next exec from a file in the process's own /proc; proc_pid_attr(5). The file is opened
while the host's /proc is in sight, since the container's can't be trusted. It is written right before the exec, because
otherwise hooks would run under the label too. By then, only a write is sure to pass the seccomp filter.
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
    """Return the steps that open the host's /proc before a mount namespace is joined, where /proc can't be trusted."""
    if not is_labelled(process):
        return []
    return hold_proc()


def is_labelled(process: Process) -> bool:
    """Return whether a label of either kind is requested."""
    return bool(process.get("apparmorProfile") or process.get("selinuxLabel"))


def hold_proc() -> list[Op]:
    """Return the step that opens the host's /proc, through which the process changes its own attributes."""
    return [op.open_("/proc", op.O_PATH_DIRECTORY, op.PROC, "the host's /proc, to change the process's own attributes")]


def opened(process: Process, keyring: bool, *, joined: bool) -> list[Op]:
    """Return the steps that open the label files.

    Args:
        keyring: the process gets a session keyring of its own.
        joined: the mount namespace is someone else's, so use the /proc that `hosts_proc` holds.
    """
    slots = []
    if process.get("apparmorProfile"):
        slots.append(op.LABEL_APPARMOR)
    if process.get("selinuxLabel"):
        slots += [op.LABEL_SELINUX, *([op.LABEL_KEYS] if keyring else [])]
    why = "in the host's /proc: the container's can't be trusted"
    if not joined:
        return [op.open_(f"/proc{ATTRIBUTES}/{FILES[slot]}", O_WRONLY, slot, why) for slot in slots]
    return [op.open_in(op.PROC, f"{ATTRIBUTES}/{FILES[slot]}", O_WRONLY, slot, why) for slot in slots]


def of_keys(process: Process) -> list[Op]:
    """Return the label's step before the keyring is made."""
    label = process.get("selinuxLabel", "")
    return [op.label(op.LABEL_KEYS, fsencode(label), "label the container's keyring too")] if label else []


def at_exec(process: Process) -> list[Op]:
    """Return the label's steps before the exec."""
    steps = []
    if profile := process.get("apparmorProfile", ""):
        steps.append(op.label(op.LABEL_APPARMOR, fsencode(f"exec {profile}"), "the AppArmor profile of the command"))
    if label := process.get("selinuxLabel", ""):
        steps.append(op.label(op.LABEL_SELINUX, fsencode(label), "the SELinux label of the command"))
    return steps
