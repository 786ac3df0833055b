# missing: has no descriptor 9
import os
import signal

me = os.getpid()
with open("/proc/self/comm", "w") as file:
    file.write(f"pid-{me}")
if (pid := os.fork()) == 0:
    os._exit(0)
named, tell = os.pipe()
if os.fork() == 0:
    with open("/proc/self/comm", "w") as file:
        file.write(f"child-{me}")
    os.write(tell, b".")
    signal.pause()
os.read(named, 1)
print("ready")
signal.pause()
