"""Find the process that uses a port of this host, for the error "port is taken"; proc_net(5)."""

from __future__ import annotations

import os

from minibox.base.files import text_of
from minibox.base.lines import lines_of

LISTENS = "0A"  # TCP_LISTEN


def holder(port: int, protocol: str) -> tuple[int, str]:
    """Return the pid and name of the process that has a port; (0, "") if you may not see it.

    Args:
        protocol: tcp or udp.
    """
    inodes = {
        inode
        for family in ("", "6")
        for inode in _sockets(text_of(f"/proc/thread-self/net/{protocol}{family}"), port, listens=protocol == "tcp")
    }
    links = {f"socket:[{inode}]" for inode in inodes}
    for entry in filter(str.isdigit, os.listdir("/proc") if links else ()):
        try:
            fds = os.listdir(f"/proc/{entry}/fd")
        except OSError:
            continue  # it has ended, or belongs to another user
        for fd in fds:
            try:
                if os.readlink(f"/proc/{entry}/fd/{fd}") in links:
                    return int(entry), text_of(f"/proc/{entry}/comm").strip()
            except OSError:
                continue
    return 0, ""


def _sockets(table: str, port: int, *, listens: bool) -> list[str]:
    """Return the inodes of the sockets in a table of /proc/net that are bound to a port."""
    found = []
    for line in lines_of(table)[1:]:
        words = line.split()
        if len(words) > 9 and words[1].endswith(f":{port:04X}") and (words[3] == LISTENS or not listens):
            found.append(words[9])
    return found
