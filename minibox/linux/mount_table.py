"""What is mounted where, by the text of ``/proc/self/mountinfo``: proc_pid_mountinfo(5)."""

from __future__ import annotations

import os

from minibox.base.lines import lines_of

MOUNTINFO = "/proc/self/mountinfo"


def file_system_type(path: str) -> str:
    """The type of the file system that ``path`` is on, in the kernel's words (ext4, overlay, nfs4); "" if unknown.

    Raises:
        OSError: nothing is there.
    """
    real = os.path.realpath(path)
    device = os.stat(real).st_dev
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return type_in(file.read(), real, f"{os.major(device)}:{os.minor(device)}")


def type_in(mountinfo: str, real_path: str, device: str) -> str:
    """The same by a text: of the device number, else (btrfs subvolumes have numbers of their own) of the mount above.

    Of several mounts the last one of the longest mount point counts.
    """
    best, kind = -1, ""
    for line in lines_of(mountinfo):
        fields = line.split(" ")  # other blanks may be in names
        point, fs_type = unescaped(fields[4]), fields[fields.index("-", 6) + 1]
        if fields[2] == device:
            return fs_type
        inside = point == "/" or real_path == point or real_path.startswith(point + "/")
        if inside and len(point) >= best:
            best, kind = len(point), fs_type
    return kind


def unescaped(field: str) -> str:
    """A path of it as it is: the kernel writes what would part fields in octal."""
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
