# missing: nobody has left /jail
import os
import signal

for _ in range(64):
    os.chdir("..")
os.chroot(".")
print("ready")
signal.pause()
