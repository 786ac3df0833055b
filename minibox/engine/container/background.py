"""Start a container in the background under a supervisor, and do what follows its end: clean up, restart."""

from __future__ import annotations

import os
import sys
from time import time

from minibox.base.home import Home
from minibox.base.paths import package_directory
from minibox.engine.container import removal, restart_policy
from minibox.engine.container.launch import IdFile
from minibox.engine.container.lifecycle import RESTARTED, stop_mark
from minibox.engine.process.attach_socket import socket_path
from minibox.engine.spec.log_options import log_limits
from minibox.engine.state import containers, events
from minibox.engine.state.claim import Claim
from minibox.engine.state.exit_record import exit_path, read_exit
from minibox.engine.state.live_file import read_live_fd
from minibox.engine.state.log_file import log_path
from minibox.errors import CommandNotExecutable, CommandNotFound, MiniboxError, kernel_says, suppress
from minibox.linux import cgroup
from minibox.linux.executable import INIT
from minibox.linux.supervisor import DELAY_ARGV0, Duties, Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.container.attach import Attachment
    from minibox.engine.container.launch import Launch, Note, Trace
    from minibox.engine.spec.options import RunOptions

CLAIM_FD = 3  # native/parent/supervisor.h
TERMINAL_SIZE = (24, 80)


class BackgroundStart:
    """One start of a container under a supervisor."""

    def __init__(
        self, launch: Launch, *, new: bool, attachment: Attachment | None = None, by_policy: bool = False
    ) -> None:
        """
        Args:
            new: it has no root file system yet.
            attachment: connected before the container writes anything.
            by_policy: its restart policy starts it, so keep its restart count.
        """
        self._launch, self._options, self._new = launch, launch.options, new
        self._attachment = attachment
        self._kept = ("Name", "Created", "Options", *(("RestartCount", "RestartDelay") if by_policy else ()))
        self._fds: dict[str, int] = {}
        self._streams: list[int] = []

    def start(self, on_trace: Trace | None = None) -> None:
        """Start the container and hand it over to its supervisor.

        Raises:
            MiniboxError: it can't be started. A new container is removed again, unless its command is at fault: then it
                is kept, as in Docker.
        """
        launch, options = self._launch, self._options
        keep = not self._new
        supervisor: Supervisor | None = None
        try:
            socket = socket_path(launch.home.runroot, launch.claim.id)
            launch.prepare(self._terminal_size() if options.tty else None, new=self._new, socket=socket)
            with IdFile(options.cidfile, launch.claim.id):
                supervisor = Supervisor(launch.claim.id)
                try:
                    execution = launch.execute(self._make_streams(), on_trace, supervisor)
                except (CommandNotFound, CommandNotExecutable) as error:
                    if self._new and not options.rm:
                        keep = True
                        self._write_state(Status="created", ExitCode=error.status, Error=str(error), Hint=error.hint)
                    if keep and self._new:
                        launch.emit("create")
                    raise
            assert execution.init
            if execution.scope:
                execution.scope.hand_over()
            self._hand_over(supervisor, execution.init.pid, execution.pty_master)
        except BaseException as error:
            if not self._new:
                note_failure(launch.home.root, launch.claim.id, error)
            launch.is_interrupted = not isinstance(error, (MiniboxError, OSError))
            launch.close(keep=keep)
            raise
        finally:
            if supervisor:
                supervisor.close()
            for fd in (*self._streams, *self._fds.values()):
                os.close(fd)
        launch.release()
        launch.claim.hand_over()

    def _terminal_size(self) -> tuple[int, int]:
        terminal = self._attachment.terminal if self._attachment else None
        return terminal.size() if terminal else TERMINAL_SIZE

    def _make_streams(self) -> tuple[int, int, int]:
        """Make the streams and return the container's ends. Our ends go to the supervisor."""
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
                os.fchown(fd, *self._launch.owner)  # so that it can reopen /dev/stdout
        return stdin, ends[0], ends[1]

    def _hand_over(self, supervisor: Supervisor, pid: int, pty_master: int) -> None:
        launch = self._launch
        path = socket_path(launch.home.runroot, launch.claim.id)
        execution = launch.execution
        assert execution
        self._fds["listener"], execution.listener = execution.listener, -1
        if self._attachment:
            self._attachment.connect(path)
        if pty_master >= 0:
            self._fds["terminal"] = os.dup(pty_master)
        _unlink(exit_path(launch.home.root, launch.claim.id))
        command = launch.prepared.spec["process"]["args"]
        launch.claim.note_process(pid, command, launch.exec_context(), supervisor.pid)
        # Write this before the supervisor takes over: a container may end at once, and its end must be written later.
        self._write_state(Status="running", Pid=pid, Supervised=True)
        launch.emit(*(("create", "start") if self._new else ("start",)))
        try:
            supervisor.hold(execution.held)
            supervisor.supervise(self._duties(), {**self._fds, "claim": launch.claim.fd})
        except ConnectionError as error:
            raise MiniboxError(f"container {launch.claim.name} was killed while it was being started") from error
        except OSError as error:
            raise MiniboxError(f"hand the container over to its supervisor: {kernel_says(error)}") from error

    def _duties(self) -> Duties:
        launch, options = self._launch, self._options
        bytes_max, files = log_limits(options.log_opt)
        check = launch.health_check
        return Duties(
            log_path=log_path(launch.home.root, launch.claim.id) if options.log_driver != "none" else "",
            log_bytes_max=bytes_max,
            log_files=files,
            exit_path=exit_path(launch.home.root, launch.claim.id),
            after=_own_command(__name__, "settle", launch.home.root, launch.home.runroot, launch.claim.id),
            timeout_s=options.timeout_s,
            health=_own_command(
                "minibox.engine.container.health", "check", launch.home.root, launch.home.runroot, launch.claim.id
            )
            if check
            else (),
            health_interval_s=check.interval_s if check else 0,
            health_start_interval_s=check.start_interval_s if check else 0,
            health_start_period_s=check.start_period_s if check else 0,
            stdin_once=options.interactive and not options.detach,
        )

    def _write_state(self, **fields: object) -> None:
        launch = self._launch
        now = time()
        fresh = {**launch.record(), "Created": now, "Started": now, **fields}
        if self._new:
            containers.write(launch.home.root, fresh, durable=True)
            return

        def changed(found: dict[str, Any]) -> dict[str, Any]:
            return {**fresh, **{key: found[key] for key in self._kept if key in found}}

        containers.change(launch.home.root, launch.claim.id, changed, durable=True)


