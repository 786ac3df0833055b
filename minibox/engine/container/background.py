"""Start a container in the background under a supervisor, and do what follows its end: clean up, restart."""

from __future__ import annotations

import os
import sys
from time import time

from minibox.base.files import close_descriptors
from minibox.base.home import Home
from minibox.base.operation import Op, parent
from minibox.base.paths import package_directory
from minibox.engine.container import removal, restart_policy
from minibox.engine.container.lifecycle import RESTARTED, stop_mark, stop_path
from minibox.engine.process.attach_socket import socket_path
from minibox.engine.process.undo import OF_FAILED
from minibox.engine.process.undo_list import MORE
from minibox.engine.state import containers, events
from minibox.engine.state.claim import Claim
from minibox.engine.state.exit_record import exit_path, read_exit
from minibox.engine.state.live_file import live_path, read_live_fd
from minibox.engine.state.log_file import log_path
from minibox.errors import CommandNotExecutable, CommandNotFound, MiniboxError, Unreadable, kernel_says, suppress
from minibox.linux import cgroup
from minibox.linux.executable import INIT
from minibox.linux.supervisor import DELAY_ARGV0, Duties, Supervisor, end_signatures
from minibox.storage.snapshot import RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minibox.engine.container.attach import Attachment
    from minibox.engine.container.run import Note, Run, Trace

CLAIM_FD = 3  # native/parent/supervisor.h
TERMINAL_SIZE = (24, 80)
LOG_BYTES_MAX, LOG_FILES = 10 << 20, 3
END_BYTES_MAX = 24 << 10  # a message to the supervisor has 32 KiB, native/parent/requests.h
PLAIN_DRIVERS = ("overlay", "erofs", "copy")  # a container's files are plain directories
EXIT_CODE = "exitCode"


def start_in_background(run: Run, on_trace: Trace | None = None, attachment: Attachment | None = None) -> None:
    """Start a container and hand it over to a supervisor of its own.

    Args:
        attachment: connected before the container writes anything.

    Raises:
        MiniboxError: it can't be started. A new container is removed again, unless its command is at fault: then it is
            kept, as in Docker.
    """
    socket = socket_path(run.home.runroot, run.claim.id)
    supervisor: Supervisor | None = None
    theirs: list[int] = []  # the container's ends of its streams
    ours: dict[str, int] = {}  # for the supervisor
    try:
        terminal = attachment.terminal if attachment else None
        run.prepare((terminal.size() if terminal else TERMINAL_SIZE) if run.options.tty else None, socket=socket)
        supervisor = Supervisor(run.claim.id)
        execution = run.execute(_make_streams(run, theirs, ours), on_trace, supervisor)
        if execution.scope:
            execution.scope.hand_over()
        ours["listener"], execution.listener = execution.listener, -1
        if attachment:
            attachment.connect(socket)
        if execution.pty_master >= 0:
            ours["terminal"] = os.dup(execution.pty_master)
        with suppress(FileNotFoundError):
            os.unlink(exit_path(run.home.root, run.claim.id))
        # Write this before the supervisor takes over: a container may end at once, and its end must be written later.
        run.note_running(supervisor.pid)
        try:
            supervisor.hold(execution.held)
            supervisor.supervise(_duties(run), {**ours, "claim": run.claim.fd})
        except ConnectionError as error:
            raise MiniboxError(f"container {run.claim.name} was killed while it was being started") from error
        except OSError as error:
            raise MiniboxError(f"hand the container over to its supervisor: {kernel_says(error)}") from error
    except BaseException as error:
        if not run.new:
            note_failure(run.home.root, run.claim.id, error)
        elif not isinstance(error, (CommandNotFound, CommandNotExecutable)):
            run.keep = False
        run.is_interrupted = not isinstance(error, (MiniboxError, OSError))
        run.close()
        raise
    finally:
        if supervisor:
            supervisor.close()
        close_descriptors(*theirs, *ours.values())
    run.hand_over()


def _make_streams(run: Run, theirs: list[int], ours: dict[str, int]) -> tuple[int, int, int]:
    """Make the streams, add their ends to ``theirs`` and ``ours``, and return the container's."""
    if run.options.tty:
        return -1, -1, -1
    stdin = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    theirs.append(stdin)
    if run.options.interactive:
        stdin, ours["stdin"] = os.pipe2(os.O_CLOEXEC)
        theirs.append(stdin)
    ends = []
    for name in ("stdout", "stderr"):
        ours[name], writer = os.pipe2(os.O_CLOEXEC)
        theirs.append(writer)
        ends.append(writer)
    if os.geteuid() == 0:
        for fd in theirs[1:]:
            os.fchown(fd, *run.owner)  # so that it can reopen /dev/stdout
    return stdin, ends[0], ends[1]


