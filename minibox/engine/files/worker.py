"""Start a job of `engine.files.jobs` in a running container, by a fork of this process or of a small worker process.

A job runs in a child process. If this process is small and has no other threads, it forks the child itself. Otherwise
the worker does: a fork copies page tables, which takes long in a large process, and another thread may hold a lock.

The worker is a separate Python interpreter. The launcher starts it when it is first needed, and it ends with this
process. So a job costs the same in a program of any size, and no thread's locks are copied. The worker receives the
name of a job and its arguments in marshal format over a socket, with descriptors: where to report, the user namespace,
and those of the job. It answers with a pidfd of its child, and the child reports the result, both on the socket that
came with the request.
"""

from __future__ import annotations

import _socket
import os
import resource
import socket
from _socket import AF_UNIX, SHUT_RDWR, SOCK_SEQPACKET, SOCK_STREAM, socketpair
from _thread import allocate_lock
from atexit import register
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from marshal import dumps, loads
from signal import SIG_IGN, SIGCHLD, SIGKILL, signal
from typing import Any, NoReturn, Protocol, TypeVar
from weakref import WeakKeyDictionary

from minibox.base.files import close_descriptors, wait_readable
from minibox.base.paths import package_directory, search_path
from minibox.engine.files import background_removal
from minibox.engine.files.jobs import JOBS
from minibox.engine.host.user_namespace import Work, end_with, enter, open_namespace, report_of, value_of
from minibox.errors import MiniboxError, kernel_says, suppress
from minibox.linux import launcher
from minibox.linux.launcher import Launcher
from minibox.linux.process import Descriptor, die_with_parent, open_pidfd, signatures
from minibox.linux.requests import Messages, read_from, send
from minibox.plan import operations as op
from minibox.plan.encode import encode

T_co = TypeVar("T_co", covariant=True)
# Resident memory. Beyond it, copying page tables and the page faults afterwards take longer than asking the worker.
FORKED_BYTES_MAX = 128 << 20
READY, PIDFD, GO = b"ready", b"p", b"g"
MESSAGE_BYTES_MAX, FDS_MAX = 1 << 16, 16
KILLED = "a helper process in the container was killed"
LAST_JOBS_S = 0.2  # time for its children to end before it is killed
SOURCE = "import sys; sys.path[:] = sys.argv[1:]; from minibox.engine.files.worker import serve; serve()"


class Pending(Protocol[T_co]):
    """A job that was started."""

    def result(self) -> T_co:
        """Wait for the job and return its value.

        Raises:
            MiniboxError, OSError: what the job raised.
        """


def begin(
    name: str, fds: Sequence[int], arguments: tuple[Any, ...], pid: int, ours: Sequence[int] = ()
) -> Pending[Any]:
    """Start one of `jobs.JOBS`.

    Args:
        fds: the job's descriptors; the root directory comes first.
        arguments: values that marshal can encode.
        pid: a process; the job runs as root of its user namespace.
        ours: descriptors that the job must not hold open.

    Raises:
        MiniboxError: the process has ended.
    """
    if not _can_fork() and (found := of_caller()):
        return found.begin(name, fds, arguments, pid)

    def work() -> Any:
        close_descriptors(*ours)
        return JOBS[name](fds, *arguments)

    return Work(work, pid)


