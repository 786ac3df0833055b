# missing: has called unshare(CLONE_NEWPID), but is not in the new PID namespace
import signal

from minibox.linux import CLONE_NEWPID, CLONE_NEWUTS, sethostname, unshare

unshare(CLONE_NEWUTS | CLONE_NEWPID)
sethostname("inside")
print("ready")
signal.pause()