def start_claimed(
    home: Home,
    claim: Claim,
    *,
    on_note: Note | None = None,
    attachment: Attachment | None = None,
    by_policy: bool = True,
) -> None:
    """Start an existing container that you have claimed. Its supervisor takes over the claim."""
    from minibox.engine.container.relaunch import launch_again

    try:
        launch = launch_again(home, claim, on_note)
    except BaseException as error:
        note_failure(home.root, claim.id, error)
        claim.release()
        raise
    BackgroundStart(launch, new=False, attachment=attachment, by_policy=by_policy).start()


def note_failure(root: str, container_id: str, error: BaseException) -> None:
    """Write down why a container couldn't be started again. Its restart policy doesn't try again."""
    failed: dict[str, Any] = {"Error": str(error), "Hint": getattr(error, "hint", None)}
    if isinstance(error, (CommandNotFound, CommandNotExecutable)):
        failed["ExitCode"] = error.status

    def changed(found: dict[str, Any]) -> dict[str, Any] | None:
        if found["Status"] == "damaged":
            return None
        status = "exited" if found["Status"] in containers.ALIVE else found["Status"]
        return {**found, **failed, "Status": status, "Pid": 0}

    with suppress(MiniboxError, OSError):  # the first error matters more
        containers.change(root, container_id, changed, durable=True)


