# missing: that is what chroot does, and pivot_root is missing
import os
import signal

from minibox.linux import CLONE_NEWNS, mount, unshare

unshare(CLONE_NEWNS)
mount("proc", "/rootfs/proc", "proc")
os.chroot("/rootfs")
os.chdir("/")
print("ready")
signal.pause()