def _duties(run: Run) -> Duties:
    home, options, container_id, check = run.home, run.options, run.claim.id, run.health_check
    logs = {option.name: option.value for option in options.log_opt}
    return Duties(
        log_path=log_path(home.root, container_id) if options.log_driver != "none" else "",
        log_bytes_max=logs.get("max-size", LOG_BYTES_MAX),
        log_files=logs.get("max-file", LOG_FILES),
        exit_path=exit_path(home.root, container_id),
        after=_own_command(__name__, "settle", home, container_id),
        timeout_s=options.timeout_s,
        health=_own_command("minibox.engine.container.health", "check", home, container_id) if check else (),
        health_interval_s=check.interval_s if check else 0,
        health_start_interval_s=check.start_interval_s if check else 0,
        health_start_period_s=check.start_period_s if check else 0,
        stdin_once=options.interactive and not options.detach,
        end=_end_plan(run),
    )


def start_claimed(
    home: Home,
    claim: Claim,
    *,
    on_note: Note | None = None,
    attachment: Attachment | None = None,
    by_policy: bool = True,
) -> None:
    """Start an existing container that you have claimed. Its supervisor takes over the claim.

    Args:
        by_policy: its restart policy starts it, so keep its restart count.
    """
    from minibox.engine.container.relaunch import run_again

    try:
        run = run_again(home, claim, on_note)
    except BaseException as error:
        note_failure(home.root, claim.id, error)
        claim.release()
        raise
    if by_policy:
        run.kept += ("RestartCount", "RestartDelay")
    start_in_background(run, attachment=attachment)


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


def _own_command(module: str, function: str, home: Home, container_id: str) -> tuple[str, ...]:
    """A command that calls a function with the other arguments in a new interpreter, and exits with the result.

    It gets our sys.path, because the search by `site` takes 12 to 30 ms.
    """
    places = dict.fromkeys(
        (os.path.dirname(package_directory()), *(place for place in sys.path if os.path.isabs(place)))
    )
    code = f"import sys; sys.path[:] = sys.argv[1].split(':'); from {module} import {function} as f; sys.exit(f(*sys.argv[2:]))"
    return (sys.executable, "-I", "-S", "-c", code, ":".join(places), home.root, home.runroot, container_id)


# ---- its end, as a plan for the supervisor --------------------------------------------------


def _end_plan(run: Run) -> bytes:
    """Return a plan by which the supervisor ends a container in C, since a start of Python takes longer than all of it.

    It is made of the undo list, for a container that has just written its state.json. b"" if Python has to end it. What C
    can't do with certainty it leaves alone: then `settle` does the whole end. So each operation may be executed twice, and
    what can fail comes before what others are told.
    """
    execution, options = run.execution, run.options
    assert execution
    restarts = options.restart and options.restart.name != "no"
    removable = run.new and run.storage.driver in PLAIN_DRIVERS
    if restarts or run.health_check or (options.rm and not removable):
        return b""
    from minibox.plan.encode import encode  # `settle` needs none

    undo = [step for step in execution.undo_list if step.name not in OF_FAILED]
    known = end_signatures()
    if execution.undone_by or any(step.name not in known for step in undo):
        return b""
    try:
        state, file = containers.read_with_file(run.home.root, run.claim.id)
        place = run.claim.process_at()
    except (OSError, Unreadable):  # it is being removed
        return b""
    if EXIT_CODE in events.attributes_of(state) or not place:  # a label with that name: it isn't the last one then
        return b""
    ended = parent("note_ended", place, why="`wait` reads the status there, even after the removal")
    kept = () if options.rm else _measurements(run)
    steps = [ended, *_conditions(run, file), *kept, *undo, *_rest(run, state, file)]
    data = bytes(encode(steps, known))
    return data if len(data) <= END_BYTES_MAX else b""


def _conditions(run: Run, file: os.stat_result) -> Iterator[Op]:
    """What must be true at the end. Otherwise somebody did something to the container that only Python knows.

    Args:
        file: state.json.
    """
    root, container_id = run.home.root, run.claim.id
    why = "another command has changed it: its name, its limits, its networks"
    yield parent("expect_file", containers.state_path(root, container_id), file.st_ino, file.st_ctime_ns, why=why)
    yield parent("expect_none", f"{run.claim.directory}/{MORE}", why=why)
    if run.options.rm:
        yield parent("expect_none", stop_path(root, container_id), why="it may be about to be started again")
    group = run.prepared.group
    why = "else there is an event more, and a cause to be found"
    if "memory" in group.v1:
        yield parent("expect_zero", f"{group.v1['memory']}/memory.oom_control", "oom_kill", why=why)
    elif group.v2:
        yield parent("expect_zero", f"{group.v2}/memory.events", "oom_kill", why=why)
    if pids := group.v1.get("pids", group.v2):
        yield parent("expect_zero", f"{pids}/pids.events", "max", why=why)


