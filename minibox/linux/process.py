"""Start a process that runs a Plan: the Python side of ``native/parent/spawn.h``."""

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
SIGKILL, SIGTERM = 9, 15  # `signal` makes enums of all signals, which takes milliseconds
IGNORED_BY_PYTHON = (13, 25)  # SIGPIPE, SIGXFSZ: programs that we execute need their defaults
RECORD_BYTES, TIME_BYTES = 24, 16  # struct mb_record, struct mb_time

# child.h: the state of a child
RUNNING, EXEC, FAILED, DONE, WAITING = range(5)


_SIGNATURES: dict[str, tuple[int, str]] = {
    ffi.string(signature.name).decode(): (code, ffi.string(signature.arguments).decode())
    for code, signature in enumerate(lib.mb_op_signatures[0 : lib.mb_op_count])
}


def signatures() -> dict[str, tuple[int, str]]:
    """Return the code and argument kinds of each operation of the interpreter, by name."""
    return _SIGNATURES


class Descriptor:
    """A descriptor that a native call opens and stores here. It is closed when this object is freed.

    If the call returned it to Python instead, an exception from a signal handler could come before it is assigned, and
    it would be lost.
    """

    def __init__(self) -> None:
        self.place = ffi.gc(ffi.new("int *", -1), lib.mb_fd_close)

    def fileno(self) -> int:
        """Return the descriptor's number; -1 if there is none."""
        number: int = self.place[0]
        return number

    @classmethod
    def copy_of(cls, fd: int) -> Descriptor:
        """Return a close-on-exec copy of a descriptor.

        Raises:
            OSError: no descriptor is free.
        """
        made = cls()
        if error := -lib.mb_fd_copy(fd, made.place):
            raise OSError(error, os.strerror(error))
        return made

    def close(self) -> None:
        """Close the descriptor. You may call this twice."""
        lib.mb_fd_close(self.place)


class Program:
    """A program in its own session. It runs on when this object is freed; see `Descriptor`."""

    def __init__(self) -> None:
        self._it = ffi.gc(ffi.new("struct mb_program *", {"pidfd": -1}), lib.mb_program_free)

    def start(self, path: str, argv: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]) -> None:
        """Start the program with ``fds`` as descriptors 0, 1 and so on; posix_spawn(3).

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
        """Its process id; 0 before it was started."""
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
    """A process that runs or ran a Plan, with its record.

    Attributes:
        pid: its process id in the caller's pid namespace.
    """

    def __init__(self, size: int, op_count: int, *, in_file: bool) -> None:
        """
        Args:
            size: the size of the record and whatever else is in the same memory.
            in_file: share the memory with another process.

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
        """A descriptor of this very process, even if its pid is reused; -1 if it was closed. pidfd_open(2)."""
        return self._process.fileno()

    @property
    def _record(self) -> Any:
        record = self._view.record
        assert record != ffi.NULL
        return record

    def progress(self) -> tuple[int, int, int, int]:
        """Return the state, the index of the current operation, its errno and its detail; see ``native/child/child.h``."""
        record = self._record
        return record.state, record.index, record.error, record.detail

    def times(self) -> list[tuple[int, int]]:
        """Return begin and end of each operation, in ns of CLOCK_REALTIME; 0 if it wasn't reached."""
        times = self._record.time
        return [(times[i].begin_ns, times[i].end_ns) for i in range(self._op_count)]

    def send_signal(self, number: int) -> None:
        """Send a signal. It is no error if the process has ended."""
        send_signal(self.pidfd, number)

    def close(self) -> None:
        """Free the record and the pidfd. You may call this twice."""
        lib.mb_view_free(self._view)
        self._process.close()


class Child(Recorded):
    """A child process that shares our memory and runs a plan without an exec, while the calling thread waits.

    It is many times cheaper than a fork, and costs the same in a process of any size.
    """

    def __init__(self, buffer: bytearray, flags: int, slots: Sequence[int], op_count: int) -> None:
        """Run the plan to its end.

        Args:
            buffer: an encoded plan; changed in place.
            flags: CLONE_NEW* of clone3(2), and CLONE_VM. Without that, it is a fork that the caller waits for and reaps.
            slots: the plan's descriptor slots, -1 for an empty one.
            op_count: the number of operations in ``buffer``.

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


def _check(result: int, call: str) -> None:
    if result < 0:
        raise OSError(ffi.errno, f"{call}: {os.strerror(ffi.errno)}")


def open_pidfd(pid: int) -> int:
    """Open a pidfd of a process; -1 if there is no such process. pidfd_open(2).

    Raises:
        OSError: the kernel refuses.
    """
    pidfd: int = lib.mb_pidfd_open(pid, 0)
    if pidfd < 0 and ffi.errno != ESRCH:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    return pidfd


def exit_status(pid: int) -> int | None:
    """Wait for a child; return its exit status, or the negative number of the signal that ended it, like `subprocess`.

    None if the status is lost, because this process ignores SIGCHLD, or another thread waits for any child. A program
    that embeds minibox may do that; our own programs don't (`base.program`).
    """
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


def status_of(code: int) -> int:
    """Turn a return code into an exit status as a shell has it: 128 + N for signal N."""
    return code if code >= 0 else 128 - code


def parent_of(pid: int) -> int:
    """Return the pid of a process's parent; 0 if the process has ended or is hidden. proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def send_signal(pidfd: int, number: int) -> None:
    """Send a signal to the process of ``pidfd``. It is no error if it has ended. pidfd_send_signal(2).

    Raises:
        OSError: the kernel refuses.
    """
    if lib.mb_pidfd_send_signal(pidfd, number) < 0 and ffi.errno != ESRCH:
        raise OSError(ffi.errno, os.strerror(ffi.errno))


def restarts_calls(signal_number: int) -> bool:
    """Do system calls go on after this signal's handler has run? SA_RESTART of sigaction(2)."""
    return bool(lib.mb_signal_restarts(signal_number))


def kill_group(pidfd: int) -> bool:
    """Send SIGKILL to the process group whose leader ``pidfd`` is or was; False before Linux 6.9."""
    return bool(lib.mb_pidfd_kill_group(pidfd) == 0 or ffi.errno == ESRCH)


def set_network_namespace(fd: int) -> None:
    """Move the calling thread into a network namespace; setns(2).

    Raises:
        OSError: the kernel refuses.
    """
    _check(lib.setns(fd, NEWNET), "setns")


def set_user_namespace(fd: int) -> None:
    """Move this single-threaded process into a user namespace, with all capabilities in it; setns(2).

    Raises:
        OSError: the kernel refuses.
    """
    _check(lib.setns(fd, NEWUSER), "setns")


def new_user_namespace() -> None:
    """Move this single-threaded process into a new user namespace; unshare(2).

    Raises:
        OSError: the kernel refuses.
    """
    _check(lib.unshare(NEWUSER), "unshare")


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when the thread that created it ends; PR_SET_PDEATHSIG(2const).

    Args:
        parent: the pid of that thread's process. If it has ended before the call, this process ends at once.

    Raises:
        OSError: the kernel refuses.
    """
    _check(lib.mb_prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl")
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Become the parent of all descendants that lose theirs; PR_SET_CHILD_SUBREAPER(2const), Linux 3.4.

    Raises:
        OSError: the kernel refuses.
    """
    _check(lib.mb_prctl(PR_SET_CHILD_SUBREAPER, 1), "prctl")
