# missing: no process is in /jail any more
import os
import signal

os.chdir("/")
os.mkdir("/hole")
os.chroot("/hole")
for _ in range(64):
    os.chdir("..")
os.chroot(".")

print("ready")
signal.pause()
