"""A cache of compiled plans: containers with the same options and image differ only in ids and command.

A program that embeds minibox starts the same container over and over. The first one is compiled; the others reuse its
plan if it depends on the options and the image alone: see `_kind`.
"""

from __future__ import annotations

import marshal
import os
from time import monotonic

from minibox.engine.spec.compile import CompiledRun
from minibox.engine.spec.compile import prepare as compile_anew
from minibox.engine.spec.runtime_spec import process_args
from minibox.linux import cgroup
from minibox.linux.cgroup.group import of_labels
from minibox.linux.process import signatures
from minibox.plan.compiler import Plan
from minibox.plan.encode import encode, put_numbers
from minibox.plan.namespaces import id_maps
from minibox.plan.operations import INIT, MOUNTER, Op
from minibox.plan.process import command
from minibox.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.host.ids import IdMappings
    from minibox.engine.spec.compile import Identity
    from minibox.engine.spec.options import RunOptions
    from minibox.linux.cgroup import CgroupHost
    from minibox.storage.drivers import Snapshotter

KINDS_MAX = 32
SEEN_S = 2.0
ID_MAPS = {"deny_setgroups", "write_uid_map", "write_gid_map"}
ID_DIGITS, ID_SHOWN = 64, 12  # the digits shown in the host name
# Options whose plan depends on more than options and image: files, devices, volumes, the cgroup manager.
LOOKED_UP = ("env_file", "volume", "mount", "device", "privileged", "disk_bytes", "security_opt", "cgroup_manager")
# Options that don't change the compiled plan, or only what `fill` replaces.
OF_ONE = {"command": (), "name": "", "cidfile": ""}

_cache: dict[tuple[Any, ...], CachedPlan] = {}
_seen: tuple[float, int, CgroupHost | None] = 0.0, -1, None


def prepare(
    options: RunOptions,
    config: dict[str, Any],
    storage: Snapshotter,
    chain_ids: tuple[str, ...],
    identity: Identity,
    terminal: tuple[int, int] | None,
    *,
    once: bool = False,
) -> CompiledRun:
    """Like `engine.spec.compile.prepare`, but reuse a cached plan if there is one."""
    kind = None if terminal else _kind(options, config, storage, chain_ids, identity, once)
    found = _cache.get(kind) if kind else None
    if found and (filled := found.fill(options, config, identity)):
        return filled
    prepared = compile_anew(options, config, storage, chain_ids, identity, terminal, once=once)
    if kind and not prepared.cgroup_host.scope:
        while len(_cache) >= KINDS_MAX:
            _cache.pop(next(iter(_cache)), None)
        _cache[kind] = CachedPlan(prepared, identity.id)
    return prepared


def _kind(
    options: RunOptions,
    config: dict[str, Any],
    storage: Snapshotter,
    chain_ids: tuple[str, ...],
    identity: Identity,
    once: bool,
) -> tuple[Any, ...] | None:
    """Return the cache key: all that the plan depends on except what `fill` replaces. None: not cacheable."""
    if any(getattr(options, name) for name in LOOKED_UP) or identity.network == "host":
        return None
    if any(each.value is None for each in options.env) or config.get("Volumes"):
        return None
    values = {**options.__dict__, **OF_ONE}
    made_of = marshal.dumps(config), chain_ids, storage.root, storage.driver
    who = os.geteuid(), _sizes(identity.ids), identity.network, once
    return (*made_of, *who, *values.values())


def _sizes(ids: IdMappings | None) -> tuple[Any, ...]:
    ranges = (*ids.uids, None, *ids.gids) if ids else ()
    return tuple((each["containerID"], each["size"]) if each else None for each in ranges)


def _cgroup_host() -> CgroupHost:
    """Return `cgroup.detect`'s result, kept for a moment since it takes thirty system calls."""
    global _seen
    seen_at, euid, host = _seen
    if host is None or euid != os.geteuid() or monotonic() > seen_at + SEEN_S:
        host = cgroup.detect()
        _seen = monotonic(), os.geteuid(), host
    return host


@record
class Form:
    """A plan to be filled in, for one command.

    Attributes:
        args: the command.
        ops: the steps.
        text: all that depends on the command or contains the id, by `marshal`: the Spec, the cgroups, the steps with
            their places, the encoded steps by actor. A placeholder stands for the id. All ids have the same length, so
            replacing it leaves a valid text.
    """

    args: list[str]
    ops: list[Op]
    text: bytes


