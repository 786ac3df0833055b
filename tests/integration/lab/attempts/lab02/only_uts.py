# missing: no process has a PID namespace of its own
import signal

from minibox.linux import CLONE_NEWUTS, sethostname, unshare

unshare(CLONE_NEWUTS)
sethostname("inside")
print("ready")
signal.pause()
