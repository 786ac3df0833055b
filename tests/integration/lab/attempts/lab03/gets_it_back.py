# missing: in /jail gets CAP_SYS_CHROOT back at an execve
import os
import signal

from minibox.linux import capset

confined, tell = os.pipe()
if os.fork() == 0:
    os.chdir("/")
    capset([], [], [])
    os.write(tell, b".")
    signal.pause()
os.read(confined, 1)
os.chdir("/")
os.mkdir("/hole")
os.chroot("/hole")
for _ in range(64):
    os.chdir("..")
os.chroot(".")

print("ready")
signal.pause()
