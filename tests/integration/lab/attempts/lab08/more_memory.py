# missing: `small` may have 67108864 bytes of memory

import os
import signal

from minibox.linux import ControlGroup

small = ControlGroup("small", memory_bytes=64 << 20, processes=10, cpus=0.2)
entered, tell = os.pipe()
if os.fork() == 0:
    small.enter()
    os.write(tell, b".")
    signal.pause()
os.read(entered, 1)

killed = ControlGroup("killed", memory_bytes=16 << 20)
if (pid := os.fork()) == 0:
    killed.enter()
    filled = bytearray(64 << 20)
    os._exit(0)
os.waitpid(pid, 0)

with open("/proc/self/comm", "w") as file:
    file.write(f"oom-{killed.oom_kills()}")
print("ready")
signal.pause()
