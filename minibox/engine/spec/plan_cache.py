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
from minibox.engine.spec.image_config import image_process
from minibox.engine.spec.runtime_spec import process_args
from minibox.linux import cgroup
from minibox.linux.cgroup.group import of_labels
from minibox.linux.process import signatures
from minibox.plan.compiler import Plan
from minibox.plan.encode import encode, put_numbers
from minibox.plan.namespaces import id_maps
from minibox.plan.operations import INIT, MOUNTER, PARENT, Op
from minibox.plan.process import command
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.host.ids import IdMappings
    from minibox.engine.spec.compile import Identity
    from minibox.engine.spec.options import RunOptions
    from minibox.image.layout.image import ResolvedImage
    from minibox.linux.cgroup import CgroupHost
    from minibox.oci.runtime import Spec
    from minibox.storage.drivers import Snapshotter

KINDS_MAX = 32
SEEN_S = 0.2
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
    storage: Snapshotter,
    image: ResolvedImage,
    identity: Identity,
    terminal: tuple[int, int] | None,
    *,
    once: bool = False,
) -> CompiledRun:
    """Like `engine.spec.compile.prepare`, but reuse a cached plan if there is one."""
    kind = None if terminal else _kind(options, storage, image, identity, once)
    found = _cache.get(kind) if kind else None
    if found and (filled := found.fill(options, image, identity)):
        return filled
    prepared = compile_anew(options, storage, image, identity, terminal, once=once)
    if kind and not prepared.cgroup_host.scope:
        while len(_cache) >= KINDS_MAX:
            _cache.pop(next(iter(_cache)), None)
        _cache[kind] = CachedPlan(prepared, identity.id)
    return prepared


def _kind(
    options: RunOptions, storage: Snapshotter, image: ResolvedImage, identity: Identity, once: bool
) -> tuple[Any, ...] | None:
    """Return the cache key: all that the plan depends on except what `fill` replaces. None: not cacheable."""
    if any(getattr(options, name) for name in LOOKED_UP) or identity.network == "host":
        return None
    if not all("=" in each for each in options.env) or image_process(image.config).get("Volumes"):
        return None
    values = {**options.__dict__, **OF_ONE}
    made_of = marshal.dumps(image.config), image.chain_ids, storage.root, storage.driver
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


class CachedPlan:
    """A compiled plan that can be filled in for other containers."""

    def __init__(self, prepared: CompiledRun, container_id: str) -> None:
        self._first, self._host, self._start = (prepared, container_id), prepared.cgroup_host, prepared.start
        self._flags = prepared.plan.flags
        self._id = os.urandom(ID_DIGITS // 2).hex()  # a random placeholder, which no command contains by accident
        self._spec = b""
        self._ops: list[Op] = []
        self._named: list[int] = []  # steps that contain the id
        self._own: list[int] = []  # steps that are the container's own: ids, addresses
        self._numbered: list[int] = []  # steps with the host ids that are root inside
        self._encoded: tuple[Op | None, dict[str, bytes]] = None, {}  # the last step, and the buffers encoded with it

    def fill(self, options: RunOptions, image: ResolvedImage, identity: Identity) -> CompiledRun | None:
        """Return the plan filled in for another container; None if the host's cgroups have changed."""
        if not self._spec:
            self._read()
        old, new = self._id, identity.id
        spec: Spec = marshal.loads(_renamed(self._spec, old, new))  # all ids have the same length, so this stays valid
        spec["process"]["args"] = process_args(options, image.config)
        if ids := identity.ids:
            spec["linux"]["uidMappings"], spec["linux"]["gidMappings"] = list(ids.uids), list(ids.gids)
        if _cgroup_host() != self._host:
            return None
        own = identity.steps
        start = replace(
            self._start,
            cgroup_steps=tuple(_of(step, old, new) for step in self._start.cgroup_steps),
            cgroups=_renamed(self._start.cgroups, old, new),
            held=own.held, ports=own.ports, network=own.network, published=own.published,
        )  # fmt: skip
        anew = (*own.held, *(id_maps(spec, start) if ids else ()), *own.network, *own.published)
        if len(anew) != len(self._own):
            return None
        ops = list(self._ops)
        for number in self._named:
            ops[number] = _of(ops[number], old, new)
        for number, step in zip(self._own, anew):
            ops[number] = step
        ops.append(command(spec["process"]))
        encoded = {
            actor: bytearray(_renamed(data, old, new)) for actor, data in self._encode(_of(ops[-1], new, old)).items()
        }
        if ids:
            self._put_roots(ops, encoded, ids.uids[0]["hostID"], ids.gids[0]["hostID"])
        return CompiledRun(
            spec, start, Plan(tuple(ops), self._flags, encoded), self._host, of_labels(start.cgroups), ()
        )

    def _put_roots(self, ops: list[Op], encoded: dict[str, bytearray], *roots: int) -> None:
        for number in self._numbered:
            step = ops[number]
            ops[number] = Op(step.name, roots, step.why, step.actor)
            before = sum(each.actor == step.actor for each in ops[:number])
            put_numbers(encoded[step.actor], before, *roots)

    def _read(self) -> None:
        prepared, old = self._first
        ops = [_of(step, old, self._id) for step in prepared.plan.ops[:-1]]
        self._named = [number for number, step in enumerate(ops) if step != prepared.plan.ops[number]]
        start = prepared.start
        own = {step.name for step in (*start.held, *start.network, *start.published)} | ID_MAPS
        self._own = [number for number, step in enumerate(ops) if step.name in own]
        self._start = replace(
            start,
            cgroup_steps=tuple(_of(step, old, self._id) for step in start.cgroup_steps),
            cgroups=_renamed(start.cgroups, old, self._id),
        )
        self._numbered = [number for number, step in enumerate(ops) if step.name == "set_fs_ids"]
        self._ops = ops
        spec: Any = prepared.spec
        self._spec = _renamed(marshal.dumps(spec), old, self._id)

    def _encode(self, last: Op) -> dict[str, bytes]:
        """Return the encoded steps of each actor, with ``last`` as the last step; see `plan.encode`."""
        known, encoded = self._encoded
        if last != known:
            by_actor: dict[str, list[Op]] = {MOUNTER: [], INIT: [], PARENT: []}
            for step in (*self._ops, last):
                by_actor[step.actor].append(step)
            encoded = {actor: bytes(encode(by_actor[actor], signatures())) for actor in (MOUNTER, INIT)}
            self._encoded = last, encoded
        return encoded


def _of(step: Op, old: str, new: str) -> Op:
    """Rewrite a step of the container ``old`` for the container ``new``."""
    return Op(step.name, _renamed(step.args, old, new), _renamed(step.why, old, new), step.actor)


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, tuple):
        return tuple([_renamed(each, old, new) for each in value])
    if isinstance(value, str):
        return value.replace(old, new).replace(old[:ID_SHOWN], new[:ID_SHOWN])
    if isinstance(value, bytes):
        return value.replace(old.encode(), new.encode()).replace(old[:ID_SHOWN].encode(), new[:ID_SHOWN].encode())
    return value
