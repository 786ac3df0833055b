# missing: has no proc mounted on /proc
import os
import signal

from minibox.linux import CLONE_NEWNS, MNT_DETACH, MS_BIND, mount, pivot_root, umount, unshare

unshare(CLONE_NEWNS)
mount("/rootfs", "/rootfs", flags=MS_BIND)
os.chdir("/rootfs")
pivot_root(".", ".")
umount(".", MNT_DETACH)
os.chdir("/")
print("ready")
signal.pause()
