# missing: no process has a user namespace of its own

import os
import signal

from minibox.linux import clone

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
    become(0)
    open("/srv/drop/root", "w").close()
    os.write(tell_done, b".")
    signal.pause()


pid = clone(inside)

os.write(tell_mapped, b".")
os.read(done, 1)

print("ready")
signal.pause()
