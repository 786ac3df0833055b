"""Try the attackers in containers that lack protections."""

from __future__ import annotations

from contextlib import ExitStack

from minibox.base.files import AutoClose
from minibox.docker_words.mounts import parse_volume
from minibox.errors import MiniboxError
from minibox.lab.attacks import stand_ins
from minibox.lab.attacks.catalog import ATTACKS, Scene
from minibox.lab.attacks.protections import options_without
from minibox.lab.attacks.runner import Runner
from minibox.lab.attacks.stand_ins import StandIns
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from minibox.base.home import Home
    from minibox.engine.spec.compile import CompiledRun
    from minibox.engine.spec.options import RunOptions
    from minibox.lab.attacks.catalog import Attack
    from minibox.lab.attacks.protections import Protection

CAT = "/usr/bin/cat"


class Attempts(AutoClose):
    """The stand-ins of one session, and the attempts against them.

    Attributes:
        lacking: the attacks that can't be tried here, by name, and why.
        tried: the other ones.
        said: what each attacker said in the last attempt, by its name.
    """

    def __init__(self, home: Home, options: RunOptions, storage_driver: str) -> None:
        """
        Args:
            options: of the container that is attacked from.
        """
        self._home, self._storage_driver = home, storage_driver
        self._stack = ExitStack()
        try:
            made = self._stack.enter_context(StandIns(home, options, storage_driver))
            self._options = replace(
                options, volume=(*options.volume, parse_volume(f"{made.shared}:{stand_ins.SHARED}"))
            )
            self._scene = Scene(made)
            self.lacking = {attack.name: why for attack in ATTACKS if (why := self._lacks(attack))}
            self.tried = [attack for attack in ATTACKS if attack.name not in self.lacking]
            self.said: dict[str, str] = {}
        except BaseException:
            self.close()
            raise

    def _lacks(self, attack: Attack) -> str:
        """Make what an attack is against, before a container is started. Return why that is impossible here, or ""."""
        if why := attack.lacks(self._scene):
            return why
        try:
            attack.needs(self._scene)
        except (MiniboxError, OSError) as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Remove the stand-ins."""
        self._stack.close()

    def compiled(self) -> CompiledRun:
        """Return what a container with all protections is started from."""
        with self._container(()) as container:
            return container.compiled

    def through(self, left_out: Sequence[Protection], attacks: Iterable[Attack]) -> set[str]:
        """Run attacks in a container without some protections. Return the names of those that got through."""
        found = set()
        with self._container(left_out) as container:
            self._scene.attacker = container
            container.order("prepare", source=CAT)
            for attack in attacks:
                attack.needs(self._scene)
                answer = container.order(attack.program, **attack.words(self._scene))
                said = self.said[attack.name] = answer.get("said", answer.get("failed", ""))
                if attack.through(self._scene, said):
                    found.add(attack.name)
                container.order("end")
        return found

    def _container(self, left_out: Sequence[Protection]) -> Runner:
        options = options_without(left_out, self._options)
        inside = self._scene.made.neighbour.compiled.group
        return Runner(self._home, options, self._storage_driver, left_out, inside)
