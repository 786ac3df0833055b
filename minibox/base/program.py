"""What each program of ours relies on, whoever started it and in whatever state: set once, at its begin.

Only for programs: what embeds minibox keeps its own signals, umask and streams. The programs in C have ``native/begin.h``.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # signal's enumerations cost a start 2.6 ms

OWNERS_BITS, OTHERS_WRITE, USUAL_UMASK = 0o700, 0o002, 0o022


def begin() -> None:
    """Call it before anything else.

    - No signal is blocked, and SIGCHLD isn't ignored: else the ends of children are lost, and with them their errors.
      Other ignored signals stay so, as nohup(1) wants it.
    - The umask takes nothing from the owner, who is to read again what we write, and doesn't let everybody write.
    - 0, 1 and 2 are open: no file that is opened later is taken for one of them. To use one that was closed is an error
      in words (`standard_streams`), but standard error, which then goes nowhere.
    - What can't be written in the encoding of a stream is written another way, and a program that has set O_NONBLOCK on
      a stream makes us wait, not fail.
    """
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    if _signal.getsignal(_signal.SIGCHLD) != _signal.SIG_DFL:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    umask = os.umask(USUAL_UMASK)
    if umask != USUAL_UMASK:
        os.umask((umask if umask & OTHERS_WRITE else USUAL_UMASK) & ~OWNERS_BITS)
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None or not os.get_blocking(fd):
            from minibox.base.standard_streams import closed, patient

            setattr(sys, name, closed(fd) if stream is None else patient(stream, fd))
        elif fd:
            stream.reconfigure(errors="surrogateescape" if stream.encoding == "utf-8" else "backslashreplace")


def check_umask() -> None:
    """For what may not set it, as it isn't a program of ours: may we read again what we write?

    Raises:
        MiniboxError: its umask takes that from us.
    """
    if os.geteuid() == 0:
        return
    with open("/proc/self/status", "rb") as file:  # umask(2) would change it for all threads
        mask = next((int(line.split()[1], 8) for line in file if line.startswith(b"Umask:")), 0)  # Linux 4.7
    if mask & OWNERS_BITS:
        from minibox.errors import MiniboxError

        raise MiniboxError(
            f"the umask of this process is {mask:04o}: minibox could not read again what it writes",
            "set one that leaves the owner's bits, such as os.umask(0o022)",
        )


def is_shortage(error: Exception) -> bool:
    """Is it that there is not enough memory? An extension that can't be loaded for want of it is an ImportError."""
    return isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map segment" in str(error))
