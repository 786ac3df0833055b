"""A container that outlives the command that started it, under a supervisor, and what follows its end."""

from __future__ import annotations

import os
import sys
from _socket import AF_UNIX, SOCK_SEQPACKET, socket
from json import loads
from time import time

from minibox.engine import removal, state
from minibox.engine.launch import IdFile
from minibox.engine.ownership import Claim
from minibox.engine.prepare import INIT
from minibox.errors import CommandNotExecutable, CommandNotFound, MiniboxError, UsageError, kernel_says
from minibox.linux import cgroup
from minibox.linux.supervisor import DELAY_ARGV0, Duties, Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.engine.launch import Launch, Trace

SOCK_CLOEXEC = 0o2000000
CLAIM_FD = 3  # native/supervisor.h
LOG_BYTES_MAX = 10 << 20
LOG_FILES = 3
# Docker's back-off between restarts; it begins anew when the container has run for a while.
RESTART_FIRST_S, RESTART_MOST_S, RESTART_STABLE_S = 0.1, 60.0, 10.0
TERMINAL_SIZE = (24, 80)
BACKLOG = 16


def log_path(root: str, container_id: str) -> str:
    """The log; `engine.logs` reads it."""
    return f"{root}/containers/{container_id}/log"


def socket_path(runroot: str, container_id: str) -> str:
    """Where the supervisor takes clients."""
    return f"{runroot}/attach/{container_id}"


def _exit_path(root: str, container_id: str) -> str:
    return f"{root}/containers/{container_id}/exit"


def _stop_path(root: str, container_id: str) -> str:
    """There when the user has stopped it: then no policy restarts it."""
    return f"{root}/containers/{container_id}/stopped"


class Detached:
    """One start of a container under a supervisor."""

    def __init__(self, launch: Launch, *, new: bool) -> None:
        """``new``: it has no root file system yet."""
        self._launch, self._options, self._new = launch, launch.options, new
        self._fds: dict[str, int] = {}
        self._streams: list[int] = []

    def start(self, on_trace: Trace | None = None) -> None:
        """Start it: afterwards it belongs to its supervisor.

        Raises:
            MiniboxError: it can't be started; nothing of a new one is left but what Docker leaves: one whose
                command is at fault.
        """
        launch, options = self._launch, self._options
        keep = not self._new
        supervisor: Supervisor | None = None
        try:
            launch.prepare(TERMINAL_SIZE if options.tty else None, new=self._new)
            with IdFile(options.cidfile, launch.claim.id):
                supervisor = Supervisor(INIT, launch.claim.id)
                try:
                    execution = launch.execute(
                        self._make_streams(), on_trace, supervisor.spawn, supervisor.spawn_helper
                    )
                except (CommandNotFound, CommandNotExecutable) as error:
                    keep = keep or not options.rm
                    if keep:
                        self._write_state(Status="created", ExitCode=error.status, Error=str(error))
                    raise
            assert execution.init
            self._hand_over(supervisor, execution.init.pid, execution.pty_master)
        except BaseException:
            launch.close(keep=keep)
            raise
        finally:
            if supervisor:
                supervisor.close()
            for fd in (*self._streams, *self._fds.values()):
                os.close(fd)
        launch.release()
        launch.claim.hand_over()

    def _make_streams(self) -> tuple[int, int, int]:
        """The container's ends; ours go to the supervisor."""
        if self._options.tty:
            return -1, -1, -1
        stdin = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._streams.append(stdin)
        if self._options.interactive:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self._streams.append(reader)
            self._fds["stdin"], stdin = writer, reader
        ends = []
        for name in ("stdout", "stderr"):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self._streams.append(writer)
            self._fds[name] = reader
            ends.append(writer)
        if os.geteuid() == 0:
            for fd in self._streams[1:]:
                os.fchown(fd, *self._launch.owner)  # who may then open /dev/stdout anew
        return stdin, ends[0], ends[1]

    def _hand_over(self, supervisor: Supervisor, pid: int, pty_master: int) -> None:
        launch = self._launch
        self._fds["listener"] = _listen(socket_path(launch.runroot, launch.claim.id))
        if pty_master >= 0:
            self._fds["terminal"] = os.dup(pty_master)
        for path in (_exit_path(launch.root, launch.claim.id), _stop_path(launch.root, launch.claim.id)):
            _unlink(path)
        command = launch.prepared.spec["process"]["args"]
        launch.claim.note_process(pid, command, launch.joinable(), supervisor.pid)
        # Before the supervisor has it: a container that ends at once writes its end after this.
        self._write_state(Status="running", Pid=pid)
        try:
            supervisor.supervise(self._duties(), {**self._fds, "claim": launch.claim.fd})
        except OSError as error:
            raise MiniboxError(f"hand the container over to its supervisor: {kernel_says(error)}") from error

    def _duties(self) -> Duties:
        launch, options = self._launch, self._options
        bytes_max, files = log_limits(options.log_opt)
        return Duties(
            log_path=log_path(launch.root, launch.claim.id) if options.log_driver != "none" else "",
            log_bytes_max=bytes_max,
            log_files=files,
            exit_path=_exit_path(launch.root, launch.claim.id),
            after=_own_command(settle, launch.root, launch.runroot, launch.claim.id),
            timeout_s=options.timeout_s,
            stdin_once=False,
        )

    def _write_state(self, **fields: object) -> None:
        launch = self._launch
        before: dict[str, Any] = {} if self._new else state.read(launch.root, launch.claim.id)
        kept: dict[str, object] = {key: before[key] for key in ("Created", "RestartCount") if key in before}
        now = time()
        state.write(launch.root, {**launch.record(), "Created": now, **kept, "Started": now, **fields}, durable=True)