def _can_fork() -> bool:
    """Return whether this process is small and has no threads except our own, which doesn't get in the way of a fork."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    threads, resident_pages = int(fields[17]), int(fields[21])  # proc_pid_stat(5): fields 20 and 24
    return (
        threads == 1 + background_removal.is_running() and resident_pages * resource.getpagesize() <= FORKED_BYTES_MAX
    )


def of_caller() -> Worker | None:
    """Return the calling thread's worker, as `launcher.of_caller` does; None if it can't be started."""
    mine = launcher.of_caller()
    with _workers.lock:
        found = _workers.of.get(mine)
        if found is None or not found.is_alive():
            if found:
                found.close()  # something has killed it
            try:
                found = _workers.of[mine] = Worker()
            except OSError:
                return None  # an interpreter embedded in another program can't be executed
        return found


def close_all() -> None:
    """End the workers of this process. The next job starts a new one."""
    with _workers.lock:
        for each in list(_workers.of.values()):
            each.close()
        _workers.of.clear()


class Worker:
    """A worker process and the socket to it; ``pid`` is its process id."""

    def __init__(self) -> None:
        """Start a worker.

        Raises:
            OSError: it can't be started.
        """
        import sys

        library_path = os.environ.get("LD_LIBRARY_PATH")
        env = (f"LD_LIBRARY_PATH={library_path}",) if library_path else ()
        argv = (sys.executable, "-I", "-S", "-B", "-c", SOURCE, *_search_path())
        steps = [
            op.stdio(op.STDIN, op.STDOUT, op.STDERR, "the socket is standard input; there is no output"),
            op.close_fds("keep no inherited descriptor open"),
            op.exec_((sys.executable,), argv, env, "start the small worker"),
        ]
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._socket, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        try:
            self._process = launcher.spawn(
                encode(steps, signatures()), 0, [-1, -1, theirs.fileno(), null, null], len(steps)
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
            os.close(null)
        try:
            answer = Messages().take(self._socket.fileno(), self._process.pidfd)
        except ConnectionResetError:
            answer = b""
        except BaseException:
            self.close()
            raise
        if answer != READY:
            self.close()
            raise OSError(f"{sys.executable} doesn't start on its own")

    def begin(self, name: str, fds: Sequence[int], arguments: tuple[Any, ...], pid: int) -> WorkerJob:
        """See `begin`."""
        namespace = open_namespace(pid)
        try:
            report, theirs = socketpair(AF_UNIX, SOCK_STREAM)
            try:
                begun = WorkerJob(report, Descriptor.copy_of(self._process.pidfd))
                message = dumps((name, namespace >= 0, arguments))
                send(self._socket, message, [theirs.fileno(), *([namespace] if namespace >= 0 else []), *fds])
            finally:
                theirs.close()
        except OSError as error:
            raise MiniboxError(f"{name} in a container: {kernel_says(error)}") from error
        finally:
            close_descriptors(namespace)
        return begun

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return not wait_readable(self._process.pidfd, 0)

    def close(self) -> None:
        """End the worker after its children: if this process is a subreaper, it would inherit them."""
        self._socket.shutdown(SHUT_RDWR)  # a child forked elsewhere may have a copy
        self._socket.close()
        wait_readable(self._process.pidfd, LAST_JOBS_S)
        self._process.end(SIGKILL)
        self._process.close()

    def after_fork(self) -> None:
        """Let go of the worker in a forked child."""
        self._socket.close()
        self._process.close()


class WorkerJob:
    """A job that a worker runs."""

    def __init__(self, report: _socket.socket, worker: Descriptor) -> None:
        """Take over the report of a job.

        Args:
            worker: the worker's pidfd.
        """
        self._report, self._worker = report, worker

    def result(self) -> Any:
        """See `Pending`."""
        child = Messages()
        try:
            fd = self._report.fileno()
            # Without a pidfd, this is a report of the worker itself, such as that it can't fork.
            first = child.take(fd, self._worker.fileno())
            report = [] if child.fd >= 0 else [first]
            self._report.setblocking(False)
            while part := read_from(fd, child.fd if child.fd >= 0 else self._worker.fileno()):
                report.append(part)
        except ConnectionResetError:
            report = []  # the worker was killed, and its child with it
        finally:
            child.done()
            self._report.close()
            self._worker.close()
        if not report:
            raise MiniboxError(KILLED)
        return value_of(b"".join(report))


def _search_path() -> list[str]:
    """Return absolute paths, including the directory that minibox itself was imported from."""
    return [*search_path(), os.path.dirname(package_directory())]


# ---- the worker's side ------------------------------------------------------------------------------


def serve() -> None:
    """Fork a child for each job, until the other end of standard input is closed."""
    import socket

    signal(SIGCHLD, SIG_IGN)  # nobody waits for the children
    os.umask(0o022)
    with socket.socket(fileno=0) as control:
        control.send(READY)
        while True:
            message, fds, *_ = socket.recv_fds(control, MESSAGE_BYTES_MAX, FDS_MAX, socket.MSG_CMSG_CLOEXEC)
            if not message:
                break
            report = socket.socket(fileno=fds[0])
            try:
                _fork(partial(_do, os.getpid(), JOBS, message, fds[1:]), control, report)
            except (OSError, MiniboxError) as error:
                _tell(report, error)
            report.close()
            close_descriptors(*fds[1:])
    try:
        os.wait()  # waits for all of them, since SIGCHLD is ignored
    except ChildProcessError:
        os._exit(0)  # skip the interpreter's own cleanup


def _fork(job: Callable[[], Any], control: socket.socket, report: socket.socket) -> None:
    """Do a job in a child, once the receiver of its report has a pidfd to watch it."""
    from socket import send_fds

    wait, go = os.pipe()
    pidfd = -1
    try:
        if (pid := os.fork()) == 0:
            control.close()
            os.close(go)
            if not os.read(wait, 1):
                os._exit(1)  # nobody watches this job
            end_with(report_of(job), report.detach())
        pidfd = open_pidfd(pid)
        if pidfd < 0:
            raise MiniboxError(KILLED)
        send_fds(report, [PIDFD], [pidfd])
        os.write(go, GO)
    finally:
        close_descriptors(wait, go, pidfd)


def _tell(report: socket.socket, error: Exception) -> None:
    """Report that no child could be started for a job."""
    with suppress(OSError):  # nobody waits for it
        report.sendall(report_of(partial(_fail, error)))


def _do(parent: int, jobs: Mapping[str, Callable[..., Any]], message: bytes, fds: list[int]) -> Any:
    die_with_parent(parent)
    name, is_inside, arguments = loads(message)
    enter(fds.pop(0) if is_inside else -1, False)()
    return jobs[name](fds, *arguments)


def _fail(error: Exception) -> NoReturn:
    raise error


class _Workers:
    """The workers of this process, each by the launcher that started it."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.lock = allocate_lock()
        self.of: WeakKeyDictionary[Launcher, Worker] = WeakKeyDictionary()

    def forked(self) -> None:
        """Let go of the parent's workers in a forked child."""
        for each in self.of.values():
            each.after_fork()
        self._begin()  # another thread may have held the lock


_workers = _Workers()
os.register_at_fork(after_in_child=_workers.forked)
register(close_all)
