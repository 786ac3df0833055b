"""Judge why a container ended, from the records on disk: `why`."""

from __future__ import annotations

from time import time
from typing import Any

from minibox.base.home import Home
from minibox.base.lines import lines_of
from minibox.engine.container import collection, health
from minibox.engine.container.logs import read_log
from minibox.engine.process.terminal_text import plain
from minibox.engine.state import containers
from minibox.engine.state.log_file import log_path, log_time
from minibox.engine.state.sent_signals import HEALTH, KILL, STOP, SentSignal, sent_signals
from minibox.engine.verdict import cause
from minibox.engine.verdict.cause import Facts, span
from minibox.engine.verdict.end_kinds import (
    CREATED,
    DAMAGED,
    KILLED,
    NOT_STARTED,
    OWNER_KILLED,
    PAUSED,
    RESTARTING,
    RUNNING,
    STOPPED,
    UNHEALTHY,
    WALL_TIME,
)
from minibox.engine.verdict.failure_hints import signal_name
from minibox.linux.process import SIGKILL
from minibox.outcome import Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.outcome import Kind

LINES_SHOWN, LINES_READ = 5, 200
SOON_S = 2.0  # mention a signal that was sent so shortly before the end


def verdict(home: Home, name_or_id: str) -> Verdict:
    """The verdict on a container.

    Raises:
        ContainerNotFound: there is no such container.
    """
    container_id = containers.find_id(home.root, name_or_id)
    collection.collect_one(home, container_id)
    found = containers.read(home.root, container_id)
    return _Case(home.root, found).judge()


