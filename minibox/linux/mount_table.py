"""Read the mount table, ``/proc/self/mountinfo``: proc_pid_mountinfo(5)."""

from __future__ import annotations

import os

from minibox.base.lines import lines_of

MOUNTINFO = "/proc/self/mountinfo"


def file_system_type(path: str) -> str:
    """Return the type of the file system of ``path``, in the kernel's words (ext4, overlay, nfs4); "" if unknown.

    Raises:
        OSError: ``path`` doesn't exist.
    """
    real = os.path.realpath(path)
    device = os.stat(real).st_dev
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return type_in(file.read(), real, f"{os.major(device)}:{os.minor(device)}")


def mount_points() -> list[str]:
    """Return the paths where something is mounted, in the caller's mount namespace."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return [unescaped(line.split(" ")[4]) for line in lines_of(file.read())]


def type_in(mountinfo: str, real_path: str, device: str) -> str:
    """Find the type in a mount table by device number, or else (btrfs subvolumes have their own) by the mount above.

    If there are several, the last mount with the longest mount point counts.
    """
    best, kind = -1, ""
    for line in lines_of(mountinfo):
        fields = line.split(" ")  # names may contain other blanks
        point, fs_type = unescaped(fields[4]), fields[fields.index("-", 6) + 1]
        if fields[2] == device:
            return fs_type
        inside = point == "/" or real_path == point or real_path.startswith(point + "/")
        if inside and len(point) >= best:
            best, kind = len(point), fs_type
    return kind


def unescaped(field: str) -> str:
    """Undo the kernel's octal escapes in a path, for characters that separate fields."""
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
