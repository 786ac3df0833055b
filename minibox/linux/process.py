"""Start a process that runs a Plan: the Python side of ``native/spawn.h``."""

from __future__ import annotations

import os
from errno import ESRCH

from minibox._native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# clone(2) flags, linux/sched.h
NEWUSER, NEWNET = 0x10000000, 0x40000000

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
SIGKILL = 9
IGNORED_BY_PYTHON = (13, 25)  # SIGPIPE, SIGXFSZ: what others execute is to have them as usual
RECORD_BYTES, TIME_BYTES = 16, 16  # struct mb_record, struct mb_time

# child.h: how far a child is
RUNNING, EXEC, FAILED, DONE, WAITING = range(5)


_SIGNATURES: dict[str, tuple[int, str]] = {
    ffi.string(signature.name).decode(): (code, ffi.string(signature.arguments).decode())
    for code, signature in enumerate(lib.mb_op_signatures[0 : lib.mb_op_count])
}


def signatures() -> dict[str, tuple[int, str]]:
    """Code and argument kinds of every operation that the interpreter knows, by name."""
    return _SIGNATURES


class Descriptor:
    """A descriptor that a native call opens and registers here, and that is closed when nobody has this object any more.

    What a call returns to Python may be lost before it is assigned: by an exception out of a signal handler.
    """

    def __init__(self) -> None:
        self.place = ffi.gc(ffi.new("int *", -1), lib.mb_fd_close)

    def fileno(self) -> int:
        """Its number; -1 when there is none."""
        number: int = self.place[0]
        return number

    @classmethod
    def copy_of(cls, fd: int) -> Descriptor:
        """A copy of one, close-on-exec.

        Raises:
            OSError: no descriptor is free.
        """
        made = cls()
        if error := -lib.mb_fd_copy(fd, made.place):
            raise OSError(error, os.strerror(error))
        return made

    def close(self) -> None:
        """Twice is fine."""
        lib.mb_fd_close(self.place)


class Program:
    """A program in a session of its own, which runs on when nobody has this object any more; see `Descriptor`."""

    def __init__(self) -> None:
        self._it = ffi.gc(ffi.new("struct mb_program *", {"pidfd": -1}), lib.mb_program_free)

    def start(self, path: str, argv: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]) -> None:
        """Start it with ``fds`` as 0 and so on; posix_spawn(3).

        Raises:
            OSError: it can't be started.
        """
        words = [ffi.new("char[]", os.fsencode(word)) for word in argv]
        variables = [ffi.new("char[]", os.fsencode(f"{name}={value}")) for name, value in environment.items()]
        vectors = [ffi.new("char *[]", [*each, ffi.NULL]) for each in (words, variables)]
        error = lib.mb_program_start(self._it, os.fsencode(path), *vectors, ffi.new("int[]", list(fds)), len(fds))
        if error:
            raise OSError(-error, os.strerror(-error), path)

    @property
    def pid(self) -> int:
        """0 before it was started."""
        pid: int = self._it.pid
        return pid

    @property
    def pidfd(self) -> int:
        pidfd: int = self._it.pidfd
        return pidfd

    def close(self) -> None:
        """Close the pidfd."""
        lib.mb_program_free(self._it)


class Recorded:
    """A process that runs, or ran, a Plan, and its record.

    Attributes:
        pid: its process id in the caller's pid namespace.
    """

    def __init__(self, size: int, op_count: int, *, in_file: bool) -> None:
        """
        Args:
            size: of the record, with what else lies in the same memory.
            in_file: another process is going to see it.

        Raises:
            OSError: there is no memory for it.
        """
        self._view = ffi.gc(ffi.new("struct mb_view *", {"memory_fd": -1}), lib.mb_view_free)
        self._process = Descriptor()
        self._op_count = op_count
        self.pid = -1
        if error := -lib.mb_view_make(self._view, size, in_file):
            raise OSError(error, os.strerror(error))

    @property
    def pidfd(self) -> int:
        """Refers to it for good, even when the pid is taken anew; -1 when it was closed. pidfd_open(2)."""
        return self._process.fileno()

    @property
    def _record(self) -> Any:
        record = self._view.record
        assert record != ffi.NULL
        return record

    def progress(self) -> tuple[int, int, int, int]:
        """State, index of the operation under way, its errno, its detail; see ``native/child.h``."""
        record = self._record
        return record.state, record.index, record.error, record.detail

    def times(self) -> list[tuple[int, int]]:
        """Begin and end of every operation, CLOCK_REALTIME ns; 0 where it was not reached."""
        times = self._record.time
        return [(times[i].begin_ns, times[i].end_ns) for i in range(self._op_count)]

    def send_signal(self, number: int) -> None:
        """Send a signal; a process that has ended is no error."""
        send_signal(self.pidfd, number)

    def close(self) -> None:
        """Free the record and the pidfd; twice is fine."""
        lib.mb_view_free(self._view)
        self._process.close()