class CachedPlan:
    """A compiled plan that can be filled in for other containers."""

    def __init__(self, prepared: CompiledRun, container_id: str) -> None:
        self._first, self._host = (prepared, container_id), prepared.cgroup_host
        self._start, self._flags = prepared.start, prepared.plan.flags
        self._id = os.urandom(ID_DIGITS // 2).hex()  # a random placeholder, which no command contains by accident
        self._is_read = False
        self._spec: Any = None
        self._cgroups: tuple[str, ...] = ()
        self._ops: list[Op] = []  # all steps but the last, the command
        self._named: list[int] = []  # steps that contain the id
        self._cgroup_steps = slice(0)  # where the cgroup's steps are
        self._own: list[int] = []  # steps that are the container's own: ids, addresses
        self._numbered: list[
            tuple[int, int]
        ] = []  # steps with the host ids that are root inside, and their place in a buffer
        self._form = Form([], [], b"")

    def fill(self, options: RunOptions, config: dict[str, Any], identity: Identity) -> CompiledRun | None:
        """Return the plan filled in for another container; None if the host's cgroups have changed."""
        args, form = process_args(options, config), self._form
        if args != form.args:
            self._form = form = self._form_of(args)
        if _cgroup_host() != self._host:
            return None
        spec, cgroups, named, encoded = marshal.loads(_renamed(form.text, self._id, identity.id))
        ids, own = identity.ids, identity.steps
        if ids:
            spec["linux"]["uidMappings"], spec["linux"]["gidMappings"] = list(ids.uids), list(ids.gids)
        ops = list(form.ops)
        for number, values in named:
            ops[number] = Op(*values)
        start = replace(
            self._start,
            cgroup_steps=tuple(ops[self._cgroup_steps]), cgroups=cgroups,
            held=own.held, ports=own.ports, network=own.network, published=own.published,
        )  # fmt: skip
        anew = (*own.held, *(id_maps(spec, start) if ids else ()), *own.network, *own.published)
        if len(anew) != len(self._own):
            return None
        for number, step in zip(self._own, anew):
            ops[number] = step
        buffers = {actor: bytearray(data) for actor, data in encoded.items()}
        if ids:
            self._put_roots(ops, buffers, ids.uids[0]["hostID"], ids.gids[0]["hostID"])
        return CompiledRun(spec, start, Plan(tuple(ops), self._flags, buffers), self._host, of_labels(cgroups), ())

    def _put_roots(self, ops: list[Op], buffers: dict[str, bytearray], *roots: int) -> None:
        for number, place in self._numbered:
            step = ops[number]
            ops[number] = Op(step.name, roots, step.why, step.actor)
            put_numbers(buffers[step.actor], place, *roots)

    def _form_of(self, args: list[str]) -> Form:
        if not self._is_read:
            self._read()
        spec = {**self._spec, "process": {**self._spec["process"], "args": args}}
        ops = [*self._ops, command(spec["process"])]
        encoded = {
            actor: bytes(encode([step for step in ops if step.actor == actor], signatures()))
            for actor in (MOUNTER, INIT)
        }
        named = [(number, _values(ops[number])) for number in (*self._named, len(ops) - 1)]
        return Form(args, ops, marshal.dumps((spec, self._cgroups, named, encoded)))

    def _read(self) -> None:
        (prepared, old), new = self._first, self._id
        start, before = prepared.start, prepared.plan.ops[:-1]
        spec: Any = prepared.spec
        self._spec, self._cgroups, steps = marshal.loads(
            _renamed(marshal.dumps((spec, start.cgroups, [_values(step) for step in before])), old, new)
        )
        self._ops = ops = [Op(*values) for values in steps]
        self._named = [number for number, step in enumerate(ops) if step != before[number]]
        first = before.index(start.cgroup_steps[0]) if start.cgroup_steps else 0
        self._cgroup_steps = slice(first, first + len(start.cgroup_steps))
        own = {step.name for step in (*start.held, *start.network, *start.published)} | ID_MAPS
        self._own = [number for number, step in enumerate(ops) if step.name in own]
        self._numbered = [
            (number, [each.actor for each in ops[:number]].count(step.actor))
            for number, step in enumerate(ops)
            if step.name == "set_fs_ids"
        ]
        self._is_read = True


def _values(step: Op) -> tuple[Any, ...]:
    return step.name, step.args, step.why, step.actor


def _renamed(text: bytes, old: str, new: str) -> bytes:
    """Replace a container's id, and the digits of it in its host name."""
    text = text.replace(old.encode(), new.encode())
    return text.replace(old[:ID_SHOWN].encode(), new[:ID_SHOWN].encode())
