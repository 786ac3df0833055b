"""Lab 1: a process with two pids, a child, a zombie and a lost file."""

import os
import signal


def call_myself(name: str) -> None:
    with open("/proc/self/comm", "w") as file:
        file.write(name)


lost = os.open("/tmp/lost", os.O_RDWR | os.O_CREAT)
os.write(lost, b"still here\n")
os.dup2(lost, 9)
os.unlink("/tmp/lost")

if os.fork() == 0:
    os._exit(0)  # nobody waits for it: a zombie

me = os.getpid()
call_myself(f"pid-{me}")
named, tell = os.pipe()
if os.fork() == 0:
    call_myself(f"child-{me}")
    os.write(tell, b".")
    signal.pause()
os.read(named, 1)

print("ready")
signal.pause()
