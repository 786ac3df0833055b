"""Lab 4: a mount namespace whose mounts don't go out, and into which some come."""

import os
import signal

from minibox.linux import CLONE_NEWNS, MS_BIND, MS_RDONLY, MS_REC, MS_REMOUNT, MS_SLAVE, mount, unshare

made, tell = os.pipe()
if os.fork() == 0:
    unshare(CLONE_NEWNS)
    mount("", "/", flags=MS_SLAVE | MS_REC)
    mount("private", "/private", "tmpfs")
    mount("own", "/shared/own", "tmpfs")
    mount("/srv", "/data", flags=MS_BIND)
    mount("", "/data", flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
    os.write(tell, b".")
    signal.pause()
os.read(made, 1)

mount("late", "/shared/late", "tmpfs")  # in the machine's namespace

print("ready")
signal.pause()
