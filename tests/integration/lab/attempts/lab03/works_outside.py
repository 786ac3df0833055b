# missing: is outside /jail
import os
import signal

from minibox.linux import capset, drop_bounding

os.chdir("/")
os.mkdir("/hole")
os.chroot("/hole")
for _ in range(64):
    os.chdir("..")
os.chroot(".")

confined, tell = os.pipe()
if os.fork() == 0:
    os.chroot("/jail")
    drop_bounding()
    capset([], [], [])
    os.write(tell, b".")
    signal.pause()
os.read(confined, 1)
print("ready")
signal.pause()
