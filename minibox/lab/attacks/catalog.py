"""The attacks: what each attacker is told, and how one sees from outside whether it got through."""

from __future__ import annotations

import os
from functools import cached_property

from minibox.base.files import text_of
from minibox.lab.attacks import stand_ins
from minibox.lab.attacks.attackers import write_file
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.lab.attacks.runner import Runner
    from minibox.lab.attacks.stand_ins import StandIns

EACH_BYTES = 4 << 20  # what a process eats
LOST_S = 2
KEY = "minibox-attacks"


class Scene:
    """The stand-ins, and what they were made for. What an attack needs is made when it is first asked for."""

    def __init__(self, made: StandIns) -> None:
        self.made = made
        self.attacker: Runner | None = None  # the container that is attacked from

    @cached_property
    def abstract_address(self) -> str:
        address = f"@{KEY}-{os.getpid()}"
        self.made.service(address, self.made.token("socket"))
        return address

    @cached_property
    def service(self) -> str:
        self.made.service(f"{self.made.shared}/service", self.made.token("service"), root_only=True)
        return f"{stand_ins.SHARED}/service"

    @cached_property
    def shared_memory(self) -> int:
        return self.made.shared_memory()

    @cached_property
    def disk(self) -> tuple[int, int]:
        return self.made.disk()

    @cached_property
    def readable_key(self) -> int:
        key = stand_ins.session_key(self.made.token("name of a key"), self.made.token("key"))
        stand_ins.let_others_read(key)
        return key

    @cached_property
    def session_key(self) -> str:
        stand_ins.session_key(KEY, self.made.token("session key"))
        return KEY

    def other_setting(self) -> dict[str, Any]:
        """Have the setting guarded. Another value of it does no harm meanwhile."""
        self._setting = str(int(self.made.guard_setting()) + 1)
        return {"path": stand_ins.SETTING, "text": self._setting}

    def has_changed_setting(self) -> bool:
        """Was it changed? Have it set back."""
        changed = text_of(stand_ins.SETTING).strip() == self._setting
        self.made.end_guard()
        return changed

    def handle(self) -> dict[str, Any]:
        kind, handle = self.made.handle_of(self.made.private_file())
        return {"mount": "/etc/hosts", "kind": kind, "handle": handle}

    def _limit_file(self) -> str:
        assert self.attacker
        group = self.attacker.compiled.group
        directory, file = group.v1.get("memory"), "memory.limit_in_bytes"
        return f"{directory}/{file}" if directory else f"{group.v2}/memory.max"

    def other_limit(self) -> dict[str, Any]:
        self._limit_before = text_of(self._limit_file()).strip()
        return {"to_bytes": 2 * (self.made.options.memory_bytes or 0)}

    def has_changed_limit(self) -> bool:
        """Is it another one? Set it back."""
        changed = text_of(self._limit_file()).strip() != self._limit_before
        if changed:
            write_file(self._limit_file(), self._limit_before)
        return changed

    def eaters(self) -> dict[str, Any]:
        """Have the neighbour work, and reckon how many processes exhaust the memory that both may use."""
        self.made.neighbour.order("work", bytes_=stand_ins.WORK_BYTES)
        both = self.made.neighbour.box.options.memory_bytes or 0
        return {"children": both // EACH_BYTES, "each_bytes": EACH_BYTES}

    def has_lost_work(self) -> bool:
        lost = self.made.neighbour.order("alive")["said"] != "True"
        self.made.neighbour.order("end")
        return lost

    def without_shared_limit(self, controller: str, limit: int | None, small: int) -> str:
        """Why a limit can't be tried out here; "" if it can."""
        if not stand_ins.is_small(limit, small):
            return f"its limit is larger than {small}"
        both = self.made.neighbour.compiled.group.v1
        return (
            "" if controller in both else f"no cgroup v1 with the controller {controller}, which the neighbour shares"
        )


def _nothing(scene: Scene) -> dict[str, Any]:
    return {}


@record
class Attack:
    """One attack.

    Attributes:
        name: a word for it.
        does: what it does to whom; a sentence's end.
        program: a function of `attackers`.
        words: its arguments.
        through: tell from outside, by what it has said and what is changed, whether it got through.
        needs: makes what it attacks.
        lacks: why it can't be tried on this host; "" if it can.
    """

    name: str
    does: str
    program: str
    words: Callable[[Scene], dict[str, Any]]
    through: Callable[[Scene, str], bool]
    needs: Callable[[Scene], object] = _nothing
    lacks: Callable[[Scene], str] = lambda scene: ""


def _says(token: str) -> Callable[[Scene, str], bool]:
    return lambda scene, said: scene.made.token(token) in said


def _no_memory_limit(scene: Scene) -> str:
    return scene.without_shared_limit("memory", scene.made.options.memory_bytes, stand_ins.SMALL_BYTES)


def _no_pids_limit(scene: Scene) -> str:
    return scene.without_shared_limit("pids", scene.made.options.pids_limit, stand_ins.SMALL_PROCESSES)


def _needs_root(scene: Scene) -> str:
    return "" if os.geteuid() == 0 else "only root can make what it attacks"


ATTACKS = (
    Attack("interrupts", "reads how often each device of the host interrupted: when somebody types, for example",
           "read_file", lambda scene: {"path": "/proc/interrupts"}, lambda scene, said: "CPU0" in said),
    Attack("key-names", "reads the names of others' keys in /proc/keys",
           "read_file", lambda scene: {"path": "/proc/keys"}, _says("name of a key"), lambda scene: scene.readable_key),
    Attack("setting", "changes a setting of the host's kernel in /proc/sys",
           "write_file", Scene.other_setting,
           lambda scene, said: scene.has_changed_setting(), lacks=_needs_root),
    Attack("limit", "changes the memory limit that the host has set for it",
           "change_limit", Scene.other_limit, lambda scene, said: scene.has_changed_limit(),
           lacks=lambda scene: "" if scene.made.options.memory_bytes else "it has no memory limit"),
    Attack("set-uid", "as an ordinary user of the container, reads a file of root's by a program with the set-user-ID bit",
           "become_root", lambda scene: {"path": scene.made.file_of_neighbour()}, _says("shared")),
    Attack("key", "reads a key of the host by its number",
           "read_key", lambda scene: {"serial": scene.readable_key}, _says("key"), lambda scene: scene.readable_key),
    Attack("session-key", "reads a key in the session keyring of who started it",
           "read_session_key", lambda scene: {"name": scene.session_key}, _says("session key")),
    Attack("service", "asks a service of the host, by a socket that it was given, for what only root may have",
           "ask_service", lambda scene: {"address": scene.service}, _says("service"), lacks=_needs_root),
    Attack("chroot", "leaves its root directory by a second chroot, and reads a file of the host",
           "leave_root", lambda scene: {"path": "/etc/passwd"}, lambda scene, said: said == text_of("/etc/passwd")),
    Attack("chroot-as-root", "leaves its root directory, and reads a file that only root of the host may read",
           "leave_root", lambda scene: {"path": scene.made.private_file()}, _says("private"), lacks=_needs_root),
    Attack("handle", 'opens a file of the host by its number ("Shocker")',
           "open_by_handle", Scene.handle, _says("private"), Scene.handle, _needs_root),
    Attack("disk", "makes a device node for a disk of the host, and reads the disk",
           "read_disk", lambda scene: dict(zip(("major", "minor"), scene.disk)), _says("disk"),
           lambda scene: scene.disk, _needs_root),
    Attack("processes", "makes so many processes that its neighbour can't make any",
           "make_processes", lambda scene: {"most": 2 * stand_ins.SMALL_PROCESSES},
           lambda scene, said: "failed" in scene.made.neighbour.order("make_process"), lacks=_no_pids_limit),
    Attack("memory", "uses so much memory that the kernel kills its neighbour",
           "eat_memory", Scene.eaters, lambda scene, said: scene.has_lost_work(), lacks=_no_memory_limit),
    Attack("socket", "connects to a service of the host at an abstract Unix socket",
           "ask_service", lambda scene: {"address": scene.abstract_address}, _says("socket")),
    Attack("shared-memory", "attaches shared memory of the host",
           "read_shared_memory", lambda scene: {"segment": scene.shared_memory}, _says("shm"),
           lambda scene: scene.shared_memory),
    Attack("command-line", "reads a password on the command line of a process of the host",
           "read_commands", lambda scene: {"marker": scene.made.token("password")}, _says("password"),
           lambda scene: scene.made.victim()),
    Attack("environment", "reads a password in the environment of a process of the host",
           "read_environment", lambda scene: {"marker": scene.made.token("password")}, _says("environment"),
           lambda scene: scene.made.victim(), _needs_root),
    Attack("kill", "kills a process of the host",
           "kill_process", lambda scene: {"marker": scene.made.token("password")},
           lambda scene, said: scene.made.has_lost_victim(LOST_S if "killed" in said else 0),
           lambda scene: scene.made.victim(), _needs_root),
    Attack("host-name", "learns the host's name",
           "host_name", _nothing, lambda scene, said: said == os.uname().nodename),
    Attack("usage", "reads how much memory its neighbour uses",
           "read_usage", lambda scene: {"name": f"minibox-{scene.made.neighbour.box.id}"},
           lambda scene, said: " uses " in said, lacks=_no_memory_limit),
)  # fmt: skip
