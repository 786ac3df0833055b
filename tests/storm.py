"""A storm of life-cycle commands on a few containers, in which anything may be killed, and the look-out for untruths.

Commands come from several workers at once. What each command said is compared with what the kernel has just
then, as long as nobody else had to do with the same container meanwhile: the journal knows.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minibox.engine.state import claim
from minibox.engine.state.live_file import Live
from minibox.linux import cgroup
from tests.leaks import SLOWNESS

#: By kind: options and script. Each says "begun" first.
KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "obedient": ((), "trap 'exit 0' TERM; echo begun; while :; do sleep 1000 & wait $!; done"),
    "stubborn": ((), "trap '' TERM; echo begun; while :; do sleep 1000; done"),
    "forking": ((), "echo begun; (setsid sh -c 'sleep 1000 & sleep 1000' &); (sleep 1000 &); exec sleep 1000"),
    "short": ((), "echo begun; sleep 0.3; exit 7"),
    "restarting": (("--restart", "on-failure:4"), "echo begun; sleep 0.2; exit 1"),
    "bridged": (("--network", "bridge"), "trap 'exit 0' TERM; echo begun; while :; do sleep 1000 & wait $!; done"),
    "removed": (("--rm",), "trap 'exit 0' TERM; echo begun; while :; do sleep 1000 & wait $!; done"),
}
ENDING = ("short", "restarting")  # by themselves: what the kernel has of them changes without a command
WEIGHTS = {
    "run": 6, "create": 3, "start": 6, "stop": 4, "kill": 3, "restart": 3, "pause": 3, "unpause": 3, "rename": 2,
    "exec": 5, "rm": 2, "rm -f": 4, "wait": 2, "logs": 2, "ps": 5, "inspect": 3,
}  # fmt: skip
WORKERS = 4
KILLED_SHARE = 0.12  # of the commands
WAIT_S = 2.0
SETTLING_S = 1.0 * SLOWNESS  # how long something that was killed may still have consequences that nobody sees
CONSEQUENCES_S = 10.0 * SLOWNESS  # and those that are waited for
COMMAND_S = 60 * SLOWNESS
RUNNING = ("running", "paused", "restarting")


class Journal:
    """Who had to do with which container, and when."""

    def __init__(self) -> None:
        self._entries: list[list[Any]] = []  # of keys, begin, end
        self._lock = threading.Lock()

    def begin(self, keys: set[str]) -> list[Any]:
        entry = [keys, time.monotonic(), float("inf")]
        with self._lock:
            self._entries.append(entry)
        return entry

    def disturbed(self, own: list[Any]) -> bool:
        """Has anybody else had to do with one of its containers since it began?"""
        with self._lock:
            return any(
                each is not own and each[0] & own[0] and each[2] + (each[3] if len(each) > 3 else 0) >= own[1]
                for each in self._entries
            )

    @staticmethod
    def end(entry: list[Any], *, killed: bool = False) -> None:
        entry[2] = time.monotonic()
        entry.append(SETTLING_S if killed else 0.0)


class Seen:
    """What the kernel has of a container now."""

    def __init__(self, container_id: str) -> None:
        group = cgroup.find(cgroup.detect(), f"minibox-{container_id}") if container_id else None
        self.pids = group.pids() if group else set()
        try:
            self.frozen = bool(self.pids) and group is not None and group.is_frozen()
        except OSError:
            self.frozen = False


class Storm:
    """One storm."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], state: Path, seed: int) -> None:
        self.command, self.environment, self.seed = list(command), dict(environment), seed
        self.root, self.runroot = str(state / "root"), str(state / "run")
        self.journal = Journal()
        self.kinds: dict[str, str] = {}  # by id
        self.untruths: list[str] = []
        self.counts: dict[str, int] = {}
        self._over = threading.Event()

    def rage(self, commands: int, containers: int) -> None:
        """Give so many commands to so many containers, and kill what is met."""
        self.names = [f"n{number}" for number in range(containers)]
        killer = threading.Thread(target=self._kill_around)
        killer.start()
        workers = [threading.Thread(target=self._work, args=(n, commands // WORKERS)) for n in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self._over.set()
        killer.join()

    def call(self, *words: str, timeout_s: float = COMMAND_S) -> subprocess.CompletedProcess[str]:
        """One command that nobody kills."""
        return subprocess.run([*self.command, *words], env=self.environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout_s, check=False)  # fmt: skip

    def holder(self, name: str) -> str:
        """The id of the container of that name; "" for none."""
        found = self._target(name)
        return found if os.path.isdir(f"{self.root}/containers/{found}") else ""

    def _target(self, name: str) -> str:
        try:
            return os.readlink(f"{self.root}/names/{name}")
        except OSError:
            return ""

    # ---- those that kill ------------------------------------------------------------------------

    def _kill_around(self) -> None:
        """A supervisor, or any process of a container."""
        chance = random.Random(f"{self.seed} killer")
        while not self._over.wait(chance.uniform(0.05, 0.5) * SLOWNESS):
            held = claim.live_ids(self.root)
            if not held:
                continue
            container_id = chance.choice(sorted(held))
            entry = self.journal.begin({container_id, *self._names_of(container_id)})
            live = claim.read_owner(self.root, container_id)
            pids = sorted(Seen(container_id).pids)
            victim = live.supervisor if live and chance.random() < 0.6 else chance.choice(pids) if pids else 0
            if victim > 0 and live:
                self._kill(victim, container_id)
                self._await_end(container_id, victim, live)
            self.journal.end(entry, killed=True)

    def _await_end(self, container_id: str, victim: int, killed: Live) -> None:
        """Until its owner knows what was killed, or is gone with all that it had; the frozen may not die at all."""
        deadline = time.monotonic() + CONSEQUENCES_S
        pids = Seen(container_id).pids | {victim}
        while time.monotonic() < deadline:
            live = claim.read_owner(self.root, container_id)
            knows = live is None or victim not in (live.supervisor, live.pid)
            if knows and not (Seen(container_id).pids & (pids if victim == killed.supervisor else {victim})):
                return
            time.sleep(0.02)

    def _await_rest(self, container_id: str) -> None:
        """Until one whose command was killed runs, or nothing of it does."""
        deadline = time.monotonic() + CONSEQUENCES_S
        while container_id and time.monotonic() < deadline:
            live = claim.read_owner(self.root, container_id)
            if (live and live.supervisor > 0) or (live is None and not Seen(container_id).pids):
                return
            time.sleep(0.02)

    def _kind(self, container_id: str) -> str:
        return self.kinds.get(container_id, "restarting")  # of whom nobody knows what to expect

    def _names_of(self, container_id: str) -> list[str]:
        """One that is being made has a name before anybody is told its id."""
        return [name for name in self.names if self._target(name) == container_id]

    def _kill(self, pid: int, container_id: str) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if claim.read_owner(self.root, container_id):  # so that the pid was its own when we opened it
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                self._count("killed")
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    # ---- those that give commands -----------------------------------------------------------------

    def _work(self, number: int, commands: int) -> None:
        chance = random.Random(f"{self.seed} worker {number}")
        for _ in range(commands):
            try:
                self._step(chance)
            except Exception as error:
                self._lie("the storm itself", repr(error))
                raise

    def _step(self, chance: random.Random) -> None:
        verb = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        name, other, kind = chance.choice(self.names), chance.choice(self.names), chance.choice(list(KINDS))
        killed_after = chance.uniform(0, 0.3) * SLOWNESS if chance.random() < KILLED_SHARE else None
        container_id = self.holder(name)
        if not container_id and verb not in ("ps", "rename") and chance.random() < 0.7:
            verb = chance.choice(("run", "run", "create"))  # else most would ask for containers that aren't there
        keys = {name, container_id} - {""} | ({other} if verb == "rename" else set())
        entry = self.journal.begin(keys)
        before = Seen(container_id)
        all_before = self._look() if verb == "ps" else {}
        # A wait that lasts is given up; the command is none the worse for that.
        words = self._words(verb, name, other, kind)
        done, killed = self._give(words, WAIT_S if verb == "wait" else killed_after)
        self._count(verb)
        if killed:
            if verb in ("run", "create") and not container_id:
                self.kinds.setdefault(self.holder(name), kind)
            if verb != "wait":
                self._await_rest(container_id or self.holder(name))
            self.journal.end(entry, killed=verb != "wait")
            return
        made = done.stdout.strip()
        if verb in ("run", "create") and done.returncode == 0:
            if len(made) != 64:
                self._lie(words, f"printed no id: {done.stdout!r}")
            self.kinds[made] = kind
            entry[0] = keys | {made}
        self._check_words(words, done)
        looked = time.monotonic()
        if verb == "ps":
            self._check_list(done, all_before, entry[1])
        problem = self._problem(verb, name, other, container_id, before, done)
        self.journal.end(entry)
        if problem and not self.journal.disturbed(entry):
            self._lie(words, f"{problem} ({self._kind(container_id)}, frozen: {before.frozen}); took {looked - entry[1]:.2f} s; said {done.returncode}, {done.stdout[-300:]!r}, {done.stderr[-500:]!r}")  # fmt: skip

    def _words(self, verb: str, name: str, other: str, kind: str) -> list[str]:
        if verb in ("run", "create"):
            options, script = KINDS[kind]
            network = () if "--network" in options else ("--network", "none")
            detach = ("-d",) if verb == "run" else ()
            return [verb, *detach, "--name", name, *network, *options, "base", "sh", "-c", script]
        more = {"rename": [other], "exec": ["echo", "truth"]}.get(verb, [])
        if verb in ("stop", "restart"):
            return [verb, "-t", "1", name]
        return ["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"] if verb == "ps" else [*verb.split(), name, *more]  # fmt: skip

    def _give(self, words: list[str], kill_after_s: float | None) -> tuple[subprocess.CompletedProcess[str], bool]:
        with subprocess.Popen([*self.command, *words], env=self.environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
            try:
                out, err = process.communicate(timeout=COMMAND_S if kill_after_s is None else kill_after_s)
                killed = False
            except subprocess.TimeoutExpired:
                if kill_after_s is None:
                    self._lie(words, f"hangs since {COMMAND_S} s")
                process.kill()
                out, err = process.communicate()
                killed = True
        return subprocess.CompletedProcess(words, process.returncode, out, err), killed

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _lie(self, words: object, problem: str) -> None:
        self.untruths.append(f"{words}: {problem}")

    # ---- what they said -----------------------------------------------------------------------------

    def _check_words(self, words: list[str], done: subprocess.CompletedProcess[str]) -> None:
        """A failure says what failed, and is none of our own."""
        if done.returncode < 0:
            self._lie(words, f"ended by signal {-done.returncode}")
        if "internal error" in done.stderr or "Traceback" in done.stderr:
            self._lie(words, done.stderr)
        if words[0] == "exec" and done.returncode == 128 + signal.SIGKILL:
            return  # its command was killed, with the container or without
        if done.returncode and not done.stderr.startswith("minibox: "):
            self._lie(words, f"status {done.returncode} and no word: {done.stderr!r}")

    def _problem(
        self, verb: str, name: str, other: str, container_id: str, before: Seen, done: subprocess.CompletedProcess[str]
    ) -> str:
        """What is wrong, if nobody else had to do with the container; "" for nothing."""
        if verb == "ps":
            return "" if done.returncode == 0 else "it failed"
        ok, made = done.returncode == 0, done.stdout.strip()
        if verb in ("run", "create"):
            container_id = made if ok else container_id
        now, kind = Seen(container_id), self._kind(container_id)
        exists = bool(container_id) and os.path.isdir(f"{self.root}/containers/{container_id}")
        if not ok:
            return self._problem_of_failure(verb, name, other, container_id, kind, before, now)
        runs = bool(now.pids)
        if verb in ("run", "start", "restart") and not runs and kind not in ENDING:
            return "it doesn't run"
        if verb in ("create", "stop", "kill", "wait") and runs and kind != "restarting":
            return f"processes {now.pids} are there"
        if verb in ("stop", "kill") and runs:
            return f"processes {now.pids} are there, which a policy mustn't start"
        if verb in ("run", "create") and self.holder(name) != made and kind != "removed":
            return "the name isn't that container's"
        if verb in ("rm", "rm -f") and (runs or exists or self.holder(name)):
            return f"left: processes {now.pids}, files {exists}, name {self.holder(name)}"
        if verb == "restart" and now.pids & before.pids:
            return "the same processes are there"
        if (verb == "pause" and not now.frozen and (runs or kind not in ENDING)) or (verb == "unpause" and now.frozen):
            return f"frozen: {now.frozen}"
        if verb == "rename" and name != other and (self.holder(name) or self.holder(other) != container_id):
            return "the names are wrong"
        if verb == "exec" and made != "truth":
            return "no output"
        if verb == "inspect" and kind not in ENDING:
            (found,) = json.loads(done.stdout)
            if found["State"]["Running"] != runs or found["Id"] != container_id:
                return f"it runs: {runs}"
        return ""

    def _problem_of_failure(
        self, verb: str, name: str, other: str, container_id: str, kind: str, before: Seen, now: Seen
    ) -> str:
        """Did it fail for no reason that we know?"""
        free = not os.path.islink(f"{self.root}/names/{name}")
        if verb in ("run", "create"):
            return "the name is free" if free and not container_id else ""
        if not container_id or kind in ENDING:
            return ""
        if kind == "removed" and not os.path.isdir(f"{self.root}/containers/{container_id}"):
            return ""  # it has ended, and with that gone
        ran = bool(before.pids) and bool(now.pids)
        if verb in ("stop", "inspect", "logs", "rm -f", "wait"):
            return "it is there"
        if verb in ("start", "restart") and not before.frozen:
            return "it is there, and not paused"
        if verb == "rm" and not before.pids:
            return "it doesn't run"
        if verb == "kill" and ran:
            return "it runs"
        if verb in ("exec", "pause") and ran and not before.frozen:
            return "it runs"
        if verb == "unpause" and before.frozen:
            return "it is paused"
        if verb == "rename" and name != other and not os.path.islink(f"{self.root}/names/{other}"):
            return "the name is free"
        return ""

    def _look(self) -> dict[str, Seen]:
        return {container_id: Seen(container_id) for container_id in os.listdir(f"{self.root}/containers")}

    def _check_list(self, done: subprocess.CompletedProcess[str], before: dict[str, Seen], begin: float) -> None:
        """A name is one container's, and who runs or doesn't all the while is listed so."""
        after = self._look()
        rows = [line.split() for line in done.stdout.splitlines()]
        named = [row[1] for row in rows]
        twice = [row for row in rows if named.count(row[1]) > 1 or sum(row[0] == each[0] for each in rows) > 1]
        if twice:
            self._lie("ps", f"a name or an id is there twice: {twice}")
        for container_id, name, status in rows:
            if container_id not in before or container_id not in after or self._kind(container_id) == "restarting":
                continue
            first, last = before[container_id], after[container_id]
            right = status in RUNNING if first.pids & last.pids else status not in RUNNING or first.pids or last.pids
            if not right and not self.journal.disturbed([{container_id, name}, begin, float("inf")]):
                self._lie("ps", f"{name}, {self._kind(container_id)}, is {status}, and has processes {first.pids}, then {last.pids}")  # fmt: skip

    def check_list(self) -> None:
        """When all is quiet: `ps` and `inspect` say what the kernel has."""
        for line in self.call("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}").stdout.splitlines():  # fmt: skip
            container_id, name, status = line.split()
            if self._kind(container_id) in ENDING:
                continue
            seen = Seen(container_id)
            if (status in RUNNING) != bool(seen.pids) or (status == "paused") != seen.frozen:
                self._lie("ps", f"{name} is {status}, and has processes {seen.pids}, frozen: {seen.frozen}")


def remains(state: Path) -> list[str]:
    """What containers have on disk."""
    root, runroot = state / "root", state / "run"
    found = [path for kind in ("containers", "live", "names", "ids", "tmp") for path in (root / kind).glob("*")]
    found += [*runroot.glob("network/*/leases/*"), *runroot.glob("attach/*")]
    return [str(path.relative_to(state)) for path in found]