class _Case:
    """What we know about one container."""

    def __init__(self, root: str, found: dict[str, Any]) -> None:
        self._root, self._found = root, found
        self._options: dict[str, Any] = found.get("Options") or {}
        self._status = int(found.get("ExitCode") or 0)
        signal, relayed = int(found.get("Signal") or 0), found.get("Relayed")
        self._signal = cause.ended_by(self._status, signal, self._options, relayed)
        self._started = float(found.get("Started") or 0)
        self._finished = float(found.get("Finished") or 0)
        self._sent = sent_signals(root, found["Id"], self._started) if self._started else []
        self._health = health.status(root, found["Id"], found)
        self._log = _last_lines(log_path(root, found["Id"]), self._started)
        self._facts = Facts(
            status=self._status,
            signal=self._signal,
            options=self._options,
            ended_for=found.get("EndedFor") or (WALL_TIME if found.get("TimedOut") else ""),
            relayed=bool(self._signal) and not signal,
            oom_killed=bool(found.get("OOMKilled")),
            oom_ended=found.get("OOMEnded"),
            oom_survived=self._oom_survived(),
            memory_peak_bytes=found.get("MemoryPeak"),
            cpu_s=found.get("CpuTime"),
            refused=found.get("Refused") or 0,
            crowded=bool(found.get("Crowded")),
            disk_full=bool(found.get("DiskFull")),
            log_lost=bool(found.get("LogLost")),
            log=self._log,
        )
        self._evidence: list[str] = []

    def judge(self) -> Verdict:
        """Ask one question after the other. The first answer is the verdict."""
        status = self._found["Status"]
        if status == "damaged":
            return self._verdict(DAMAGED, "unknown, because its state.json is damaged", hint="minibox rm removes it")
        if status in ("running", "paused"):
            return self._alive(status)
        self._weigh()
        for question in (self._failed_to_start, self._owner_killed, self._by_limit, self._by_health, self._by_minibox,
                         self._by_signal, self._by_itself):  # fmt: skip
            if answer := question():
                break
        else:
            answer = self._verdict(CREATED, "it was never started", hint=f"minibox start {self._name}")
        if status == "restarting":
            from minibox.record import replace

            again = f"{answer.summary}; it is about to be restarted"
            return replace(answer, kind=RESTARTING, summary=again)
        return answer

    # ---- the questions --------------------------------------------------------------------------

    def _alive(self, status: str) -> Verdict:
        if self._health and self._health["FailingStreak"]:
            self._evidence.append(_health_words(self._health))
            self._evidence += _check_words(self._health)
        self._count_restarts()
        if status == "paused":
            return self._verdict(PAUSED, "it is paused", hint=f"minibox unpause {self._name}")
        words = f"it has been running for {span(time() - self._started)}" if self._started else "it is running"
        return self._verdict(RUNNING, words + (f", and is {self._health['Status']}" if self._health else ""))

    def _failed_to_start(self) -> Verdict | None:
        error = self._found.get("Error")
        if not error:
            return None
        return self._verdict(NOT_STARTED, f"it could not be started: {error}", hint=self._found.get("Hint") or "")

    def _owner_killed(self) -> Verdict | None:
        if not self._found.get("OwnerKilled"):
            return None
        owner = "its supervisor" if self._found.get("Supervised") else "the minibox run that it belonged to"
        return self._verdict(
            OWNER_KILLED,
            f"{owner} was killed, or the machine went down, and so it ended, too",
            hint=f"start it by hand, even if it has a restart policy: minibox start {self._name}",
        )

    def _by_limit(self) -> Verdict | None:
        return self._caused(cause.by_limit(self._facts))

    def _by_health(self) -> Verdict | None:
        if not any(sent.why == HEALTH for sent in self._sent):
            return None
        action = {"kill": "killed", "stop": "stopped", "restart": "stopped for a restart"}
        done = action.get(str(self._options.get("health_on_failure")), "ended")
        if self._health and self._health["Log"]:
            self._evidence += _check_words(self._health)
        return self._verdict(
            UNHEALTHY, f"it was {done} because it was unhealthy (--health-on-failure)", sender="minibox"
        )

    def _by_minibox(self) -> Verdict | None:
        sent = self._sender()
        if sent is None:
            forwarded = [number for number in self._found.get("Forwarded") or () if self._is_end_of(number)]
            if not forwarded:
                return None
            name = signal_name(forwarded[-1])
            words = f"minibox run received {name} and forwarded it"
            return self._verdict(KILLED, words, sender=f"the sender of {name} to minibox run (Ctrl-C sends SIGINT)")
        name, by = signal_name(sent.number), f"minibox {sent.why} by {sent.user}"
        if sent.why == KILL:
            return self._verdict(KILLED, f"{sent.user} sent it {name} with minibox kill", sender=by)
        asked = next(each for each in self._sent if each.why == STOP)
        words = f"{sent.user} stopped it"
        if asked.number == sent.number:
            return self._verdict(STOPPED, f"{words} with {name}", sender=by)
        grace = f"{signal_name(asked.number)} did not end it within {span(sent.time - asked.time)}"
        self._evidence.append(f"{grace}, so minibox sent {name}")
        hint = ""
        if asked.number != SIGKILL:
            hint = "process 1 ignores signals without a handler: add a handler to it, or run it with --init"
        return self._verdict(STOPPED, f"{words}, with {name} in the end", sender=by, hint=hint)

    def _by_signal(self) -> Verdict | None:
        return self._caused(cause.by_signal(self._facts))

    def _by_itself(self) -> Verdict | None:
        return self._caused(cause.by_itself(self._facts)) if self._finished else None

    def _caused(self, found: cause.Cause | None) -> Verdict | None:
        return self._verdict(found.kind, found.summary, sender=found.sender, hint=found.hint) if found else None

    # ---- below ----------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return str(self._found.get("Name") or self._found["Id"][:12])

    def _is_end_of(self, number: int) -> bool:
        """Did this signal end it?"""
        return number in (self._signal, self._status - 128)

    def _sender(self) -> SentSignal | None:
        """The signal from minibox that ended it; None for none."""
        for sent in reversed(self._sent):
            if sent.why == STOP or self._is_end_of(sent.number):
                return sent
        return None

    def _weigh(self) -> None:
        """Collect the evidence that belongs to any verdict."""
        if self._health and self._health["Log"]:
            self._evidence.append(_health_words(self._health))
        self._count_restarts()
        if lost := self._found.get("LogLost"):
            self._evidence.append(
                f"{lost} bytes of its last output are not in its log, for example because the disk was full"
            )
        for sent in self._sent:
            before_s = self._finished - sent.time
            if sent.why == KILL and not self._is_end_of(sent.number) and 0 <= before_s < SOON_S:
                name = signal_name(sent.number)
                self._evidence.append(f"{span(before_s)} before, {sent.user} sent it {name} with minibox kill")

    def _oom_survived(self) -> bool:
        """Had the kernel's kills for memory all happened before minibox sent the signal that ended it?"""
        sent = self._sender()
        return sent is not None and sent.oom_kills >= 0 and sent.oom_kills == self._found.get("OOMKills")

    def _count_restarts(self) -> None:
        count = self._found.get("RestartCount")
        if count:
            times = "once" if count == 1 else f"{count} times"
            self._evidence.append(f"its restart policy {self._options.get('restart')} restarted it {times}")

    def _verdict(self, kind: Kind, summary: str, *, sender: str = "", hint: str = "") -> Verdict:
        ran = bool(self._started) and kind not in (CREATED, NOT_STARTED, DAMAGED)
        ended = ran and kind not in (RUNNING, PAUSED)
        until = self._finished if ended else time()
        facts = cause.evidence(self._facts, kind) if ended else []
        return Verdict(
            self._found["Id"],
            self._found.get("Name", ""),
            kind,
            summary,
            status=self._status if ended or kind == NOT_STARTED else None,
            signal=signal_name(self._signal) if ended and self._signal else "",
            sender=sender,
            ran_s=until - self._started if ran and until else None,
            evidence=(*facts, *self._evidence),
            log=self._log if ended else (),
            hint=hint,
        )


def _last_lines(path: str, since: float) -> tuple[str, ...]:
    """The last lines of standard error since a time, or else of standard output."""
    try:
        entries = list(read_log(path, tail=LINES_READ, since=log_time(since)))
    except OSError:
        return ()
    errors = [entry.text for entry in entries if entry.stream == "stderr"]
    lines = [plain(text) for text in errors or [entry.text for entry in entries]]
    return tuple([line for line in lines if line.strip()][-LINES_SHOWN:])


def _health_words(results: dict[str, Any]) -> str:
    streak = results["FailingStreak"]
    if not streak:
        return "its last health check succeeded"
    return "its last health check failed" if streak == 1 else f"its last {streak} health checks failed"


def _check_words(results: dict[str, Any]) -> list[str]:
    output = str(results["Log"][-1].get("Output") or "").strip()
    return [f"the last check wrote: {line}" for line in lines_of(output)[-LINES_SHOWN:]]
