"""Make a user namespace without a process in it, for an id-mapped mount. Off the hot path."""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair

from minibox.errors import MiniboxError, kernel_says
from minibox.linux import launcher
from minibox.linux.process import NEWUSER, SIGKILL, signatures
from minibox.plan import operations as op
from minibox.plan.encode import encode

SOCK_CLOEXEC = 0o2000000


def user_namespace(uid_map: str, gid_map: str) -> int:
    """Return a descriptor of a new user namespace.

    Args:
        uid_map, gid_map: in the format of /proc/PID/uid_map.

    Raises:
        MiniboxError: the kernel refuses: too many namespaces, or ids that the caller doesn't have.
    """
    ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    steps = [op.wait(op.TAG_GO, "wait until it is killed")]
    child = None
    try:
        child = launcher.spawn(encode(steps, signatures()), NEWUSER, [theirs.fileno()], len(steps))
        for kind, text in (("uid", uid_map), ("gid", gid_map)):
            with open(f"/proc/{child.pid}/{kind}_map", "wb", 0) as file:
                file.write(text.encode())
        return os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        maps = f"{uid_map}{gid_map}".replace("\n", ", ").rstrip(", ")
        raise MiniboxError(f"map the ids of a mount ({maps}): {kernel_says(error)}") from error
    finally:
        ours.close()
        theirs.close()
        if child:
            child.end(SIGKILL)
            child.close()
