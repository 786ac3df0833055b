"""A container of a program that has minibox inside: it lives as long as an object of the program does.

It is a container in the foreground without the command line around it: no signal handlers, no terminal, and streams
that the caller gives. A process that a fork makes has the objects too, and owns nothing.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from weakref import WeakSet

from minibox.engine import outcome
from minibox.engine.container import new_launch
from minibox.engine.exec import Exec, Host
from minibox.engine.owned import Owned
from minibox.engine.started import Started
from minibox.engine.streams import Streams
from minibox.errors import ContainerNotRunning
from minibox.linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.exec import ExecOptions
    from minibox.engine.launch import Note
    from minibox.engine.options import RunOptions
    from minibox.engine.outcome import Usage
    from minibox.engine.verdict import Verdict

SIGKILL = 9
NS_A_SECOND = 1e9


class Embedded:
    """One container. `close` ends it and removes all that it had; from any thread, and twice is fine.

    Attributes:
        id, name: the container's.
        directory: its own, under ``root/containers``.
        main: its first process, once it was started.
    """

    def __init__(
        self, options: RunOptions, *, root: str, runroot: str, storage_driver: str = "", on_note: Note | None = None
    ) -> None:
        """Claim it; arguments and errors as of `container.run`."""
        launch = new_launch(options, root, runroot, storage_driver, on_note, None)
        self._owned, self._launch = Owned(launch), launch
        self.root, self.runroot, self.options = root, runroot, options
        self.id, self.name, self.directory = launch.claim.id, launch.claim.name, launch.claim.directory
        self.main: Started | None = None
        self._host: Host | None = None
        self._commands: set[Started] = set()  # others that run in it
        self._lock = allocate_lock()
        self._closed = False
        self._timeout_s: float | None = None
        _owned_here.add(self)

    def start(self, outside: tuple[int, int, int]) -> Started:
        """Start it.

        Args:
            outside: descriptors of its standard input, output and error. Pipes are its own from now on; anything else
                is copied from and to, and stays open until it has ended.

        Raises:
            CommandNotFound, CommandNotExecutable: the command is at fault.
            MiniboxError: anything else. In any case `close` follows.
        """
        self._owned.prepare()
        streams = Streams(interactive=True, tty=False, owner=self._launch.owner, outside=outside)
        try:
            execution = self._owned.execute(streams.fds)
            streams.begin()
            self._owned.begun()
        except BaseException:
            streams.close()
            raise
        init = execution.init
        assert init
        group = execution.cgroup or cgroup.find(cgroup.detect(), f"minibox-{self.id}")
        self._host = Host(self.id, init.pid, init.pidfd, self._launch.joinable(), group)
        self.main = Started(execution, streams, self._owned.weigh)
        return self.main

    def execute(self, options: ExecOptions, outside: tuple[int, int, int]) -> Started:
        """Run one more command in it; arguments as of `start`.

        Raises:
            ContainerNotRunning: it has ended.
            CommandNotFound, CommandNotExecutable: the command is at fault.
            MiniboxError: anything else.
        """
        self.check_running("execute a command in")
        assert self._host
        command = Exec(self._host, options)
        streams = Streams(interactive=True, tty=False, owner=command.owner, outside=outside)
        try:
            execution = command.execute(streams.fds)
            streams.begin()
        except BaseException:
            streams.close()
            raise

        def ended() -> None:
            execution.close()
            self._commands.discard(started)

        started = Started(execution, streams, ended)
        self._commands.add(started)
        return started

    def check_running(self, what: str) -> None:
        """
        Args:
            what: is going to be done, for the error.

        Raises:
            ContainerNotRunning: it has ended, was closed, or belongs to the process that this one was forked from.
        """
        words = f"{what} sandbox {self.name}"
        if self._closed:
            raise ContainerNotRunning(f"{words}: it was closed")
        if not self.main:
            raise ContainerNotRunning(f"{words}: it was not started")
        if self.main.wait(0) is not None:
            raise ContainerNotRunning(f"{words}: its main process has ended: {self.verdict().summary}")

    def address(self) -> str | None:
        """Its IPv4 address on its network; None where it has none."""
        return self._launch.address

    def timed_out(self, timeout_s: float) -> None:
        """Kill it, since its time is over."""
        assert self.main
        self._timeout_s = timeout_s
        self.main.send_signal(SIGKILL)

    def usage(self) -> Usage:
        """What it has used; all of it is known when its main process has ended."""
        if not self.main:
            return outcome.Usage(0.0)
        if self.main.returncode is None and not self._closed:
            self._owned.weigh()
        found = self._owned.usage
        if not found:
            return outcome.Usage(self.main.wall_s)
        cpu_s = None if found.cpu_ns is None else found.cpu_ns / NS_A_SECOND
        return outcome.Usage(self.main.wall_s, cpu_s, found.memory_peak_bytes, None, found.io_write_bytes)

    def verdict(self) -> Verdict:
        """How it ended, or that it runs."""
        assert self.main
        return outcome.judge_end(
            outcome.End(
                self.id,
                self.name,
                self.main.returncode,
                self.usage(),
                self._owned.oom_killed,
                self.options.memory_bytes,
                self._timeout_s,
            )
        )

    def keep_files(self) -> None:
        """Its files outlive it, for `minibox shell` and `minibox rm`."""
        self._owned.keep_files()

    def close(self) -> None:
        """End it, and remove what it had."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        _owned_here.discard(self)
        try:
            if self.main:
                self.main.send_signal(SIGKILL)
                for each in list(self._commands):  # which it takes along: it has ended when they were waited for
                    each.reap()
                code = self.main.reap()
                self._owned.ended(code, code if code >= 0 else 128 - code, timed_out=self._timeout_s is not None)
        finally:
            self._owned.close()

    def is_ours(self) -> bool:
        """Has it an owner, and is that this process?"""
        return not self._closed

    def disown(self) -> None:
        """In a child that a fork made: from now on this object does nothing."""
        self._closed, self._lock = True, allocate_lock()  # which another thread may have held
        self._owned.disown()


_owned_here: WeakSet[Embedded] = WeakSet()


def _after_fork() -> None:
    for each in list(_owned_here):
        each.disown()
    _owned_here.clear()


os.register_at_fork(after_in_child=_after_fork)
