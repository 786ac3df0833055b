# passes

import os
import signal
import stat
import subprocess

for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(os.open("root/by-descriptor", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    except OSError:
        pass

TELL = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/hostd.sock'); s.sendall(b'>/root/by-socket\\n'); s.recv(1)"
subprocess.run(["python3", "-c", TELL], check=True)

INNER = """set -e
hostname container
mount -t tmpfs root /jail
for each in bin etc lib lib32 lib64 opt usr lab $(cat /run/modules); do
    if [ -d "/$each" ]; then mkdir -p "/jail/$each"; mount --rbind "/$each" "/jail/$each"; fi
done
mkdir -p /jail/proc /jail/tmp /jail/run /jail/old /jail/dev
mount --rbind /dev /jail/dev
mount -t proc proc /jail/proc
cd /jail
pivot_root . old
umount -l /old
(while :; do sleep 0.02; done) &
nice setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@" &
wait
"""
CONTAINER = """exec 9<&-
unshare --mount --pid --uts --fork --kill-child sh /lab/inner.sh "$@"
"""
for path, text in (("/lab/inner.sh", INNER), ("/lab/container", CONTAINER)):
    with open(path, "w") as file:
        file.write(text)
with subprocess.Popen(["sh", "-c", "while :; do sleep 0.02; done"]):
    print("ready", flush=True)
    signal.pause()
