# missing: no process is called pid-N
import signal

print("ready")
signal.pause()
