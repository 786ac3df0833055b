# missing: runs in the host's mount namespace: no container

import os
import signal
import socket

os.close(os.open("root/by-descriptor", os.O_CREAT | os.O_WRONLY, dir_fd=9))

with socket.socket(socket.AF_UNIX) as link:
    link.connect("/run/hostd.sock")
    link.sendall(b"touch /root/by-socket\n")
    link.recv(1)  # its end

# The same script without the two faults; and with descriptors closed that nobody knows of.
CLOSE = 'for fd in $(ls /proc/self/fd); do case $fd in [3-9]) eval "exec $fd<&-" ;; esac; done\n'
with open("/opt/lab/container") as file, open("/lab/container", "w") as closed:
    for line in file:
        if line.startswith("exec unshare"):
            closed.write(CLOSE)
        if not line.startswith("exec 9<") and "hostd.sock" not in line:
            closed.write(line)

with open("/lab/container", "w") as closed:
    closed.write('exec "$@"\n')
print("ready")
signal.pause()