def _measurements(run: Run) -> Iterator[Op]:
    """What `usage.measure_group` measures for state.json, beside what is 0 by `_conditions`."""
    group, why = run.prepared.group, "`why` and `inspect` show it"
    if "memory" in group.v1:
        yield parent("measure_memory", f"{group.v1['memory']}/memory.max_usage_in_bytes", why=why)
    elif group.v2:
        yield parent("measure_memory", f"{group.v2}/memory.peak", why=why)
    if "cpuacct" in group.v1:
        yield parent("measure_cpu", f"{group.v1['cpuacct']}/cpuacct.usage", None, 1, why=why)
    elif group.v2:
        yield parent("measure_cpu", f"{group.v2}/cpu.stat", "usage_usec", 1000, why=why)


def _rest(run: Run, state: dict[str, Any], file: os.stat_result) -> Iterator[Op]:
    """What follows the undo list, in the order of `collection`: files and name, or the state; events, claim."""
    root, container_id, attributes = run.home.root, run.claim.id, events.attributes_of(state)
    died = _event(container_id, {**attributes, EXIT_CODE: ""}, "die", '"}},"timeNano": 0}\n')
    destroyed: str | None = None
    if run.options.rm:
        last = ("state.json", os.path.basename(exit_path(root, container_id)), RECORD)
        yield parent("remove_files", f"{root}/containers", container_id, last, why="--rm")
        yield parent("drop_names", f"{root}/names", container_id, why="others may have it now")
        destroyed = _event(container_id, attributes, "destroy", '}},"timeNano": 0}\n')
    else:
        before = containers.unended(state)
        why = "`ps` and `start` read it"
        yield parent("note_state", f"{root}/containers", container_id, before, file.st_ino, file.st_ctime_ns, why=why)
    yield parent("note_events", f"{run.home.runroot}/{events.FILE}", died, destroyed, why="`events` shows its end")
    yield parent("remove_file", live_path(root, container_id), why="nothing is left to collect")


def _event(container_id: str, attributes: dict[str, Any], action: str, rest: str) -> str:
    """Return the line of an event without ``rest``, which has what is known only at the end: C writes that."""
    text = events.line(events.CONTAINER, container_id, attributes, action, 0)
    assert text.endswith(rest)
    return text.removesuffix(rest)


# ---- what follows the end -------------------------------------------------------------------------


def settle(root: str, runroot: str, container_id: str) -> None:
    """Clean up after a container's end: undo its start, write down how it ended, and restart it if its policy says so.

    The supervisor executes this in its own process. Descriptor 3 is the claim.
    """
    from minibox.engine.process.usage import measure_group, with_oom_end

    home, claim = Home(root, runroot), _inherited_claim(root, container_id)
    live = read_live_fd(claim.fd, container_id)
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
    ended |= found.record()
    removal.undo_start(home, container_id, live.undo)
    mark = stop_mark(root, container_id)
    removed = live.remove and not containers.is_written(root, container_id)  # all but done already, by `_end_plan`
    if removed or (before.get("Options", {}).get("rm") and mark != RESTARTED):
        containers.note_end(home, before, ended, kept=False)
        removal.remove_files_of(root, container_id)
        events.note_container(runroot, before, "destroy")
        claim.release()
        return
    delay_s: float | None = None

    def then(now: dict[str, Any]) -> dict[str, Any]:
        nonlocal delay_s
        delay_s = None if mark is not None else restart_policy.delay_s(now)
        if delay_s is None:
            return now
        count = (now.get("RestartCount") or 0) + 1
        return {**now, "Status": "restarting", "RestartCount": count, "RestartDelay": delay_s}

    containers.note_end(home, before, ended, then=then)
    if delay_s is None:
        claim.release()
        return
    # `stop` ends the delay with SIGTERM. It is blocked here, so that it arrives once the delay begins.
    claim.note_restarting(os.getpid())
    os.set_inheritable(CLAIM_FD, True)
    words = (DELAY_ARGV0, str(int(delay_s * 1000)), *_own_command(__name__, "restart", home, container_id))
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
