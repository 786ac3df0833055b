"""Lab 3: one process has left a chroot, another can't."""

import os
import signal

from minibox.linux import capset, drop_bounding

confined, tell = os.pipe()
if os.fork() == 0:
    os.chdir("/")
    drop_bounding()
    capset([], [], [])
    os.write(tell, b".")
    signal.pause()
os.read(confined, 1)

os.chdir("/")
os.mkdir("/hole")
os.chroot("/hole")  # the working directory is above the new root now
for _ in range(64):
    os.chdir("..")
os.chroot(".")

print("ready")
signal.pause()