def check_options(options: RunOptions) -> None:
    """Check the options for the restart policy and the log, before anything is made.

    Raises:
        UsageError: an option is invalid.
    """
    restart_policy.check(options)
    log_limits(options.log_opt)


def _own_command(module: str, function: str, root: str, runroot: str, container_id: str) -> tuple[str, ...]:
    """A command that calls a function with the other arguments in a new interpreter, and exits with the result.

    It gets our sys.path, because the search by `site` takes 12 to 30 ms.
    """
    places = dict.fromkeys(
        (os.path.dirname(package_directory()), *(place for place in sys.path if os.path.isabs(place)))
    )
    code = f"import sys; sys.path[:] = sys.argv[1].split(':'); from {module} import {function} as f; sys.exit(f(*sys.argv[2:]))"
    return (sys.executable, "-I", "-S", "-c", code, ":".join(places), root, runroot, container_id)


# ---- what follows the end -------------------------------------------------------------------------


def settle(root: str, runroot: str, container_id: str) -> None:
    """Clean up after a container's end: undo its start, write down how it ended, and restart it if its policy says so.

    The supervisor executes this in its own process. Descriptor 3 is the claim.
    """
    from minibox.engine.process.usage import measure_group, with_oom_end

    claim = _inherited_claim(root, container_id)
    ended = read_exit(root, container_id) or {
        "ExitCode": MiniboxError.status,
        "Error": "its supervisor could not write down how it ended",
        "Finished": time(),
    }
    claim.note_ended(ended["ExitCode"])
    group = cgroup.find(cgroup.detect(), f"minibox-{container_id}")
    before = containers.read(root, container_id)
    found, ran_s = measure_group(group, thoroughly=True), ended["Finished"] - (before.get("Started") or 0)
    found = with_oom_end(found, before.get("Pid") or 0, ran_s, before.get("Options") or {})
    ended |= {**found.record(), "Pid": 0}
    removal.undo_start(Home(root, runroot), container_id, read_live_fd(claim.fd, container_id).undo)
    mark = stop_mark(root, container_id)
    actions = ("oom", "die") if ended["OOMKilled"] else ("die",)
    events.note_container(runroot, before, *actions, exitCode=str(ended["ExitCode"]))
    if before.get("Options", {}).get("rm") and mark != RESTARTED:
        removal.remove_files_of(root, container_id)
        events.note_container(runroot, before, "destroy")
        claim.release()
        return
    delay_s: float | None = None

    def changed(found: dict[str, Any]) -> dict[str, Any]:
        nonlocal delay_s
        now = {**found, **ended, "Status": "exited"}
        delay_s = None if mark is not None else restart_policy.delay_s(now)
        if delay_s is None:
            return now
        count = (found.get("RestartCount") or 0) + 1
        return {**now, "Status": "restarting", "RestartCount": count, "RestartDelay": delay_s}

    containers.change(root, container_id, changed, durable=True)
    if delay_s is None:
        claim.release()
        return
    # `stop` ends the delay with SIGTERM. It is blocked here, so that it arrives once the delay begins.
    claim.note_restarting(os.getpid())
    os.set_inheritable(CLAIM_FD, True)
    words = (DELAY_ARGV0, str(int(delay_s * 1000)), *_own_command(__name__, "restart", root, runroot, container_id))
    os.execv(INIT, words)


def restart(root: str, runroot: str, container_id: str) -> None:
    """Restart a container. The supervisor executes this in its own process after the delay; see `settle`."""
    claim = _inherited_claim(root, container_id)

    if stop_mark(root, container_id) is None:
        start_claimed(Home(root, runroot), claim)
        return
    claim.note_ended(containers.read(root, container_id).get("ExitCode", 0))
    containers.change(root, container_id, lambda found: {**found, "Status": "exited"}, durable=True)
    claim.release()


def _inherited_claim(root: str, container_id: str) -> Claim:
    os.set_inheritable(CLAIM_FD, False)
    return Claim(root, container_id, containers.read(root, container_id)["Name"], CLAIM_FD, remove=False)


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
