"""Lab 5: a process whose mount namespace has another root, and no way back."""

import os
import signal

from minibox.linux import (
    CLONE_NEWNS,
    MNT_DETACH,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    mount,
    pivot_root,
    umount,
    unshare,
)

unshare(CLONE_NEWNS)
mount("", "/", flags=MS_PRIVATE | MS_REC)
mount("/rootfs", "/rootfs", flags=MS_BIND)
mount("proc", "/rootfs/proc", "proc")

os.chdir("/rootfs")
pivot_root(".", ".")
umount(".", MNT_DETACH)
os.chdir("/")

print("ready")
signal.pause()
