# missing: is empty: nobody has written it

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
    os.write(tell_done, b".")
    signal.pause()


pid = clone(inside, CLONE_NEWUSER)

os.write(tell_mapped, b".")
os.read(done, 1)

print("ready")
signal.pause()