def _listen(path: str) -> int:
    """A socket that listens at ``path``, which may be longer than an address can hold."""
    directory, name = os.path.split(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    _unlink(path)
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    at = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{at}/{name}")
        listener.listen(BACKLOG)
        return listener.detach()
    except OSError as error:
        listener.close()
        raise MiniboxError(f"listen at {path}: {kernel_says(error)}") from error
    finally:
        os.close(at)


def log_limits(log_opt: tuple[str, ...]) -> tuple[int, int]:
    """Size of a log file in bytes (0: no limit), and how many are kept.

    Raises:
        UsageError: an option is unknown or has no such value.
    """
    from minibox.engine.sizes import parse_size

    bytes_max, files = LOG_BYTES_MAX, LOG_FILES
    for option in log_opt:
        key, _, value = option.partition("=")
        if key == "max-size":
            bytes_max = 0 if value == "-1" else parse_size(value)
        elif key == "max-file" and value.isascii() and value.isdigit() and int(value) > 0:
            files = int(value)
        else:
            raise UsageError(f"invalid log option {option!r}", "max-size=10m, or max-file=3")
    return bytes_max, files


def _own_command(what: Callable[[str, str, str], None], root: str, runroot: str, container_id: str) -> tuple[str, ...]:
    """A command that calls ``what``, a function of this module, with the other arguments.

    In a new interpreter, and from where this one has the package: a program that embeds it may have changed its path.
    """
    package = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    code = f"import sys; sys.path.insert(0, sys.argv[1]); from {__name__} import {what.__name__} as f; f(*sys.argv[2:])"
    return (sys.executable, "-c", code, package, root, runroot, container_id)


# ---- what follows the end -------------------------------------------------------------------------


def settle(root: str, runroot: str, container_id: str) -> None:
    """What the supervisor's process becomes when its container has ended: tidy up, say how it ended, start it anew.

    The claim is its descriptor 3.
    """
    found = state.read(root, container_id)
    claim = Claim(root, container_id, found["Name"], CLAIM_FD, remove=False)
    os.set_inheritable(CLAIM_FD, False)
    group = cgroup.find(cgroup.detect(), f"minibox-{container_id}")
    killed, peak = group.oom_kills() > 0, group.usage().memory_peak_bytes
    removal.remove_traces(root, runroot, container_id)
    _unlink(socket_path(runroot, container_id))
    ended = _ended(root, container_id)
    ended |= {"Pid": 0, "OOMKilled": killed, "MemoryPeak": peak}
    options = found.get("Options", {})
    if options.get("rm"):
        removal.remove_files_of(root, container_id)
        claim.release()
        return
    delay_s = _restart_delay(root, {**found, **ended})
    if delay_s is None:
        state.write(root, {**found, **ended, "Status": "exited"}, durable=True)
        claim.release()
        return
    count = found.get("RestartCount", 0) + 1
    again = {"Status": "restarting", "RestartCount": count, "RestartDelay": delay_s}
    state.write(root, {**found, **ended, **again}, durable=True)
    claim.note_waiting(os.getpid())
    os.set_inheritable(CLAIM_FD, True)
    words = (DELAY_ARGV0, str(int(delay_s * 1000)), *_own_command(restart, root, runroot, container_id))
    os.execv(INIT, words)


def restart(root: str, runroot: str, container_id: str) -> None:
    """What the supervisor's process becomes when it has waited before a restart; see `settle`."""
    from minibox.engine.container import start

    found = state.read(root, container_id)
    claim = Claim(root, container_id, found["Name"], CLAIM_FD, remove=False)
    os.set_inheritable(CLAIM_FD, False)
    if os.path.exists(_stop_path(root, container_id)):
        state.write(root, {**found, "Status": "exited"}, durable=True)
        claim.release()
        return
    try:
        start(container_id, root=root, runroot=runroot, claim=claim)
    except MiniboxError as error:
        state.write(root, {**state.read(root, container_id), "Status": "exited", "Error": str(error)}, durable=True)
        raise


def _ended(root: str, container_id: str) -> dict[str, Any]:
    """What the supervisor wrote."""
    try:
        with open(_exit_path(root, container_id), encoding="ascii") as file:
            record = loads(file.read())
        return {
            "ExitCode": record["status"],
            "Signal": record["signal"],
            "TimedOut": record["timed_out"],
            "Finished": record["finished_ns"] / 1e9,
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"ExitCode": MiniboxError.status, "Error": f"how it ended is not known: {error}", "Finished": time()}


def _restart_delay(root: str, found: dict[str, Any]) -> float | None:
    """How long to wait before it is started anew, in seconds; None when it isn't."""
    policy, _, attempts = str(found.get("Options", {}).get("restart", "no")).partition(":")
    count = found.get("RestartCount", 0)
    stopped = os.path.exists(_stop_path(root, found["Id"]))
    if policy in ("", "no") or stopped or (policy == "on-failure" and not found["ExitCode"]):
        return None
    if policy == "on-failure" and attempts and count >= int(attempts):
        return None
    if found["Finished"] - found.get("Started", 0) > RESTART_STABLE_S:
        return RESTART_FIRST_S
    return min(max(RESTART_FIRST_S, 2 * float(found.get("RestartDelay", 0))), RESTART_MOST_S)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