class Child(Recorded):
    """A process of this one's that works in our memory until its plan ends, while the calling thread stands still.

    Many times cheaper than a fork, and of the same cost in a process of any size; for a plan without an exec.
    """

    def __init__(self, buffer: bytearray, flags: int, slots: Sequence[int], op_count: int) -> None:
        """Run it to its end.

        Args:
            buffer: an encoded plan; changed in place.
            flags: CLONE_NEW* of clone3(2), and CLONE_VM.
            slots: its descriptor slots, -1 for an empty one.
            op_count: operations in ``buffer``.

        Raises:
            OSError: clone(2) failed.
            ValueError: the buffer isn't a valid plan.
        """
        plan, bad_op = ffi.new("struct mb_plan *"), ffi.new("uint32_t *")
        memory = ffi.from_buffer(buffer)
        if lib.mb_plan_load(memory, len(buffer), plan, bad_op) < 0:
            raise ValueError(f"the plan is malformed at operation {bad_op[0]}")
        super().__init__(RECORD_BYTES + TIME_BYTES * op_count, op_count, in_file=False)
        numbers, record = ffi.new("int[]", list(slots)), self._record
        pid = lib.mb_spawn_here(plan, flags, numbers, len(slots), record, self._process.place)
        if pid < 0:
            self.close()
            raise OSError(-pid, os.strerror(-pid))
        self.pid = pid


def open_pidfd(pid: int) -> int:
    """A pidfd of a process; -1 when there is none. pidfd_open(2).

    Raises:
        OSError: the kernel refuses.
    """
    pidfd: int = lib.mb_pidfd_open(pid, 0)
    if pidfd < 0 and ffi.errno != ESRCH:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    return pidfd


def exit_status(pid: int) -> int | None:
    """Wait for a child; its exit status, or the negative number of the signal that ended it, as in `subprocess`.

    None when nobody can say any more: this process ignores SIGCHLD, or another of its threads waits for any child. What
    embeds minibox may do so. A program of ours doesn't (`base.program`).
    """
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


def parent_of(pid: int) -> int:
    """The pid of a process's parent; 0 when it has ended, or is hidden. proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def send_signal(pidfd: int, number: int) -> None:
    """Send a signal to the process of ``pidfd``; one that has ended is no error. pidfd_send_signal(2).

    Raises:
        OSError: the kernel refuses.
    """
    if lib.mb_pidfd_send_signal(pidfd, number) < 0 and ffi.errno != ESRCH:
        raise OSError(ffi.errno, os.strerror(ffi.errno))


def kill_group(pidfd: int) -> bool:
    """Send SIGKILL to the process group of which ``pidfd`` is or was the leader; False where Linux is older than 6.9."""
    return bool(lib.mb_pidfd_kill_group(pidfd) == 0 or ffi.errno == ESRCH)


def set_network_namespace(fd: int) -> None:
    """Move the calling thread into a network namespace; setns(2).

    Raises:
        OSError: the kernel refuses.
    """
    if lib.setns(fd, NEWNET) < 0:
        raise OSError(ffi.errno, f"setns: {os.strerror(ffi.errno)}")


def set_user_namespace(fd: int) -> None:
    """Move this process, of one thread, into a user namespace, with all capabilities in it; setns(2).

    Raises:
        OSError: the kernel refuses.
    """
    if lib.setns(fd, NEWUSER) < 0:
        raise OSError(ffi.errno, f"setns: {os.strerror(ffi.errno)}")


def new_user_namespace() -> None:
    """Move this process, of one thread, into a new user namespace; unshare(2).

    Raises:
        OSError: the kernel refuses.
    """
    if lib.unshare(NEWUSER) < 0:
        raise OSError(ffi.errno, f"unshare: {os.strerror(ffi.errno)}")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that made it ends; PR_SET_PDEATHSIG(2const).

    Raises:
        OSError: the kernel refuses.
    """
    if lib.mb_prctl(PR_SET_PDEATHSIG, SIGKILL) < 0:
        raise OSError(ffi.errno, f"prctl: {os.strerror(ffi.errno)}")


def become_subreaper() -> None:
    """Be the parent of every process below that loses its own; PR_SET_CHILD_SUBREAPER(2const), Linux 3.4.

    Raises:
        OSError: the kernel refuses.
    """
    if lib.mb_prctl(PR_SET_CHILD_SUBREAPER, 1) < 0:
        raise OSError(ffi.errno, f"prctl: {os.strerror(ffi.errno)}")
