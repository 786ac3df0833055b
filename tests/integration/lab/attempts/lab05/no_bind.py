# missing: /rootfs must be a mount point (bind it on itself)
import os

from minibox.linux import CLONE_NEWNS, pivot_root, unshare

unshare(CLONE_NEWNS)
os.makedirs("/rootfs/old", exist_ok=True)
pivot_root("/rootfs", "/rootfs/old")
