# missing: is still in the old root: chdir is missing
import os
import signal

from minibox.linux import CLONE_NEWNS, MNT_DETACH, MS_BIND, mount, pivot_root, umount, unshare

unshare(CLONE_NEWNS)
mount("/rootfs", "/rootfs", flags=MS_BIND)
mount("proc", "/rootfs/proc", "proc")
os.makedirs("/rootfs/old", exist_ok=True)
os.chdir("/lab")
pivot_root("/rootfs", "/rootfs/old")
umount("/old", MNT_DETACH)
print("ready")
signal.pause()
