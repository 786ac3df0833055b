"""Set up the state that our programs rely on, whatever state their caller started them in.

Only for our own programs: one that embeds minibox keeps its signals, umask and streams. The programs in C have
``native/parent/begin.h``.
"""

from __future__ import annotations

import gc
import os
import sys
from errno import EFBIG, EMFILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any, NoReturn
else:
    import _signal  # signal's enumerations cost a start 2.6 ms

#: What each of our commands needs; a container in the foreground may need a few more.
DESCRIPTORS_MIN = 20
LIMITS = {
    EMFILE: "ulimit -n limits how many files a program may have open: 24 are enough",
    EFBIG: "ulimit -f limits the size of files that a program writes, also in memory: 64 KiB are enough",
}
OWNERS_BITS, OTHERS_WRITE, USUAL_UMASK = 0o700, 0o002, 0o022
#: Objects made before the first search for garbage. With Python's own 700, a start that leaves none searches for 2 ms.
GARBAGE_AFTER = 100_000


def begin() -> None:
    """Set up signals, umask and standard streams. Call this before anything else.

    - Unblock all signals and don't ignore SIGCHLD: otherwise we would miss the ends of children, and with them their
      errors. Other ignored signals stay ignored, as nohup(1) wants.
    - Have the umask leave the owner's permissions, so that we can read what we write, and never let everybody write.
    - Open 0, 1 and 2 if they are closed, so that no file opened later gets one of these numbers. Using one that was
      closed raises an error (`standard_streams`); output to standard error is then discarded.
    - Escape characters that a stream's encoding doesn't have. If some program set O_NONBLOCK on a stream, wait
      instead of failing.
    """
    gc.set_threshold(GARBAGE_AFTER)
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


def end(status: int, *, failed: int) -> NoReturn:
    """Exit without the interpreter's clean-up, with ``status``, or ``failed`` if what was printed can't be written."""
    if launcher := sys.modules.get("minibox.linux.launcher"):
        launcher.end_all()  # a new parent may not wait for it
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            status = status or failed
    if own := sys.modules.get("minibox.base.own_modules"):
        own.save()
    os._exit(status)


_replaced: list[Any] = []  # the handler of SIGINT before `end_at_interrupt`


def end_at_interrupt() -> None:
    """Let the kernel end this program at Ctrl-C, until `raise_interrupts` is called. An ignored SIGINT stays ignored.

    Python can lose a KeyboardInterrupt: it ignores one that is raised in a callback, as at the end of each import, and a
    signal just before a system call that waits for ever is noticed only after it. So this is for a program that leaves
    nothing to clean up.
    """
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _replaced.append(_signal.signal(_signal.SIGINT, _signal.SIG_DFL))


def raise_interrupts() -> None:
    """Raise KeyboardInterrupt at Ctrl-C again, as a command needs that must clean up."""
    while _replaced:
        _signal.signal(_signal.SIGINT, _replaced.pop())


def too_few_descriptors() -> str:
    """Return an error if the limit of open files is too low for all our commands, or "". Python itself needs 5."""
    found = os.sysconf("SC_OPEN_MAX")  # RLIMIT_NOFILE; -1 for no limit
    if not 0 <= found < DESCRIPTORS_MIN:
        return ""
    return f"a program may have only {found} files open here (ulimit -n), and minibox needs at least {DESCRIPTORS_MIN}"


def hint_of_limit(error: BaseException) -> str:
    """Return a hint if a limit of this process caused an error; otherwise ""."""
    cause: BaseException | None = error
    while cause:
        if type(cause) is OSError and cause.errno in LIMITS:  # not one of our own errors, as FileTooLarge
            return LIMITS[cause.errno]
        cause = cause.__cause__ or cause.__context__
    return ""


def check_umask() -> None:
    """Check that the umask lets us read what we write, in a program that isn't ours and whose umask we may not set.

    Raises:
        MiniboxError: the umask removes permissions of the owner.
    """
    if os.geteuid() == 0:
        return
    with open("/proc/self/status", "rb") as file:  # umask(2) would change it for all threads
        mask = next((int(line.split()[1], 8) for line in file if line.startswith(b"Umask:")), 0)  # Linux 4.7
    if mask & OWNERS_BITS:
        from minibox.errors import MiniboxError

        raise MiniboxError(
            f"the umask of this process is {mask:04o}: minibox couldn't read the files that it writes",
            "set one that leaves the owner's bits, such as os.umask(0o022)",
        )


def is_shortage(error: Exception) -> bool:
    """Tell whether an error means that memory ran out. Loading an extension then fails with an ImportError."""
    return isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map segment" in str(error))
