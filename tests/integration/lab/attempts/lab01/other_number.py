# missing: the name pid-1 has another number than the pid of its process
import signal

with open("/proc/self/comm", "w") as file:
    file.write("pid-1")
print("ready")
signal.pause()
