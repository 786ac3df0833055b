# missing: is wrong: the kernel has killed 1

import os
import signal

from minibox.linux import ControlGroup

small = ControlGroup("small", memory_bytes=32 << 20, processes=10, cpus=0.2)
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

for number in range(3):
    if os.fork() == 0:
        with open("/proc/self/comm", "w") as file:
            file.write(f"oom-{number}")
        os.write(tell, b".")
        signal.pause()
    os.read(entered, 1)
print("ready")
signal.pause()
