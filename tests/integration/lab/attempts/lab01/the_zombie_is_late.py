# passes

import os
import signal
import time


def call_myself(name: str) -> None:
    with open("/proc/self/comm", "w") as file:
        file.write(name)


lost = os.open("/tmp/lost", os.O_RDWR | os.O_CREAT)
os.write(lost, b"still here\n")
os.dup2(lost, 9)
os.unlink("/tmp/lost")

if os.fork() == 0:
    time.sleep(0.4)  # on a busy machine a child begins late
    os._exit(0)

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
