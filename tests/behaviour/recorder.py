"""One case is run by the commands of a checkout, and what it did is recorded."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.behaviour import calls, state
from tests.behaviour.normal import Normal

DEADLINE_S = 90
POLL_S = 0.01
QUIET = 8  # looks one after the other at which nothing moves
PROGRAM = Path(__file__).with_name("api_program.py")
APPLETS = ("sh", "cat", "id", "ls", "env", "sort", "grep", "cut", "pwd", "hostname", "sleep", "true", "mkdir")


class Traced:
    """A command under strace, which goes on until all that came of it has ended."""

    def __init__(self, argv: list[str], directory: Path, environment: dict[str, str]) -> None:
        directory.mkdir()
        self.directory = directory
        self._trace_file = directory / "calls"
        self._ended_fd, held_fd = os.pipe()
        os.set_blocking(self._ended_fd, False)
        stdin_fd, to_stdin_fd = os.pipe()
        os.write(to_stdin_fd, b"a line\n")
        os.close(to_stdin_fd)
        with open(directory / "stdout", "wb") as stdout, open(directory / "stderr", "wb") as stderr:
            self.process = subprocess.Popen(
                [*calls.STRACE, "-o", str(self._trace_file), *argv],
                stdin=stdin_fd, stdout=stdout, stderr=stderr, env=environment, cwd="/", pass_fds=[held_fd],
            )  # fmt: skip
        os.close(stdin_fd)
        os.close(held_fd)

    def has_ended(self) -> bool:
        """The command, and all that it started."""
        if self._ended_fd < 0:
            return True
        try:
            os.read(self._ended_fd, 1)
        except BlockingIOError:
            return False
        os.close(self._ended_fd)
        self._ended_fd = -1
        self.process.wait()
        return True

    def wait(self) -> int | str:
        """The command's status, which is killed if it doesn't end."""
        try:
            return self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"did not end: {self.process.wait()}"

    def sleeps(self) -> bool:
        """Whatever is alive of it waits for something."""
        pids = set(re.findall(r"^\d+", self._trace_file.read_text(errors="replace"), re.MULTILINE))
        for pid in pids:
            with suppress(OSError):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "RDtT":
                    return False
        return True

    def stdout(self) -> str:
        return (self.directory / "stdout").read_text(errors="replace")

    def stderr(self) -> str:
        return (self.directory / "stderr").read_text(errors="replace")

    def tasks(self) -> list[dict[str, Any]]:
        return calls.tasks(self._trace_file.read_text(errors="replace"))

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)


class Recorder:
    """Runs cases, one after the other, with state of its own.

    Args:
        programs: the ``bin`` directory of the checkout's virtual environment.
        work: an empty directory on a file system that overlayfs takes as upper.
    """

    def __init__(self, programs: Path, work: Path) -> None:
        self._programs, self._work = programs, work
        self._roots = (work / "root", work / "run", work / "oci")
        self._gate = work / "gate/fifo"
        self._cgroup = f"/behaviour-{os.getpid()}"
        self._held_fd = -1
        checkout = programs.parent.parent
        self._normal = Normal(
            {str(work): "<work>", str(checkout): "<checkout>", self._cgroup: "/<cgroup>", str(PROGRAM): "<program>"}
        )
        self._environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(work / "home"), "LANG": "C.UTF-8", "TERM": "dumb", "FROM_CALLER": "yes",
            "MINIBOX_ROOT": str(self._roots[0]), "MINIBOX_RUNROOT": str(self._roots[1]), "COLUMNS": "120",
        }  # fmt: skip
        self._fronts = {"run": self._run, "exec": self._run, "api": self._api, "oci": self._oci, "bad": self._bad}
        self._make_fixtures()

    def _make_fixtures(self) -> None:
        work = self._work
        for name in ("home", "gate", "share", "cases", "rootfs/bin", "rootfs/etc"):
            (work / name).mkdir(parents=True)
        os.mkfifo(self._gate)
        os.chmod(self._gate, 0o666)
        (work / "share/file").write_text("shared\n")
        (work / "env").write_text("# comment\nFROM_FILE=1\nFROM_CALLER\n")
        (work / "bad-env").write_text("A B=1\n")
        profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO"}]}
        (work / "profile.json").write_text(json.dumps(profile))
        (work / "process.json").write_text(
            json.dumps({"args": ["id"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 3, "gid": 4}})
        )
        busybox = shutil.which("busybox")
        assert busybox, "busybox is not installed"
        shutil.copy(busybox, work / "rootfs/bin/busybox")
        for name in APPLETS:
            (work / "rootfs/bin" / name).symlink_to("busybox")

    # ---- what the cases of `exec` look into -------------------------------------------------------

    def start_boxes(self) -> None:
        """Containers for the cases of `exec`, and a network by name."""
        self._command("network", "create", "named")
        gate = ("-v", f"{self._work}/gate:/gate", "--network=none")
        forever = ("base", "sleep", "1000000")
        for name, options in {
            "plain": (), "user": ("-u", "1000:1000", "-w", "/tmp", "-e", "BOX=1", "--cap-add=NET_ADMIN"),
            "host": ("--userns=host", "--read-only"), "limited": ("-m", "64m", "--pids-limit=50", "--security-opt=no-new-privileges"),
            "init": ("--init", "-t", "--security-opt=seccomp=unconfined"),
        }.items():  # fmt: skip
            done = self._command("run", "-d", "--name", name, *gate, *options, *forever)
            assert done.returncode == 0, done.stderr

        self._boxes = self._containers()

    def close(self) -> None:
        """End what was started, and what a case that failed has left."""
        for name in os.listdir(self._roots[2]) if self._roots[2].exists() else ():
            argv = [str(self._programs / "minibox-oci"), "--root", str(self._roots[2]), "delete", "--force", name]
            subprocess.run(argv, check=False, capture_output=True, env=self._environment)
        self._command("rm", "-f", "-a")
        self._command("network", "rm", "named")
        subprocess.run(["umount", "--lazy", "--recursive", str(self._work / "run")], check=False, capture_output=True)

    # ---- cases -------------------------------------------------------------------------------------

    def record(self, case: dict[str, Any]) -> dict[str, Any]:
        """What the case did, in normal words."""
        before = state.facts(*self._roots)
        containers = self._containers()
        found: dict[str, Any] = self._fronts[case["front"]](case, before)
        self._normal.know(self._ids)
        left = self._containers() - containers
        if left:
            removed = self._command("rm", "-f", "-v", *sorted(left))
            found["removal"] = [removed.returncode, removed.stderr]
        normal = self._normal
        if found.get("state"):
            paths = sorted((normal.text(path), content) for path, content in found["state"].items())
            found["state"] = {path: normal.content(content) for path, content in paths}
        tasks = [normal.value(task) for task in found.pop("tasks")]
        found["calls"] = sorted(tasks, key=lambda task: json.dumps(task, sort_keys=True))
        return {
            "case": normal.value(case),
            **{key: normal.value(value) if key not in ("state", "calls") else value for key, value in found.items()},
        }

    def _run(self, case: dict[str, Any], before: state.Facts) -> dict[str, Any]:
        words = self._filled(case["words"], case)
        found: dict[str, Any] = {}
        if case["front"] == "run":
            told = self._command("explain", "--json", *words)
            found["plan"] = self._json(told.stdout) if told.returncode == 0 else told.stderr
        found |= self._traced([str(self._programs / "minibox"), *words], case, before)
        return found

    def _bad(self, case: dict[str, Any], before: state.Facts) -> dict[str, Any]:
        """Command lines that fail before anything happens."""
        self._ids = []
        done = [self._command(*self._filled(words, case)) for words in case["lines"]]
        left = state.contents(before, state.facts(*self._roots))
        answers = [[each.returncode, each.stdout.splitlines(), each.stderr] for each in done]
        return {"answers": answers, "tasks": [], "left": sorted(map(self._left, left))}

    def _api(self, case: dict[str, Any], before: state.Facts) -> dict[str, Any]:
        filled = {**case, "keywords": json.loads(self._filled([json.dumps(case["keywords"])], case)[0])}
        filled["keywords"].setdefault("mounts", [])
        if isinstance(filled["keywords"]["mounts"], list):
            filled["keywords"]["mounts"].append([f"{self._work}/gate", "/gate"])
        argv = [str(self._programs / "python"), str(PROGRAM), json.dumps(filled)]
        found = self._traced(argv, case, before)
        return {**found, "stdout": self._json("\n".join(found["stdout"]))}

    def _traced(self, argv: list[str], case: dict[str, Any], before: state.Facts) -> dict[str, Any]:
        found: dict[str, Any] = {}
        traced = Traced(argv, self._work / "cases" / case["name"], self._environment)
        detached = any(word in ("-d", "--detach") for word in argv)

        def look() -> None:
            if detached:
                traced.wait()
            if found:
                return
            found.update(self._state_now(before, traced))
            if case["front"] == "run" and self._ids:
                told = self._command("inspect", self._ids[-1])
                found["inspect"] = self._json(told.stdout) or told.stderr

        in_time = self._until_ended([traced], look)
        if not in_time:
            traced.kill()
            self._command("rm", "-f", *(self._containers() - self._boxes))
        self._ids = [*self._ids, *self._containers()]
        left = state.contents(before, state.facts(*self._roots))
        return {
            "status": traced.process.wait() if in_time else "did not end", "stdout": self._listing(traced.stdout()),
            "stderr": traced.stderr(), "tasks": traced.tasks(), **found, "left": sorted(map(self._left, left)),
        }  # fmt: skip

    def _oci(self, case: dict[str, Any], before: state.Facts) -> dict[str, Any]:
        self._ids = []
        bundle = self._work / f"bundle-{case['name']}"
        bundle.mkdir()
        spec = json.loads(self._filled([json.dumps(case["spec"])], case)[0].replace("{cgroup}", self._cgroup))
        (bundle / "config.json").write_text(json.dumps(spec))
        life: list[Any] = []
        all_traced: list[Traced] = []
        found: dict[str, Any] = {}
        for number, step in enumerate(case["life"]):
            if step[0] == "ready":
                self._until_ready(all_traced)
                found |= self._state_now(before, all_traced[0])
                continue
            if step[0] in ("gate", "ended"):
                self._let_go()
                self._until_ended(all_traced, lambda: None)
                continue
            words = [word.replace("{bundle}", str(bundle)) for word in self._filled(step, case)]
            argv = [str(self._programs / "minibox-oci"), "--root", str(self._roots[2]), *words]
            traced = Traced(argv, self._work / "cases" / f"{case['name']}-{number}", self._environment)
            all_traced.append(traced)
            life.append([step[0], traced.wait()])
        self._let_go()
        if not self._until_ended(all_traced, lambda: None):
            life.append("did not end")
        hooks = self._work / f"hooks-{case['name']}"
        found["hooks"] = hooks.read_text().replace("}{", "}\n{") if hooks.exists() else ""
        found["life"] = [
            [*each, self._listing(traced.stdout()), traced.stderr()] for each, traced in zip(life, all_traced)
        ]
        left = state.contents(before, state.facts(*self._roots))
        return {
            **found,
            "tasks": [task for each in all_traced for task in each.tasks()],
            "left": sorted(map(self._left, left)),
        }

    # ---- the gate ----------------------------------------------------------------------------------

    def _until_ended(self, all_traced: list[Traced], look: Callable[[], None]) -> bool:
        """Let through whatever waits at the gate, and ``look`` before; False: it took too long."""
        deadline = time.monotonic() + DEADLINE_S
        while not all(each.has_ended() for each in all_traced):
            if self._opens():
                look()
                self._let_go()
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _until_ready(self, all_traced: list[Traced]) -> None:
        """Until the command waits at the gate, or will never."""
        deadline = time.monotonic() + DEADLINE_S
        while not self._opens() and not all(each.has_ended() for each in all_traced) and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _opens(self) -> bool:
        if self._held_fd >= 0:
            return True
        try:
            self._held_fd = os.open(self._gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        return self._held_fd >= 0

    def _let_go(self) -> None:
        if self._held_fd >= 0:
            os.close(self._held_fd)
            self._held_fd = -1

    # ---- the state ---------------------------------------------------------------------------------

    _ids: list[str] = []
    _boxes: set[str] = set()

    def _state_now(self, before: state.Facts, traced: Traced) -> dict[str, Any]:
        """The files, once nobody writes to them."""
        now, quiet = state.facts(*self._roots), 0
        while quiet < QUIET:
            time.sleep(POLL_S)
            again = state.facts(*self._roots)
            quiet = quiet + 1 if traced.sleeps() and again == now else 0
            now = again
        found = state.contents(before, now)
        self._ids = sorted(self._containers() - self._boxes)
        return {"state": found}

    def _containers(self) -> set[str]:
        directory = self._roots[0] / "containers"
        return (
            {name for name in os.listdir(directory) if re.fullmatch("[0-9a-f]{64}", name)}
            if directory.exists()
            else set()
        )

    def _left(self, path: str) -> str:
        return re.sub(r"\.[0-9a-f]{8,}$", ".<hex>", path)

    # ---- words -------------------------------------------------------------------------------------

    def _command(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [str(self._programs / "minibox"), *words]
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self._environment, cwd="/", check=False
        )

    def _filled(self, words: list[str], case: dict[str, Any]) -> list[str]:
        return [word.replace("{work}", str(self._work)).replace("{case}", case["name"]) for word in words]

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return text

    def _listing(self, text: str) -> Any:
        return text.splitlines()
