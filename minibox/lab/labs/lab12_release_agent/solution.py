"""Lab 12, release_agent: have the kernel start a program on the host; and a container from which that fails."""

import os
import signal

from minibox.linux import mount

with open("/lab/agent", "w") as file:
    file.write("#!/bin/sh\nexec sleep infinity\n")
os.chmod("/lab/agent", 0o755)
with open("/proc/self/mountinfo") as file:
    (on_host,) = (line.split()[3] for line in file if line.split()[4] == "/lab")

mount("lab12", "/mnt", "cgroup", 0, "none,name=lab12")
with open("/mnt/release_agent", "w") as file:
    file.write(f"{on_host}/agent")
os.mkdir("/mnt/soon-empty")
with open("/mnt/soon-empty/notify_on_release", "w") as file:
    file.write("1")
if (pid := os.fork()) == 0:
    with open("/mnt/soon-empty/cgroup.procs", "w") as file:
        file.write("0")
    os._exit(0)
os.waitpid(pid, 0)

with open("/lab/machine.toml", "w") as file:
    file.write('userns = "private"\n')

print("ready")
signal.pause()
