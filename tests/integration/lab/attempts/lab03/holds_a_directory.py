# missing: is a directory outside /jail
import os
import signal

from minibox.linux import capset, drop_bounding

os.chdir("/")
os.mkdir("/hole")
os.chroot("/hole")
for _ in range(64):
    os.chdir("..")
os.chroot(".")

outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
confined, tell = os.pipe()
if os.fork() == 0:
    os.chroot("/jail")
    os.chdir("/")
    drop_bounding()
    capset([], [], [])
    os.write(tell, b".")
    signal.pause()
os.read(confined, 1)
print("ready")
signal.pause()
