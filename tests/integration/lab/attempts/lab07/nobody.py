# missing: uid(0) is missing

import os
import signal

from minibox.linux import CLONE_NEWUSER, clone

mapped, tell_mapped = os.pipe()
done, tell_done = os.pipe()


def become(number: int) -> None:
    os.setgroups([])
    os.setgid(number)
    os.setuid(number)


def inside() -> None:
    os.read(mapped, 1)
    if (five := os.fork()) == 0:
        become(5)
        open("/srv/drop/five", "w").close()
        os._exit(0)
    os.waitpid(five, 0)
    open("/srv/drop/root", "w").close()
    os.write(tell_done, b".")
    signal.pause()


pid = clone(inside, CLONE_NEWUSER)
for kind in ("uid", "gid"):
    with open(f"/proc/{pid}/{kind}_map", "w") as file:
        file.write("0 1000 1\n1 2000 100\n")
os.write(tell_mapped, b".")
os.read(done, 1)

print("ready")
signal.pause()
