# missing: the old root is still mounted in the namespace
import os
import signal

from minibox.linux import CLONE_NEWNS, MS_BIND, mount, pivot_root, unshare

unshare(CLONE_NEWNS)
mount("/rootfs", "/rootfs", flags=MS_BIND)
mount("proc", "/rootfs/proc", "proc")
os.makedirs("/rootfs/old", exist_ok=True)
pivot_root("/rootfs", "/rootfs/old")
os.chdir("/")
print("ready")
signal.pause()
