"""A container whose first process is `attackers`: it carries out orders, one at a time."""

from __future__ import annotations

import os
from functools import partial

from minibox.api import interpreter
from minibox.base.files import AutoClose, close_descriptors, content_of
from minibox.engine.container.embedded import Embedded
from minibox.engine.spec.compile import prepare
from minibox.engine.spec.options import typed
from minibox.errors import MiniboxError
from minibox.lab.attacks.protections import compiled_without
from minibox.linux.cgroup import Cgroup
from minibox.linux.cgroup.steps import mkdir
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.base.home import Home
    from minibox.base.operation import Argument
    from minibox.engine.spec.compile import CompiledRun
    from minibox.engine.spec.options import RunOptions
    from minibox.lab.attacks.protections import Protection

ANSWER_BYTES_MAX = 1 << 21


class Runner(AutoClose):
    """A running container that takes orders. Call `close` at the end.

    Attributes:
        box: the container.
        compiled: what it was started from.
    """

    def __init__(
        self,
        home: Home,
        options: RunOptions,
        storage_driver: str,
        left_out: Sequence[Protection] = (),
        inside: Cgroup | None = None,
    ) -> None:
        """Start it.

        Args:
            left_out: protections that it doesn't get; `protections.options_without` has changed the options for them.
            inside: the cgroup of another container, to put its own into.
        """
        self.box = Embedded(home, _as_runner(options), storage_driver=storage_driver, on_note=lambda note: None)
        self.box.compile = partial(self._compile, tuple(left_out), inside)
        self.compiled: CompiledRun
        self._fds: list[int] = []
        try:
            orders, self._orders = os.pipe2(os.O_CLOEXEC)
            answers, answers_end = os.pipe2(os.O_CLOEXEC)
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            self._fds = [orders, self._orders, answers, answers_end, null]
            self.box.start((orders, answers_end, null))
            for fd in (orders, answers_end, null):
                os.close(fd)
                self._fds.remove(fd)
            self._answers = os.fdopen(answers, "rb", closefd=False)
        except BaseException:
            self.close()
            raise

    def order(self, name: str, /, **words: object) -> dict[str, str]:
        """Have a function of `attackers` called, and return its answer: ``said``, or ``failed`` and why.

        Raises:
            MiniboxError: the container has ended.
        """
        import json

        try:
            os.write(self._orders, json.dumps({"do": name, "with": words}).encode() + b"\n")
            line = self._answers.readline(ANSWER_BYTES_MAX)
        except BrokenPipeError:
            line = b""
        if not line:
            raise MiniboxError(f"the container of {name} has ended: {self.box.verdict().summary}")
        answer: dict[str, str] = json.loads(line)
        return answer

    def close(self) -> None:
        """End and remove it."""
        fds, self._fds = self._fds, []
        close_descriptors(*fds)
        self.box.close()

    def _compile(
        self, left_out: tuple[Protection, ...], inside: Cgroup | None, options: RunOptions, *given: Any, **named: Any
    ) -> CompiledRun:
        compiled = prepare(options, *given, **named)
        self.compiled = compiled_without(left_out, _moved(compiled, inside) if inside else compiled)
        return self.compiled


def _as_runner(options: RunOptions) -> RunOptions:
    from minibox.lab.attacks import attackers

    source = content_of(attackers.__file__).decode()
    volumes = [":".join(mount) for mount in interpreter.mounts()]
    changed: RunOptions = replace(
        options,
        command=(interpreter.command(), "-I", "-S", "-c", source),
        entrypoint="",
        volume=(*options.volume, *typed({"volume": tuple(volumes)})["volume"]),
        interactive=True,
        no_healthcheck=True,
        rm=True,
        **{
            name: getattr(type(options), name)
            for name in ("tty", "detach", "name", "init", "restart", "user", "workdir")
        },
    )
    return changed


def _moved(compiled: CompiledRun, inside: Cgroup) -> CompiledRun:
    """Put a container's cgroup into another's, in all hierarchies of v1 that the other has: its limits hold for both."""
    group = compiled.group
    v1 = {**group.v1, **{controller: f"{path}/{group.name}" for controller, path in inside.v1.items()}}
    places = {path: v1[controller] for controller, path in group.v1.items()}

    def place(argument: Argument) -> Argument:
        if isinstance(argument, str):
            for old, new in places.items():
                if argument == old or argument.startswith(f"{old}/"):
                    return new + argument.removeprefix(old)
        return argument

    moved = [replace(step, args=tuple(map(place, step.args))) for step in compiled.start.cgroup_steps]
    added = [mkdir(v1[controller]) for controller in inside.v1 if controller not in group.v1]
    own = Cgroup(group.name, v1, group.v2)
    start = replace(compiled.start, cgroup_steps=(*added, *moved), cgroups=own.labels)
    return replace(compiled, start=start, group=own)
