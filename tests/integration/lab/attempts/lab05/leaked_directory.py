# missing: still leads into the old root
import os
import signal

from minibox.linux import CLONE_NEWNS, MNT_DETACH, MS_BIND, mount, pivot_root, umount, unshare

way_back = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
unshare(CLONE_NEWNS)
mount("/rootfs", "/rootfs", flags=MS_BIND)
mount("proc", "/rootfs/proc", "proc")
os.chdir("/rootfs")
pivot_root(".", ".")
umount(".", MNT_DETACH)
os.chdir("/")
print("ready")
signal.pause()
