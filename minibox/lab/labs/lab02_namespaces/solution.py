"""Lab 2: number 1 of a PID namespace, with a host name of its own, and a process that joined."""

import os
import signal

from minibox.linux import CLONE_NEWPID, CLONE_NEWUTS, clone, sethostname, setns

told, tell = os.pipe()


def first() -> None:
    sethostname("inside")
    os.write(tell, b".")
    signal.pause()


pid = clone(first, CLONE_NEWUTS | CLONE_NEWPID)
os.read(told, 1)

setns(f"/proc/{pid}/ns/uts")
setns(f"/proc/{pid}/ns/pid")
if os.fork() == 0:  # only a child is in the PID namespace
    os.write(tell, b".")
    signal.pause()
os.read(told, 1)

print("ready")
signal.pause()
